"""The site's own Sphinx extension: the sources that Sphinx reads, written from notebooks and
modules; links from backticked names and words of the glossary; fastcore's docments in the
reference; plain text beside each notebook."""
import ast, inspect, re, shutil, zlib
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from textwrap import dedent, indent
from docutils import nodes
from fastcore.docments import docments
from fastcore.nbio import write_nb
from fastcore.xtras import Config
from jinja2 import Template
from PIL import Image
from sphinx.ext.intersphinx import InventoryAdapter
from sphinx.pycode import ModuleAnalyzer
from book import Book, made, on_site, picture

PARTS = dict(book='[01]*.ipynb', tutorials='tutorials/[0-9]*.ipynb', appendices='[2-9]*.ipynb')

class Site:
    "Settings, modules with their public names, notebooks in reading order, the glossary's words"
    def __init__(self, root):
        self.root = root
        cfg = self.cfg = Config(root, 'settings.ini', types=dict(published=bool))
        self.lib,self.at,public = cfg.lib_name,f'{cfg.user}/{cfg.lib_name}',cfg.published
        self.repo = f'https://github.com/{self.at}'*public
        self.home = f'https://{cfg.user}.github.io/{self.lib}/'*public
        self.there = f'{self.at}/blob/{cfg.branch}/'
        self.colab = f'https://colab.research.google.com/github/{self.there}nbs/'*public
        order = re.findall(r'^from \S+\.(\w+) import', self.read(f'{self.lib}/all.py'), re.M)
        self.modules = {m: import_module(f'{self.lib}.{m}') for m in order}
        self.names = {m: mod.__all__ for m,mod in self.modules.items()}
        glossary = re.search(r'{glossary}\n(.*?)\n````', self.read('docs/glossary.md'), re.S)[1]
        self.terms = {t: re.search(r'→ {doc}`(\S+)`', e)[1] for e in glossary.split('\n\n')
                      for t in re.findall(r'^\S.*', e, re.M)}
        self.books = [Book(self, part, f) for part,pattern in PARTS.items()
                      for f in sorted((root/'nbs').glob(pattern))]

    def read(self, path): return (self.root/path).read_text(encoding='utf-8')
    def cited(self):
        "Every paper that a notebook links to, with the notebooks that do"
        where = {}
        paper = r'\[([^\]]*\d{4}[^\]]*)\]\((https://arxiv\.org/abs/[\w./-]+)\)'
        for b in self.books:
            for label,url in re.findall(paper, b.twin):
                where.setdefault(url, (label.replace(',', ''), {}))[1][b.doc] = 1
        return sorted((label, url, list(docs)) for url,(label,docs) in where.items())

site = Site(Path(__file__).resolve().parent.parent)

# ---- what Sphinx reads --------------------------------------------------------------------------
def stage(to):
    "Write all that Sphinx reads to the folder `to`"
    skip = shutil.ignore_patterns('*.py', '__pycache__', '_static', 'live', '*.ipynb', '.*')
    for src in ('docs', 'nbs'): shutil.copytree(site.root/src, to, ignore=skip, dirs_exist_ok=True)
    shutil.copytree(site.root/site.lib, to/site.lib)
    # what torch, fastai and fastcore document, and where
    head = b'# Sphinx inventory version 2\n# Project: \n# Version: \n# compressed using zlib\n'
    for f in (site.root/'docs/inventories').glob('*.txt'):
        (to/f'{f.stem}.inv').write_bytes(head + zlib.compress(f.read_bytes()))
    for b in site.books: write_nb(b.nb, to/f'{b.doc}.ipynb')
    def figure(doc, code, file):
        "A picture of a notebook, by words of the code of its cell, as a file for other pages"
        cells = next(b.cells for b in site.books if b.doc == doc)
        found = [p for c in cells if code in c.source and (p := picture(c))]
        (to/file).write_bytes(found[-1][1])
        return file
    for f in to.rglob('*.md'):
        f.write_text(on_site(render(f, figure=figure)), encoding='utf-8')
    for m,mod in site.modules.items():
        book = next(b for b in site.books if b.module == m)
        page = render(to/'reference/module.jinja', m=m, mod=mod, book=book, kind=kind)
        (to/f'reference/{m}.md').write_text(page, encoding='utf-8')
    # pages of the repository: links lead to the site's pages, or to the repository
    for name,src in dict(contributing='CONTRIBUTING.md', benchmarks='benchmarks/README.md').items():
        s = re.sub(r'\]\((\.\./)?nbs/', '](', site.read(src))
        s = re.sub(r'\]\((?!https?:|#|\d\d_|tutorials/)', f'](https://github.com/{site.there}', s)
        (to/f'{name}.md').write_text(s, encoding='utf-8')
    for f in [*to.rglob('*.md'), *to.rglob('*.ipynb')]*(not site.repo):
        s = f.read_text(encoding='utf-8')
        s = re.sub(rf'\[([^][]+)\]\(https://github\.com/{site.at}[^)]*\)', r'\1', s)
        f.write_text(s, encoding='utf-8')

def render(file, **kwargs):
    text = file.read_text(encoding='utf-8')
    return Template(text, trim_blocks=True, keep_trailing_newline=True).render(site=site, **kwargs)

def kind(mod, name):
    if inspect.isfunction(getattr(mod, name)): return 'function'
    return 'class' if re.search(rf'^class {name}\b', inspect.getsource(mod), re.M) else 'data'

# ---- the reference ------------------------------------------------------------------------------
def rst(s):
    "Markdown of a docstring as reStructuredText"
    parts = [f'``{p}``\\ ' if i % 2 else p.replace('*', r'\*') for i,p in enumerate(s.split('`'))]
    return re.sub(r'\$([^$]+)\$', r':math:`\1`\\ ', s if '``' in s else ''.join(parts))

CHECKS = dict(count=lambda least=1: f'at least {least}',
              counts=lambda least=1: f'each at least {least}', within=lambda ends: f'in {ends}',
              real=lambda ends='(-inf, inf)': f'in {ends}',
              one_of=lambda options: 'one of ' + ', '.join(map(repr, options)))

def declared(f):
    "What a function's own calls of `checks` say of its parameters"
    out = {}
    for o in ast.walk(ast.parse(dedent(inspect.getsource(f)))):
        if not (isinstance(o, ast.Call) and getattr(o.func, 'id', '') in CHECKS): continue
        with suppress(Exception):     # where it depends on what is known only when it is called
            what = CHECKS[o.func.id](*[eval(ast.unparse(a), f.__globals__) for a in o.args])
            out |= {k.arg: what for k in o.keywords if ast.unparse(k.value) == k.arg}
    return out

def block(lang, s): return ['', f'.. code-block:: {lang}', '', *indent(s, '   ').splitlines(), '']

def document(app, what, name, obj, options, lines):
    "A docstring, docments, what is checked, and the book's first demonstration, for Sphinx"
    # without what `help` adds
    lines[:] = map(rst, inspect.cleandoc(str(obj.__doc__ or '')).splitlines())
    module,_,short = name.removeprefix(f'{site.lib}.').partition('.')
    mod = site.modules[module]
    if what == 'data':
        text = inspect.getsource(mod)
        parts = [text.splitlines()[o.lineno-1:o.end_lineno] for o in ast.parse(text).body
                 if short in made([o])]
        lines[:] = block('python', '\n'.join(sum(parts, [])))
    f = vars(obj).get('__init__') if what == 'class' else obj
    if inspect.isfunction(f):
        said,must = docments(f),declared(f)
        for p in [p for p in said if p[0] != '_' and p not in ('self', 'return')]:
            doc = '; '.join(o for o in (said[p], must.get(p)) if o)
            if doc: lines += ['', f':param {p}: {rst(doc)}']
        if said.get('return'): lines += ['', f':returns: {rst(said["return"])}']
    if '.' not in short: lines += example(app, mod, short)

def example(app, mod, short):
    """How to import a name, and the book's first short cell that uses it, rather one that is open
    and shows something; of a class that only a function makes, that function's"""
    def returned(n): return getattr(getattr(mod, n), '__annotations__', {}).get('return')
    made_by = [n for n in mod.__all__ if getattr(returned(n), '__name__', '') == short]
    def uses(c, names): return re.search(rf"(?<![\w.])({'|'.join(names)})\b", c.source)
    def rank(o): return not uses(o[1], [short]),bool(o[1].fold_),not o[1].said_
    found = [(b, c) for b in site.books for c in b.cells if c.cell_type == 'code' and not c.new_
             and c.source.count('\n') < 12 and uses(c, [short, *made_by])]
    head = f'from {mod.__name__} import {short}'
    if not found: return block('python', head)
    b,c = min(found, key=rank)
    out,text = block('python', f'{head}\n\n{c.source}'),'\n'.join(c.said_)
    if pic := picture(c):
        file = f'reference/{short}.{pic[0]}'
        (Path(app.srcdir)/file).write_bytes(pic[1])
        out += [f'.. image:: /{file}', f'   :alt: {c.alt_}', '']
    elif 0 < len(text.splitlines()) < 16: out += block('text', text)
    defined = f'`In the book <../{b.doc}.html#def-{short}>`__'
    return [*out, defined if short in b.defined else f':doc:`/{b.doc}`']

def signature(app, what, name, obj, options, args, returns):
    "Without private parameters, and functions by their names"
    if not args: return None
    if what == 'class' and '__init__' not in vars(obj): return '',None
    args = re.sub(r'<(?:function|class) \'?([\w.]+).*?>', r'\1', args)
    return re.sub(r', _\w+[^,)]*', '', args),returns

def find_tags(self, sphinx=ModuleAnalyzer.find_tags):
    "Where a module defines what; Sphinx does not know of constants, nor of methods by `@patch`"
    tags = sphinx(self)
    for o in ast.parse(self.code).body:
        if isinstance(o, ast.Assign):
            tags |= {n: ('def', o.lineno, o.end_lineno) for n in made([o])}
        patched = isinstance(o, ast.FunctionDef) and o.decorator_list and o.args.args
        if patched and (cls := o.args.args[0].annotation):
            tags[f'{ast.unparse(cls)}.{o.name}'] = 'def',o.decorator_list[0].lineno,o.end_lineno
    return tags

# ---- links --------------------------------------------------------------------------------------
def inside(node, *kinds):
    while node := node.parent:
        if isinstance(node, (nodes.title, nodes.reference, *kinds)): return True

def the_one(name, names):
    "The only one of dotted `names` that `name` can mean; no method by a bare word such as `step`"
    found = [o for o in names if f'.{o}'.endswith(f'.{name}')
             and (re.search('[._A-Z]', name) or o.count('.') == 2)]
    return found[0] if len(found) == 1 else None

def link_names(app, doctree, docname):
    "Backticked names lead to the reference, or to the pages of torch, fastai and fastcore"
    def uri(o): return f'{app.builder.get_relative_uri(docname, o.docname)}#{o.node_id}'
    objects = app.env.domains.python_domain.objects
    ours = {n: uri(o) for n,o in objects.items() if not o.aliased}
    kinds = InventoryAdapter(app.env).main_inventory.values()
    theirs = {n: item.uri for items in kinds for n,item in items.items()}
    for lit in list(doctree.findall(nodes.literal)):
        name = lit.astext().removesuffix('()').replace('learn.', 'Learner.')
        full = the_one(name, ours) or the_one(name, theirs)
        if not full or inside(lit): continue
        lit.replace_self(nodes.reference('', '', lit.deepcopy(), refuri=(theirs | ours)[full],
                                         classes=['name'], reftitle=full, internal=full in ours))

def link_terms(app, doctree, docname):
    "The first place where a page uses a word of the glossary that it treats leads there"
    code = nodes.literal, nodes.math, nodes.literal_block, nodes.raw
    for term in [t for t,doc in site.terms.items() if doc == docname]:
        place = app.env.domains['std'].objects['term', term][1]
        uri = f"{app.builder.get_relative_uri(docname, 'glossary')}#{place}"
        for node in doctree.findall(nodes.Text):
            m = re.search(rf'\b{term}(s|es|ed|ing)?\b', s := node.astext(), re.I)
            if not m or inside(node, *code): continue
            link = nodes.reference('', m[0], refuri=uri, internal=True, classes=['gloss'])
            node.parent.replace(node, [nodes.Text(s[:m.start()]), link, nodes.Text(s[m.end():])])
            break

def tidy(app, name, template, context, doctree):
    "Brackets in a page's description hold together, wherever a link or code began in them"
    if tags := context.get('metatags'): context['metatags'] = re.sub(r' ?\( ', ' (', tags)

def reserve(app, doctree, docname):
    "Every picture takes its room before it is there: half its pixels, if drawn at twice that"
    for node in doctree.findall(nodes.image):
        im = Image.open(Path(app.srcdir)/node['uri'])
        half = 1 + (im.info.get('dpi', (72, 72))[0] > 120)
        node['width'],node['height'] = (str(o//half) for o in im.size)

# ---- beside the pages ---------------------------------------------------------------------------
def finish(app, error):
    "The notebooks as they are, their plain-text twins, `llms.txt`"
    if error: return
    def write(name, s): (Path(app.outdir)/name).write_text(s, encoding='utf-8')
    for b in site.books:
        shutil.copy(b.file, Path(app.outdir)/f'{b.doc}.ipynb')
        write(f'{b.doc}.md', b.twin)
    shutil.copytree(Path(app.srcdir)/'images', Path(app.outdir)/'images')
    write('llms.txt', render(Path(app.srcdir)/'llms.jinja'))
    write('llms-full.txt', '\n\n'.join(b.twin for b in site.books))

def setup(app):
    ModuleAnalyzer.find_tags = find_tags
    for event,f in {'autodoc-process-docstring': document, 'autodoc-process-signature': signature,
                    'build-finished': finish}.items():
        app.connect(event, f)
    for f in (link_terms, link_names, reserve): app.connect('doctree-resolved', f)
    app.connect('html-page-context', tidy, priority=900)
