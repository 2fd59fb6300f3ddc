"What the site knows of the repository, and the pages written from it: the notebooks, the reference, `llms.txt`"
import re, shutil
from configparser import ConfigParser
from pathlib import Path
from api import Package, span
from book import Book, notebooks

class Site:
    "Addresses (from settings.ini alone), the package, the notebooks"
    def __init__(self, root):
        self.root = Path(root)
        ini = ConfigParser(delimiters=['='], interpolation=None)
        ini.read(self.root/'settings.ini', encoding='utf-8')
        self.cfg = ini['DEFAULT']
        self.lib,self.branch = self.cfg['lib_name'],self.cfg['branch']
        self.repo = f"https://github.com/{self.cfg['user']}/{self.lib}"
        self.home = f"https://{self.cfg['user']}.github.io/{self.lib}/"
        self.pkg = Package(self.root/self.lib)
        self.books = [Book(f, self.root/'nbs', self.pkg) for f in notebooks(self.root/'nbs')]
        self.linked,self.outside = [],None

    def blob(self, path, lines=None): return f'{self.repo}/blob/{self.branch}/{path}' + (f'#L{lines[0]}-L{lines[1]}' if lines else '')
    def colab(self, rel): return f"https://colab.research.google.com/github/{self.cfg['user']}/{self.lib}/blob/{self.branch}/nbs/{rel}"
    def book(self, doc): return next(b for b in self.books if b.doc == doc)

# ---- reference --------------------------------------------------------------------------------------------------------
def _checked(n, text=str):
    "What is checked of the parameters, those of which the same is said together; `text` escapes what is no code"
    groups = {}
    for k,v in n.checks.items(): groups.setdefault(', '.join(v), []).append(k)
    return '; '.join(f"{', '.join(f'`{k}`' for k in ks)}: {text(what)}" for what,ks in groups.items())

def _escape(s): return re.sub(r'([\\`*_{}\[\]<>$#|])', r'\\\1', s)

def entry(site, n):
    "One entry of the reference, as MyST"
    fence = ':'*(7 if n.kind == 'class' else 6)
    out = [f'{fence}{{py:{n.kind}}} {n.name}{n.signature}', f':module: {site.lib}.{n.module}', '', n.doc, '']
    if n.value and len(n.value) < 160: out += [f'```python\n{n.name} = {n.value}\n```', '']
    if n.bases: out += ['Based on ' + ', '.join(f'`{b}`' for b in n.bases) + '.', '']
    for p,t,d,c in n.params:
        if not c: continue
        out.append(f':param {p.replace("*", chr(92)+"*")}: {c}')
        if t: out.append(f':type {p.replace("*", chr(92)+"*")}: {t}')
    if n.ret_doc: out.append(f':returns: {n.ret_doc}')
    if n.checks: out.append(f':checked: {_checked(n, _escape)}')
    doc = n.notebook.removesuffix('.ipynb')
    shown = any(b.doc == doc for b in site.books) and n in site.pkg.names[n.module]
    where = f'<a class="in-book" href="{doc}.html#def-{n.name}">In the book</a>' if shown else ''
    src = f'<a href="{site.blob(f"{site.lib}/{n.module}.py", n.lines)}">Source: {n.module}.py, {span(n.lines)}</a>'
    out += ['', f'<p class="entry-links">{where}{src}</p>', '']
    for k in n.methods: out += [entry(site, k), '']
    return '\n'.join(out) + f'\n{fence}\n'

def reference(site):
    "Every public name on one page, by module"
    out = ['# Reference', '', f'Every public name of `{site.lib}`, by module. `from {site.lib}.all import *` brings all of them, '
           f'`from {site.lib}.unet import TAUnet` one, and with it only torch.', '', '```{every-name}', '```', '']
    for m,ns in site.pkg.names.items():
        mod = site.pkg.modules[m]
        b = next((b for b in site.books if b.rel.name == mod.notebook), None)
        out += ['', f'({m}-module)=', f'## {m}', '', mod.doc + '.' + (f' From [{b.title}]({b.doc}.ipynb).' if b else ''), '']
        for n in ns: out += [entry(site, n), '']
    return '\n'.join(out)

# ---- everything -------------------------------------------------------------------------------------------------------
HOME = {'clothes.png': ('tutorials/02_fashion_classes', r'row_titles=dls\.vocab'),
        'predictions.png': ('tutorials/01_fashion', r'history\.flatten')}

def part(book):
    "Where a notebook belongs: the book, the tutorials, or the appendices from 20 on"
    if '/' in book.doc: return 'tutorials'
    return 'appendices' if book.rel.name[:2].isdigit() and int(book.rel.name[:2]) >= 20 else 'book'

def stage(site, to):
    "Write all that Sphinx reads to the folder `to`"
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(site.root/'docs', to, ignore=shutil.ignore_patterns('*.py', '__pycache__', '_static'))
    for b in site.books: b.save(to, None)
    for f in (site.root/'nbs').rglob('images/*'):
        dest = to/f.relative_to(site.root/'nbs'); dest.parent.mkdir(parents=True, exist_ok=True); shutil.copy(f, dest)
    for name,(doc,pattern) in HOME.items(): site.book(doc).image(pattern, to/'images'/name)
    (to/'reference.md').write_text(reference(site), encoding='utf-8')
    for name,src in dict(contributing='CONTRIBUTING.md', benchmarks='benchmarks/README.md').items():
        s = re.sub(r'^(# .+)$', rf'\1\n\n```{{page-source}} {src}\n```', outward(site, site.root/src), count=1, flags=re.M)
        (to/f'{name}.md').write_text(s, encoding='utf-8')
    for f in [*to.glob('howto/*.md'), to/'glossary.md', to/'papers.md']:
        s = f.read_text(encoding='utf-8')
        f.write_text(re.sub(r'^(# .+)$', rf'\1\n\n```{{page-source}} docs/{f.relative_to(to).as_posix()}\n```', s, count=1, flags=re.M), encoding='utf-8')
    s = (to/'index.md').read_text(encoding='utf-8')
    toc = lambda bs: '\n'.join(f"{int(b.rel.name[:2])} · {b.title.replace('`', '')} <{b.doc}>" if '/' not in b.doc else b.doc for b in bs)
    for o in ('book', 'tutorials', 'appendices'): s = s.replace(f'@{o.upper()}@', toc(b for b in site.books if part(b) == o))
    (to/'index.md').write_text(s.replace('@REPO@', site.repo).replace('@LIB@', site.lib), encoding='utf-8')

def outward(site, file):
    "The text of a page that stands in the repository, its links to notebooks as links to their pages, others to the repository"
    s = re.sub(r'<!--.*?-->\n?', '', file.read_text(encoding='utf-8'), flags=re.S)
    return re.sub(r'\]\((?!https?:|#|mailto:)([^)]+)\)', lambda m: f']({m[1][4:] if m[1].startswith("nbs/") else site.blob(m[1])})', s)

def mend(html):
    "What Sphinx and the theme write that screen readers stumble over: lists in signatures that are none, headings without a level"
    def sig(m): return re.sub(r'<(/?)(dl|dd)>', lambda t: '</span>' if t[1] else f'<span class="sig-{dict(dl="list", dd="line")[t[2]]}">', m[0])
    html = re.sub(r'<dt class="sig .*?</dt>', sig, html, flags=re.S)
    return html.replace('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">')

def finish(site, work, out):
    "After Sphinx: the notebooks as they are, their plain-text twins, `llms.txt`"
    every = []
    for f in out.rglob('*.html'): f.write_text(mend(f.read_text(encoding='utf-8')), encoding='utf-8')
    shutil.copytree(work/'images', out/'images', dirs_exist_ok=True)
    order = re.findall(r'^(howto/\w+)$', (site.root/'docs/index.md').read_text(encoding='utf-8'), re.M)
    pages = {f'{o}.md': site.root/f'docs/{o}.md' for o in order} | {'benchmarks.md': site.root/'benchmarks/README.md', 'contributing.md': site.root/'CONTRIBUTING.md'}
    twin_links = lambda s: re.sub(r'\]\((?!https?:|#)([^)\s]+)\.ipynb([^)]*)\)', r'](\1.md\2)', s)
    for b in site.books:
        (out/b.rel).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(b.file, out/b.rel)
        twin = twin_links(b.twin)
        (out/b.rel.with_suffix('.md')).write_text(twin, encoding='utf-8')
        every.append(twin)
    line = lambda path,title,about: f'- [{title}]({site.home}{path})' + (f': {about}' if about else '')
    out_pages = []
    for rel,f in pages.items():
        s = twin_links(f.read_text(encoding='utf-8') if 'howto' in rel else outward(site, f))
        dest = out/rel; dest.parent.mkdir(parents=True, exist_ok=True); dest.write_text(s, encoding='utf-8')
        out_pages.append(line(rel, re.search(r'^# (.+)$', s, re.M)[1], ''))
    ref = plain_reference(site)
    (out/'reference.md').write_text(ref, encoding='utf-8')
    L = [f'# {site.lib}', '', f"> {site.cfg['description']}.", '', 'Install: `pip install -e .` in a clone. '
         f'Source: {site.repo}. Every page below is plain text; `.html` in place of `.md` is the page for people. Book, tutorials and reference in one file: {site.home}llms-full.txt', '']
    for o in ('book', 'tutorials', 'appendices'):
        L += [f'## {o.capitalize()}', ''] + [line(b.rel.with_suffix('.md').as_posix(), b.title, b.lead) for b in site.books if part(b) == o] + ['']
    L += ['## How to', ''] + out_pages
    L += ['', '## Reference', '', line('reference.md', 'Every public name', 'signatures, parameters with shapes and units, what is checked'), '']
    (out/'llms.txt').write_text('\n'.join(L), encoding='utf-8')
    (out/'llms-full.txt').write_text('\n\n'.join([*every, ref]), encoding='utf-8')
    (out/'.nojekyll').touch()

def plain_reference(site):
    "The reference as plain text"
    out = ['# Reference', '']
    for m,ns in site.pkg.names.items():
        out += [f'## {site.lib}.{m}', '', site.pkg.modules[m].doc, '']
        for n in (x for o in ns for x in (o, *o.methods)):
            out += [f"### {n.name}", '', f'```python\n{n.name}{n.signature}\n```', '', n.doc, '']
            out += [f'- `{p}`: {c}' for p,t,d,c in n.params if c] + ([f'- returns: {n.ret_doc}'] if n.ret_doc else [])
            out += ([f'- checked: {_checked(n)}'] if n.checks else []) + ['']
    return '\n'.join(out)
