"""Notebooks as Sphinx should read them, and as plain text: directives obeyed, progress bars swept
out, cells that only test and private helpers folded."""
import ast, re
from base64 import b64decode
from bs4 import BeautifulSoup
from fastcore.nbio import mk_cell, nb_frontmatter, read_nb

SLOW = '# slow: takes minutes, and runs only when asked for (`#| slow`)\n'
IMPORTS,DEFS = (ast.Import, ast.ImportFrom),(ast.FunctionDef, ast.ClassDef)

def on_site(s):
    "Text whose links lead to files of the repository, with links to the site's pages"
    for there,here in {'../../nbs/': '../', '../../benchmarks/README.md': '../benchmarks.md',
                       '../CONTRIBUTING.md': 'contributing.md', '../docs/': ''}.items():
        s = s.replace(f']({there}', f']({here}')
    return s

def is_test(o):
    "Does a statement test something, and nothing else?"
    if isinstance(o, (ast.For, ast.With)):
        return 'expect_fail' in ast.unparse(o).splitlines()[0] or all(map(is_test, o.body))
    return isinstance(o, ast.Assert) or ast.unparse(o).startswith('test_')

def made(statements):
    "The names that statements bind"
    defs = {o.name for o in statements if isinstance(o, DEFS)}
    return defs | {n.id for o in statements if not isinstance(o, DEFS) for n in ast.walk(o)
                   if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}

def folded(c, ds, body):
    "What a folded cell says of itself; nothing if it stays open"
    def all_are(*kinds): return body and all(isinstance(o, kinds) or is_test(o) for o in body)
    if all_are(*IMPORTS) and 'export' in ds: return 'Imports'
    if 'slow' in ds or c.outputs: return ''
    if all_are(ast.Assign, *IMPORTS, *DEFS) and is_test(body[-1]):
        n = len(re.findall(r'(?<![\w.])(?:assert |test_\w+\(|expect_fail\()', c.source))
        return f"{n} check{'s'[:n > 1]} passed"
    names = sorted(made(body)) if all_are(ast.Assign, *DEFS) else ()
    if names and all(o[0] == '_' for o in names):
        return f"Helper{'s'[:len(names) > 1]}: {', '.join(names)}"
    return 'Code' if ds.keys() & {'export', 'code-fold'} else ''

def shows(o):
    "Does an output show anything? A warning should not, and a progress bar that is done does not"
    html = re.sub('<style>.*?</style>', '', o.get('data', {}).get('text/html', '-'), flags=re.S)
    return o.get('name') != 'stderr' and re.sub('<[^>]*>', '', html).strip()

def picture(c):
    "The picture that a cell shows, if any: its kind and its bytes"
    found = [(k.partition('/')[2], b64decode(v)) for o in c.get('outputs', ())
             for k,v in o.get('data', {}).items() if k.startswith('image/')]
    return found[-1] if found else None

def plain(o, alt):
    "An output as plain text: of a figure its description, of a table its rows"
    d = o.get('data', {})
    if any(k.startswith('image/') for k in d): return f'[Figure: {alt}]'
    rows = BeautifulSoup(d.get('text/html', ''), 'html.parser').find_all('tr')
    table = '\n'.join(' | '.join(c.text.strip() for c in r.find_all(['th', 'td'])) for r in rows)
    return table or (o.get('text') or d['text/plain']).strip('\n')

class Book:
    "A notebook: `cells` for Sphinx, `twin` as plain text, the names that it defines"
    def __init__(self, site, part, file):
        self.file,self.part,self.nb = file,part,read_nb(file)
        self.doc = file.relative_to(site.root/'nbs').with_suffix('').as_posix()
        self.title,self.lead = [nb_frontmatter(self.nb)[k] for k in ('title', 'description')]
        modules = [c.directive('default_exp') for c in self.nb.cells]
        self.module = next(filter(None, modules), None)
        self.cells,self.defined,twin = [],[],[]
        for c in self.nb.cells:
            if c.cell_type == 'code': twin += self.code(c, site.names.get(self.module, ()))
            else:
                c.source = on_site(c.source)
                twin.append(re.sub(r'(\]\([^):]+)\.ipynb', r'\1.md', c.source))
                if not self.cells: c.source = self.head(site, c.source)
                self.cells.append(c)
        self.nb.cells = self.cells
        self.twin = '\n\n'.join(t.strip() for t in twin) + '\n'

    def head(self, site, src):
        "Under the title what search should find here; under the lead where to run the notebook"
        name,colab = self.file.stem,site.colab and f'{site.colab}{self.doc}.ipynb'
        links = {'Open in Colab': colab, 'Download notebook': f'{name}.ipynb" download="',
                 'Plain text': f'{name}.md'}
        bar = ''.join(f'<a href="{to}">{label}</a>' for label,to in links.items() if to)
        lead = f'{{.lead}}\n{self.lead.rstrip(".")}.\n\n<p class="page-links">{bar}</p>'
        names = {n.lower() for ns in site.names.values() for n in ns}    # found by themselves
        words = [f'! {t}' for t,doc in site.terms.items() if doc == self.doc and ',' not in t
                 and t.lower() not in names]
        index = f"\n\n```{{index}} {', '.join(words)}\n```"*bool(words)
        return src.replace(self.title, self.title + index, 1).replace(f'> {self.lead}', lead, 1)

    def code(self, c, public):
        "Take a code cell in; its plain text"
        ds = c.directives
        c.remove_directives()
        if ds.keys() & {'default_exp', 'hide'} or not c.source: return []
        c.outputs = [] if 'hide_output' in ds else [o for o in c.outputs if shows(o)]
        body,hide = c.parsed_() or [],'hide_input' in ds
        if hide and not c.outputs: return []
        fold = folded(c, ds, body)
        if 'slow' in ds: c.source = SLOW + c.source
        c.metadata = dict(tags=['remove-input'] if hide else ['hide-input'] if fold else [],
                          mystnb=dict(code_prompt_show=fold, code_prompt_hide=fold,
                                      image=dict(alt=ds.get('fig-alt', ''))))
        exported = made(body) & set(public) if ds.keys() & {'export', 'exports'} else set()
        new = sorted(exported - set(self.defined), key=c.source.find)
        self.defined += new
        # for the reference, which looks for demonstrations
        c.new_,c.fold_,c.alt_ = new,fold,ds.get('fig-alt')
        c.said_ = [plain(o, c.alt_) for o in c.outputs]
        ids = ''.join(f'<div class="def" id="def-{n}"></div>\n' for n in new)
        said = '{.defined}\nIn the reference: ' + ', '.join(f'`{n}`' for n in new) + '.'
        self.cells += [mk_cell(ids, 'markdown'), c, mk_cell(said, 'markdown')] if new else [c]
        return [f'```python\n{c.source}\n```']*(not hide) + [f'```text\n{o}\n```' for o in c.said_]
