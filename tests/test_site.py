"The site that `tools/docs` builds, as files: links, names, descriptions, plain text"
import atexit, functools, importlib.util, inspect, os, re, shutil, subprocess, sys, tempfile
from configparser import ConfigParser
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urldefrag
import pytest

root = Path(__file__).resolve().parent.parent
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
lib,home = cfg['lib_name'],f"https://{cfg['user']}.github.io/{cfg['lib_name']}/"
env = {k: v for k,v in os.environ.items() if k != 'IN_TEST'}
needs = [o for o in ('sphinx', 'myst_nb', 'furo', 'sphinx_copybutton', 'sphinx-mathjax-offline') if importlib.util.find_spec(o) is None]
pytestmark = pytest.mark.skipif(bool(needs), reason=f"the site cannot be built without {', '.join(needs)}: pip install -e '.[docs]'")
modules = re.findall(rf'^from {lib}\.(\w+) import', (root/lib/'all.py').read_text(encoding='utf-8'), re.M)

def docs(repo, out): return subprocess.run([sys.executable, repo/'tools/docs', '--out', out], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

@functools.cache
def build():
    "The site's folder, built once for all tests"
    tmp,t = tempfile.mkdtemp(),os.times()
    atexit.register(shutil.rmtree, tmp, True)
    out = Path(tmp)/'html'
    r = docs(root, out)
    assert r.returncode == 0, r.stdout
    spent = sum(os.times()[2:4]) - sum(t[2:4])                 # of the processor: others may be at work too
    assert spent < 120, f'the site took {spent:.0f} s'
    return out

@pytest.fixture(scope='module')
def site(): return build()

# ---- the files --------------------------------------------------------------------------------------------------------
class Page(HTMLParser):
    "The links, anchors and images of a page"
    def __init__(self, file):
        super().__init__()
        self.links,self.ids,self.images,self.names,self._at,self.text = [],set(),[],[],None,''
        self.feed(file.read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get('id'): self.ids.add(a['id'])
        if tag == 'a' and a.get('href'):
            self.links.append(a['href'])
            if 'name' in (a.get('class') or '').split(): self._at,self.text = a['href'],''
        if tag in ('img', 'source'): self.images += [(v, a.get('alt')) for k in ('src', 'srcset') if (v := a.get(k))] if tag == 'img' else []
    def handle_data(self, d): self.text += d
    def handle_endtag(self, tag):
        if tag == 'a' and self._at: self.names.append((self.text.strip(), self._at)); self._at = None

@functools.cache
def page(file): return Page(file)
def pages(site): return sorted(site.rglob('*.html'))
def rel(site, f): return f.relative_to(site).as_posix()

def dead_links(site, only=None):
    "Links within the site that lead nowhere, to a file or to an anchor"
    bad = []
    for f in only or pages(site):
        for href in dict.fromkeys(page(f).links):
            if re.match(r'[a-z]+:', href): continue
            path,anchor = urldefrag(href)
            to = (f.parent/unquote(path)).resolve() if path else f
            if to.is_dir(): to = to/'index.html'
            if not to.is_file(): bad.append(f'{rel(site, f)}: {href} leads to no file')
            elif anchor and to.suffix == '.html' and unquote(anchor) not in page(to).ids: bad.append(f'{rel(site, f)}: {href} leads to no anchor')
    return bad

def test_links(site):
    assert dead_links(site) == []
    n = sum(len([h for h in page(f).links if not re.match(r'[a-z]+:', h)]) for f in pages(site))
    print(f'{len(pages(site))} pages, {n} internal links')
    assert len(pages(site)) > 15 and n > 1000

def test_images_are_described(site):
    "Every figure of a notebook has words of its own, and every image of the site has some"
    sys.path.insert(0, str(root/'docs'))
    from pages import Site
    assert [(b.doc, h) for b in Site(root).books for _,own,h,_ in b.figures if not own] == []
    for f in pages(site):
        for src,alt in page(f).images: assert alt and len(alt) > 15, f'{rel(site, f)}: {src} has the alternative text {alt!r}'

def test_figures_are_shown_at_half_their_pixels(site):
    "A figure drawn for twice the screen's resolution is shown at half its pixels, and no figure is enlarged"
    from PIL import Image
    n = 0
    for f in pages(site):
        for tag in re.findall(r'<img [^>]*_images/[^>]*>', f.read_text(encoding='utf-8')):
            src,width = re.search(r'src="([^"]+)"', tag)[1],re.search(r'width="(\d+)"', tag)
            if not width: continue
            im = Image.open(f.parent/unquote(src))
            sharp = im.info.get('dpi', (72, 72))[0] > 120
            assert int(width[1]) == (im.width//2 if sharp else im.width), f'{rel(site, f)}: {tag}'
            n += sharp
    assert n > 30

def test_cells_that_only_test_are_folded(site):
    "They say how many checks passed; a cell that shows something, or makes what others use, stays open"
    sys.path.insert(0, str(root/'docs'))
    from book import checks
    assert checks('test_eq(1, 1)\nx = 2\nassert x', ['print(y)']) == 2
    assert checks('for o in [1, 2]: test_eq(o, o)', []) == 1
    assert checks('with expect_fail(ValueError): f()', ['x = 1']) == 1
    assert checks('x = 2\ntest_eq(x, 2)', ['print(x)']) == 0            # needed later
    assert checks('x = 2\ntest_eq(x, 2)', ['x = 3\nprint(x)']) == 1     # made anew before it is used
    assert checks('x = 2\ntest_eq(x, 2)', ['[x for x in range(3)]']) == 1
    assert checks('test_eq(x, 2)\nx.save()', []) == 0
    said = [m for f in pages(site) for m in re.findall(r'\d+ checks? passed', f.read_text(encoding='utf-8'))]
    assert len(said) > 30

def test_reference_reads_declarations(tmp_path):
    "What a parameter must be is read from calls of checks, through the functions that they are handed on to"
    sys.path.insert(0, str(root/'docs'))
    from api import Package
    (tmp_path/'all.py').write_text(f'from {tmp_path.name}.m import *')
    (tmp_path/'checks.py').write_text('def count(least=1, **args): 0\ndef real(interval, **args): 0\ndef one_of(options, **args): 0')
    (tmp_path/'m.py').write_text('''
__all__ = ['f', 'g', 'h']
from .checks import count, one_of, real as number
KINDS = dict(a=1, b=2)
def f(n, x=1., kind='a', **kwargs):
    count(2, n=n), number('[0, 1)', x=x), one_of(KINDS, kind=kind)
def g(m, y): f(m, x=y)
@delegates(f, but='n')
def h(z, **kwargs): f(3, **kwargs)
''')
    flat = Package(tmp_path).flat
    assert flat['f'].checks == dict(n=['a whole number of at least 2'], x=['a number in [0, 1)'], kind=["one of 'a', 'b'"])
    assert flat['g'].checks == dict(m=['a whole number of at least 2'], y=['a number in [0, 1)'])
    assert list(flat['h'].checks) == ['x', 'kind'] and [p[0] for p in flat['h'].params] == ['z', 'x', 'kind']

def test_every_name(site):
    "Each public name has its anchor, its real parameters and its source in the reference, and is shown where the book defines it"
    ids,text = page(site/'reference.html').ids,(site/'reference.html').read_text(encoding='utf-8')
    plain = (site/'reference.md').read_text(encoding='utf-8')
    for m in modules:
        mod = import_module(f'{lib}.{m}')
        for o in mod.__all__:
            assert f'{lib}.{m}.{o}' in ids, f'{m}.{o} is not in the reference'
            f = getattr(mod, o)
            if not (inspect.isclass(f) and f.__init__ is not object.__init__ and '__init__' in vars(f) or inspect.isfunction(f) and f.__module__ == mod.__name__ and f.__name__ == o): continue
            head = re.search(rf'^```python\n{o}\((.*?)\)(?: -> .*)?\n```', plain, re.M|re.S)[1]
            for p in inspect.signature(f).parameters.values():
                assert re.search(rf'(?:^|[ *]){p.name}\b', head), f'{m}.{o}: the reference does not show {p.name}'
    for path,a,b in set(re.findall(rf'blob/{cfg["branch"]}/({lib}/\w+\.py)#L(\d+)-L(\d+)', text)):
        lines = (root/path).read_text(encoding='utf-8').splitlines()
        assert 0 < int(a) <= int(b) <= len(lines) and re.match(r'\s*(class|def|async|@|\w+(, *\w+)* *=)', lines[int(a)-1]), f'{path} line {a} begins no definition'
    for full,path,a in re.findall(rf'id="{lib}\.(\w+\.[\w.]+)".*?blob/{cfg["branch"]}/({lib}/\w+\.py)#L(\d+)-', text, re.S):
        mod,name = full.split('.', 1)
        head = '\n'.join((root/path).read_text(encoding='utf-8').splitlines()[int(a)-1:int(a)+2])
        assert path == f'{lib}/{mod}.py' and re.search(rf'\b{name.split(".")[-1]}\b', head), f'{full} leads to line {a} of {path}'

def test_names_link_to_what_they_say(site):
    "A backticked name leads to the entry of that name, ours or torch's, fastai's, fastcore's"
    torch = pytest.importorskip('torch')
    seen = set()
    for f in pages(site):
        for name,href in page(f).names:
            bare = name.removesuffix('()')
            if (href, bare) in seen: continue
            seen.add((href, bare))
            if m := re.match(r'https://docs\.pytorch\.org/docs/stable/generated/(torch\.[\w.]+)\.html$', href):
                o = functools.reduce(getattr, m[1].split('.')[1:], torch)
                assert o.__doc__ and m[1].split('.')[-1] == bare.split('.')[-1], f'{rel(site, f)}: {name} leads to {href}'
            elif m := re.match(r'https://(?:docs|fastcore)\.fast\.ai/([\w.]+)\.html(?:#(.+))?$', href):
                assert (m[2] or m[1]).split('.')[-1].lower() == bare.split('.')[-1].lower(), f'{rel(site, f)}: {name} leads to {href}'
            else: assert urldefrag(href)[1].endswith(f".{bare.removeprefix(lib + '.').split('.')[-1]}"), f'{rel(site, f)}: {name} leads to {href}'
    assert len(seen) > 50

def test_twins(site):
    "Each notebook as it is and as plain text, and `llms.txt` that lists them"
    nbs = [f for f in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in f.parts]
    llms = (site/'llms.txt').read_text(encoding='utf-8')
    for f in nbs:
        r = f.relative_to(root/'nbs')
        assert (site/r).read_bytes() == f.read_bytes()
        twin = (site/r.with_suffix('.md')).read_text(encoding='utf-8')
        assert twin.startswith('# ') and '#| ' not in twin.replace('#| slow', '') and '<style' not in twin and 'data:image' not in twin, r
        assert f'({home}{r.with_suffix(".md").as_posix()})' in llms, f'llms.txt does not list {r}'
        text = (site/r.with_suffix('.html')).read_text(encoding='utf-8')
        for there in (f"https://colab.research.google.com/github/{cfg['user']}/{lib}/blob/{cfg['branch']}/nbs/{r.as_posix()}",
                      f"https://github.com/{cfg['user']}/{lib}/blob/{cfg['branch']}/nbs/{r.as_posix()}"): assert f'href="{there}"' in text
    for u in re.findall(r'\]\((.*?)\)', llms): assert u.startswith(home) and (site/u[len(home):]).is_file(), u

def test_address_of_the_repository():
    "Where the text names this repository, it is the one in settings.ini"
    for f in [root/'README.md', *(root/'nbs').rglob('*.ipynb')]:
        for who in re.findall(rf'github\.com/([\w-]+)/{lib}\b', f.read_text(encoding='utf-8')): assert who == cfg['user'], (f, who)

def test_address_is_written_once():
    "Who the repository belongs to stands in settings.ini alone"
    for f in [*(root/'docs').rglob('*.*'), root/'tools/docs', *(root/'.github').rglob('*.yml')]:
        if f.suffix in ('.py', '.md', '.css', '.js', '.yml', ''): assert f"{cfg['user']}/" not in (s := f.read_text(encoding='utf-8')) and f"{cfg['user']}.github" not in s, f

def test_warnings_are_errors(tmp_path):
    "A link to a notebook that is not there, and a paper's line that has gone, stop the build"
    for d in ('docs', 'nbs', lib, 'tools', 'benchmarks'): shutil.copytree(root/d, tmp_path/d, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for f in ('settings.ini', 'CONTRIBUTING.md', 'README.md'): shutil.copy(root/f, tmp_path)
    f = tmp_path/'docs/howto/faster.md'
    f.write_text(f.read_text(encoding='utf-8') + '\n[gone](../77_gone.ipynb)\n\n```{lines} diffusion.abar\n:from: no such line\n```\n', encoding='utf-8')
    r = docs(tmp_path, tmp_path/'out/html')
    assert r.returncode and '77_gone' in r.stdout and "no line of diffusion.abar matches 'no such line'" in r.stdout, r.stdout
