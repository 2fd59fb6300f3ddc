"""The site's own Sphinx extension: the sources that Sphinx reads, written from notebooks and
modules; links from backticked names and words of the glossary; fastcore's docments in the
reference; plain text beside each notebook."""
import ast, base64, inspect, re, shutil, textwrap, zlib
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from docutils import nodes
from fastcore.docments import docments
from PIL import Image, ImageOps
from sphinx.ext.intersphinx import InventoryAdapter
from sphinx.pycode import ModuleAnalyzer
from book import Book, made, notebooks, parsed, size

site = None        # `tools/docs` makes it

class Site:
    "Settings, modules with their public names, notebooks, the glossary's words"
    def __init__(self, root):
        self.root,self.inventories = Path(root),{}
        ini = ConfigParser(delimiters=['='], interpolation=None)
        ini.read(self.root/'settings.ini', encoding='utf-8')
        self.cfg,public = ini['DEFAULT'],ini['DEFAULT'].getboolean('published')
        self.lib,self.at = self.cfg['lib_name'],f"{self.cfg['user']}/{self.cfg['lib_name']}"
        self.repo = f'https://github.com/{self.at}' if public else ''
        self.home = f"https://{self.cfg['user']}.github.io/{self.lib}/" if public else ''
        nbs = f"github/{self.at}/blob/{self.cfg['branch']}/nbs/"
        colab = f'https://colab.research.google.com/{nbs}' if public else ''
        order = re.findall(rf'^from {self.lib}\.(\w+) import', self.read(f'{self.lib}/all.py'),
                           re.M)
        self.modules = {m: import_module(f'{self.lib}.{m}') for m in order}
        names = {m: mod.__all__ for m,mod in self.modules.items()}
        self.books = [Book(self.root/'nbs'/f, self.root/'nbs', names, colab)
                      for f in notebooks(self.root/'nbs')]
        glossary = re.search(r'{glossary}\n(.*?)\n````', self.read('docs/glossary.md'), re.S)[1]
        self.terms = {t: re.search(r'→ {doc}`(\S+)`', e)[1] for e in glossary.split('\n\n')
                      for t in re.findall(r'^\S.*', e, re.M)}

    def read(self, path): return (self.root/path).read_text(encoding='utf-8')
    def picture(self, doc, pattern):
        "The last picture that a cell of a notebook whose code matches `pattern` drew"
        return next(d for b in self.books if b.doc == doc for code,d in reversed(b.figures)
                    if re.search(pattern, code))

# ---- what Sphinx reads --------------------------------------------------------------------------
HOME = {'clothes.png': ('tutorials/02_fashion_classes', r'row_titles=dls\.vocab'),
        'predictions.png': ('tutorials/01_fashion', r'history\.flatten')}

def stage(site, to):
    "Write all that Sphinx reads to the folder `to`"
    skip = shutil.ignore_patterns('*.py', '__pycache__', '_static', 'inventories', '*.ipynb',
                                  '.ipynb_checkpoints')
    for src in ('docs', 'nbs'): shutil.copytree(site.root/src, to, ignore=skip, dirs_exist_ok=True)
    shutil.copytree(site.root/site.lib, to/site.lib, ignore=shutil.ignore_patterns('__pycache__'))
    def write(name, s):
        (to/name).parent.mkdir(exist_ok=True); (to/name).write_text(s, encoding='utf-8')
    # which search finds by themselves
    names = {n.lower() for mod in site.modules.values() for n in mod.__all__}
    for b in site.books:
        words = ', '.join(f'! {t}' for t,doc in site.terms.items() if doc == b.doc and ',' not in t
                          and t.lower() not in names)
        b.save(to, f'```{{index}} {words}\n```' if words else '')
    for name,where in HOME.items():
        (to/'images'/name).write_bytes(base64.b64decode(site.picture(*where)['image/png']))
    card(to/'images')
    for m,mod in site.modules.items(): write(f'reference/{m}.md', reference(site, m, mod))
    write('reference/index.md', '# Reference\n\nEvery public name, by module. '
          f'`from {site.lib}.all import *` brings all of them, '
          f'`from {site.lib}.unet import TAUnet` one, and with it only torch.\n\n'
          + '\n\n'.join(f'[**{m}**]({m}.md): ' + ' · '.join(f'`{n}`' for n in mod.__all__)
                        for m,mod in site.modules.items())
          + '\n\n```{toctree}\n:hidden:\n\n' + '\n'.join(site.modules) + '\n```\n')
    for name,src in dict(contributing='CONTRIBUTING.md', benchmarks='benchmarks/README.md').items():
        write(f'{name}.md', outward(site, src))
    def toc(part):
        return '\n'.join(b.doc if part == 'tutorials'
                         else f"{int(b.rel.name[:2])} · {b.title.replace('`', '')} <{b.doc}>"
                                    for b in site.books if b.part == part)
    # the first line says where the pages are
    for f in (site.root/'docs/inventories').glob('*.txt'):
        url,_,rest = f.read_text(encoding='utf-8').partition('\n')
        head = (f'# Sphinx inventory version 2\n# Project: {f.stem}\n# Version: \n'
                '# compressed using zlib\n')
        (to/f'{f.stem}.inv').write_bytes(head.encode() + zlib.compress(rest.encode()))
        site.inventories[f.stem] = url,f'{f.stem}.inv'
    fill = dict(BOOK=toc('book'), TUTORIALS=toc('tutorials'), APPENDICES=toc('appendices'),
                VERSION=site.cfg['version'], CITED=cited(site),
                CLONE=f'git clone {site.repo}\ncd {site.lib}\n' if site.repo else '')
    for f in (f for end in ('md', 'ipynb') for f in to.rglob(f'*.{end}')):
        s = re.sub(r'@([A-Z]+)@', lambda m: fill.get(m[1], m[0]), f.read_text(encoding='utf-8'))
        if not site.repo:
            s = re.sub(rf'\[([^\]]+)\]\(https://github\.com/{site.at}[^)]*\)', r'\1', s)
        f.write_text(s, encoding='utf-8')

def card(images):
    "The picture that a link to the site shows elsewhere: samples, as the notebooks have them"
    im = Image.new('RGB', (1200, 630), 'white')
    for x,name in {20: 'clothes.png', 620: 'shapes.png'}.items():
        im.paste(ImageOps.pad(Image.open(images/name).convert('RGB'), (560, 590), color='white'),
                 (x, 20))
    im.save(images/'card.png')

def outward(site, src):
    """A page that stands in the repository: its links to notebooks lead to their pages, others to
    the repository, once there is one"""
    s = re.sub(r'<!--.*?-->\n?', '', site.read(src), flags=re.S)
    def link(m):
        if m[2].startswith('nbs/'): return f'[{m[1]}]({m[2][4:]})'
        return f"[{m[1]}]({site.repo}/blob/{site.cfg['branch']}/{m[2]})" if site.repo else m[1]
    return re.sub(r'\[([^\]]+)\]\((?!https?:|#|mailto:)([^)]+)\)', link, s)

def cited(site):
    "Every paper that a notebook links to, with the notebooks that do"
    rows = {}
    for b in site.books:
        for label,url in re.findall(r'\[([^\]]*\d{4}[^\]]*)\]\((https://arxiv\.org/abs/[\w./-]+)\)',
                                    b.twin):
            rows.setdefault(url, (label.replace(',', ''), {}))[1][f'{{doc}}`{b.doc}`'] = 1
    return '\n'.join(f'- [{label}]({url}): {", ".join(where)}'
                     for url,(label,where) in sorted(rows.items(), key=lambda o: o[1][0]))

# ---- the reference ------------------------------------------------------------------------------
def reference(site, m, mod):
    "The page of a module, as autodoc reads it"
    b = next(b for b in site.books if b.module == m)
    out = [f'# {m}', '', f'{mod.__doc__}. From {{doc}}`/{b.doc}`.', '', '```{eval-rst}']
    options = dict(data=['   :no-value:'], function=[],
                   **{'class': ['   :members:', '   :show-inheritance:']})
    for n in mod.__all__:
        made_here = re.search(rf'^class {n}\b', site.read(f'{site.lib}/{m}.py'), re.M)
        kind = 'function' if inspect.isfunction(getattr(mod, n)) else 'data'
        if made_here: kind = 'class'
        head = f'{n}()' if kind == 'class' and '__init__' not in vars(getattr(mod, n)) else n
        out += [f'.. auto{kind}:: {mod.__name__}.{head}', *options[kind], '']
    return '\n'.join([*out, '```\n'])

def rst(s):
    "Markdown of a docstring as reStructuredText"
    s = re.sub(r'`([^`]+)`', r'``\1``\\ ', s.replace('*', r'\*')) if '``' not in s else s
    return re.sub(r'\$([^$]+)\$', r':math:`\1`\\ ', s)

CHECKS = dict(count=lambda least=1: f'at least {least}',
              counts=lambda least=1: f'each at least {least}', within=lambda ends: f'in {ends}',
              real=lambda ends='(-inf, inf)': f'in {ends}',
              one_of=lambda options: 'one of ' + ', '.join(map(repr, options)))

def declared(f):
    "What a function's own calls of `checks` say of its parameters"
    out = {}
    for o in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(f)))):
        if not (isinstance(o, ast.Call) and getattr(o.func, 'id', '') in CHECKS): continue
        try: what = CHECKS[o.func.id](*[eval(ast.unparse(a), f.__globals__) for a in o.args])
        # it depends on what is known only when it is called
        except Exception: continue
        out |= {k.arg: what for k in o.keywords if isinstance(k.value, ast.Name)
                and k.value.id == k.arg}
    return out

def document(app, what, name, obj, options, lines):
    "A docstring, docments, what is checked, and the book's first demonstration, for Sphinx"
    # without what `help` adds
    lines[:] = map(rst, inspect.cleandoc(str(obj.__doc__ or '')).splitlines())
    short = name.removeprefix(f'{site.lib}.').split('.', 1)[1]
    f = vars(obj).get('__init__') if what == 'class' else obj
    if what == 'data': lines[:] = value(name)
    if inspect.isfunction(f):
        said,must = docments(f),declared(f)
        for p in [p for p in said if p[0] != '_' and p not in ('self', 'return')]:
            doc = '; '.join(o for o in (said[p], must.get(p)) if o)
            if doc: lines += ['', f':param {p}: {rst(doc)}']
        if said.get('return'): lines += ['', f':returns: {rst(said["return"])}']
    if '.' not in short: lines += ['', *example(app, name, short)]

def value(name):
    "What a constant is: the comment at its line, and its value, if that is short"
    mod,_,name = name.rpartition('.')
    text,full = inspect.getsource(import_module(mod)),getattr(import_module(mod), name)
    for o in parsed(text):
        if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '') == name:
            said,code = text.splitlines()[o.lineno-1].partition('# ')[2],ast.unparse(o)
            if f'{name} |=' in text:                                                    # it grew
                code = f"{name} = dict({', '.join(f'{k}={f.__name__}' for k,f in full.items())})"
            return [rst(said)] + ['', '.. code-block:: python', '', f'   {code}']*(len(code) < 160)
    return []

def demonstration(names):
    "The book's first cell that uses one of `names`: rather one that is open, and shows something"
    used = rf"(?<![\w.])({'|'.join(names)})\b"
    found = [(d.folded, not (d.text or d.picture), b, d) for b in site.books for d in b.demos
             if re.search(used, d.code) and d.code.count('\n') < 12]
    return min(found, key=lambda o: o[:2])[2:] if found else (None, None)

def example(app, name, short):
    """How to import a name, and a demonstration of it; of a class that only a function makes, that
    function's"""
    mod = name.rpartition('.')[0]
    def block(lang, s):
        return [f'.. code-block:: {lang}', '', *textwrap.indent(s, '   ').splitlines(), '']
    b,d = demonstration([short])
    if not b:
        public = {n: getattr(import_module(mod), n) for n in import_module(mod).__all__}
        made = {n: getattr(f, '__annotations__', {}).get('return') for n,f in public.items()}
        made = [n for n,cls in made.items() if getattr(cls, '__name__', '') == short]
        if made: b,d = demonstration(made)
    code = f'from {mod} import {short}' + (f'\n\n{d.code}' if d else '')
    out = block('text', d.text) if d and 0 < len(d.text.splitlines()) < 16 else []
    if d and d.picture:
        kind = next(k for k in d.picture if k.startswith('image/'))
        file = f"reference/{short}.{kind.partition('/')[2]}"
        (Path(app.srcdir)/file).write_bytes(base64.b64decode(d.picture[kind]))
        out = [f'.. image:: /{file}', f'   :alt: {d.alt}',
               *[f'   :{k}: {v}' for k,v in size(d.picture[kind]).items()], '']
    at = f':doc:`/{b.doc}`' if b else ''
    if b and short in b.defined: at = f'`In the book <../{b.doc}.html#def-{short}>`__'
    return block('python', code) + out + [at, '']

def signature(app, what, name, obj, options, args, returns):
    "Without private parameters, and functions by their names"
    if what == 'class' and '__init__' not in vars(obj): return '',None
    args = re.sub(r'<(?:function|class) \'?([\w.]+).*?>', r'\1', args or '')
    return re.sub(r', _\w+[^,)]*', '', args) or None,returns

def find_tags(self, sphinx=ModuleAnalyzer.find_tags):
    "Where a module defines what; Sphinx does not know of constants, nor of methods by `@patch`"
    tags = sphinx(self)
    for o in parsed(self.code):
        if isinstance(o, ast.Assign):
            tags |= {n: ('def', o.lineno, o.end_lineno) for n in made([o])}
        patched = isinstance(o, ast.FunctionDef) and o.decorator_list and o.args.args
        if patched and (cls := o.args.args[0].annotation):
            tags[f'{ast.unparse(cls)}.{o.name}'] = 'def',o.decorator_list[0].lineno,o.end_lineno
    return tags

# ---- links --------------------------------------------------------------------------------------
def suffixes(names):
    "Every way to write a dotted name that can mean only one of `names`"
    out = {}
    for full in names:
        parts = full.split('.')
        for i in range(len(parts)): out.setdefault('.'.join(parts[i:]), set()).add(full)
    # not a method's bare `step`
    def alone(k, full): return '.' in k or '_' in k or k[0].isupper() or len(full.split('.')) == 3
    return {k: f for k,(f,*more) in ((k, list(v)) for k,v in out.items()) if not more
            and alone(k, f)}

def within(node, *kinds):
    while node is not None:
        if isinstance(node, kinds) or getattr(node, 'tagname', '') == 'desc_signature': return True
        node = node.parent

def link_names(app, doctree, docname):
    "Backticked names lead to the reference, or to the pages of torch, fastai and fastcore"
    env = app.env
    if not hasattr(env, 'site_ours'):
        env.site_objects = {k: o for k,o in env.domains['py'].objects.items() if not o.aliased}
        env.site_theirs = {n: i.uri for kind in InventoryAdapter(env).main_inventory.values()
                           for n,i in kind.items()}
        env.site_ours,env.site_others = suffixes(env.site_objects),suffixes(env.site_theirs)
    for lit in list(doctree.findall(nodes.literal)):
        name = re.sub(r'\(\)$', '', lit.astext()).replace('learn.', 'Learner.')
        if within(lit, nodes.reference, nodes.title): continue
        if full := env.site_ours.get(name):
            o = env.site_objects[full]
            ref = dict(refuri=app.builder.get_relative_uri(docname, o.docname) + f'#{o.node_id}',
                       internal=True)
        elif full := env.site_others.get(name):
            ref = dict(refuri=env.site_theirs[full], internal=False)
        else: continue
        lit.replace_self(link := nodes.reference('', '', classes=['name'], reftitle=full, **ref))
        link += lit

def link_terms(app, doctree, docname):
    "The first place where a page uses a word of the glossary that it treats leads there"
    for term in [t for t,doc in site.terms.items() if doc == docname]:
        place = app.env.domains['std'].objects['term', term][1]
        to = app.builder.get_relative_uri(docname, 'glossary') + f'#{place}'
        for node in doctree.findall(nodes.Text):
            if within(node, nodes.title, nodes.reference, nodes.literal, nodes.math,
                      nodes.literal_block, nodes.raw):
                continue
            if m := re.search(rf'\b{term}(s|es|ed|ing)?\b', s := node.astext(), re.I):
                link = nodes.reference('', m[0], refuri=to, internal=True, classes=['gloss'])
                node.parent.replace(node,
                                    [nodes.Text(s[:m.start()]), link, nodes.Text(s[m.end():])])
                break

def tidy(app, name, template, context, doctree):
    "Brackets in a page's description hold together, wherever a link or code began in them"
    if tags := context.get('metatags'): context['metatags'] = re.sub(r' ?\( ', ' (', tags)

def reserve(app, doctree, docname):
    "Every picture takes its room before it is there"
    for im in doctree.findall(lambda o: isinstance(o, nodes.image) and 'height' not in o):
        if (f := Path(app.srcdir)/im['uri']).is_file():
            im['width'],im['height'] = map(str, Image.open(f).size)

# ---- beside the pages ---------------------------------------------------------------------------
def finish(app, error):
    "The notebooks as they are, their plain-text twins, `llms.txt`"
    if error: return
    out = Path(app.outdir)
    for b in site.books:
        shutil.copy(b.file, out/b.rel)
        b.twin = re.sub(r'\]\((?!https?:|#)([^)\s]+)\.ipynb([^)]*)\)', r'](\1.md\2)', b.twin)
        (out/b.rel.with_suffix('.md')).write_text(b.twin, encoding='utf-8')
    line = lambda b: f'- [{b.title}]({site.home}{b.doc}.md)' + (f': {b.lead}' if b.lead else '')
    L = [f'# {site.lib}', f"> {site.cfg['description']}.",
         'Every page below is plain text, code included. '
         f'All in one file: {site.home}llms-full.txt']
    L += [f'## {part.capitalize()}\n\n' + '\n'.join(line(b) for b in site.books if b.part == part)
          for part in ('book', 'tutorials', 'appendices')]
    (out/'llms.txt').write_text('\n\n'.join(L), encoding='utf-8')
    (out/'llms-full.txt').write_text('\n\n'.join(b.twin for b in site.books), encoding='utf-8')
    shutil.copytree(Path(app.srcdir)/'images', out/'images', dirs_exist_ok=True)
    (out/'.nojekyll').touch()

def setup(app):
    ModuleAnalyzer.find_tags = find_tags
    for event,f in {'autodoc-process-docstring': document, 'autodoc-process-signature': signature,
                    'build-finished': finish}.items():
        app.connect(event, f)
    for f in (link_terms, link_names, reserve): app.connect('doctree-resolved', f)
    app.connect('html-page-context', tidy, priority=900)
