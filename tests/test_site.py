"The site that `tools/docs` builds, as files: links, images, names, plain text, addresses"
import atexit, functools, inspect, re, shutil, subprocess, sys, tempfile
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urldefrag
import pytest
from fastcore.nbio import mk_cell
from fastcore.xtras import Config
from PIL import Image

pytest.importorskip('furo', reason="the site is not built without pip install -e '.[docs]'")
root = Path(__file__).resolve().parent.parent
cfg = Config(root, 'settings.ini')
lib,at = cfg.lib_name,f'{cfg.user}/{cfg.lib_name}'
modules = re.findall(r'^from \S+\.(\w+) import', (root/lib/'all.py').read_text(), re.M)

@functools.cache
def build(repo=root):
    "The folder of the site of the repository at `repo`, built once for all tests"
    tmp = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, tmp, True)
    r = subprocess.run([sys.executable, repo/'tools/docs', '--out', f'{tmp}/{lib}'], text=True,
                       capture_output=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return Path(tmp)/lib

@functools.cache
class Page(HTMLParser):
    "A page: its text as HTML, and its tags with their attributes"
    def __init__(self, file):
        super().__init__()
        self.html,self.tags = file.read_text(encoding='utf-8'),[]
        self.feed(self.html)
        self.ids = {a.get('id') for _,a in self.tags}
    def handle_starttag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def all(self, tag, attr): return [a for t,a in self.tags if t == tag and a.get(attr)]

@pytest.fixture(scope='module')
def site(): return build()
def pages(site): return sorted(site.rglob('*.html'))

def test_links(site):
    "Links within the site lead to a page, and to a place in it"
    bad,n = [],0
    for f in pages(site):
        for href in {a['href'] for a in Page(f).all('a', 'href')}:
            if re.match(r'[a-z]+:', href): continue
            path,anchor = urldefrag(href)
            to,n = (f.parent/unquote(path)).resolve() if path else f,n+1
            there = to.is_file() and (not anchor or unquote(anchor) in Page(to).ids)
            if not there: bad.append((f.name, href))
    assert bad == [] and n > 1000

def test_images(site):
    "Every figure has words of its own, comes late, takes its room before; of most, half its pixels"
    half = []
    for f in pages(site):
        for a in Page(f).all('img', 'src'):
            assert len(a.get('alt') or '') > 15 and a.get('loading') == 'lazy', (f.name, a)
            im = Image.open(f.parent/unquote(a['src']))
            half.append(im.info.get('dpi', (72, 72))[0] > 120)
            size = tuple(o//(1 + half[-1]) for o in im.size)
            assert (int(a['width']), int(a['height'])) == size, (f.name, a)
    assert sum(half) > 30

def test_cells_that_only_test_are_folded(site):
    "They say how many checks passed; what shows something or makes something stays open"
    sys.path.insert(0, str(root/'docs'))
    from book import folded
    says = {'test_eq(1, 1)\nx = 2\nassert x': '2 checks passed', 'x = 2': '',
            'for o in [1, 2]: test_eq(o, o)': '1 check passed', 'test_eq(x, 2)\nx.save()': '',
            'with expect_fail(ValueError): f()': '1 check passed', 'test_eq(x, 2)\nx': '',
            'def _f(x): return x': 'Helper: _f', 'def f(x): return x': ''}
    def said(src, **kw):
        c = mk_cell(src, **kw)
        return folded(c, {}, c.parsed_())
    assert {src: said(src) for src in says} == says and not said('assert x', outputs=[{}])
    htmls = [Page(f).html for f in pages(site)]
    assert sum(len(re.findall(r'\d+ checks? passed', o)) for o in htmls) > 30
    assert not [o for o in htmls if re.search(r'<progress|</style>\s*<div|\d+it/s', o)]

def test_reference(site):
    """Each public name: its real parameters and none that is private, how to import it, its source
    on the site; nearly all have an example"""
    shown = []
    for m in modules:
        p,mod = Page(site/f'reference/{m}.html'),import_module(f'{lib}.{m}')
        entries = re.split(rf'id="{lib}\.{m}\.(\w+)"', p.html)
        entries = {n: re.sub('<.*?>', '', s) for n,s in zip(entries[1::2], entries[2::2])}
        for o in mod.__all__:
            f,text,full = getattr(mod, o),entries[o],f'{lib}.{m}.{o}'
            assert f'from {lib}.{m} import {o}' in text and '[source]' in text, full
            assert o in Page(site/f'_modules/{lib}/{m}.html').ids, full
            shown.append(o in text.split(f'import {o}', 1)[1])
            if not (inspect.isfunction(f) or inspect.isclass(f) and '__init__' in vars(f)): continue
            head = text[:text.find('[source]')]
            for k in inspect.signature(f).parameters:
                assert k[0] == '_' or re.search(rf'\b{k}\b', head), f'{full}: {k} is missing'
            assert not re.search(r'[(,]\s*_\w', head), f'{full} shows a private parameter'
    assert sum(shown) > .8*len(shown)

def test_names_link_to_what_they_say(site):
    "A backticked name leads to the entry of that name, ours or torch's, fastai's, fastcore's"
    link = r'<a class="name[^>]* href="([^"]*)".*?<span class="pre">(.*?)</span>'
    seen = {o for f in pages(site) for o in re.findall(link, Page(f).html)}
    for href,name in seen:
        last = name.removesuffix('()').split('.')[-1].lower()
        assert re.search(rf'\b{last}\b', href.lower()) and '$' not in href, (name, href)
    assert len(seen) > 50

def test_reading_order(site):
    "Book, tutorials, appendices, by number; each as it is and as plain text, all in `llms.txt`"
    order = [f.relative_to(root/'nbs').with_suffix('').as_posix()
             for o in ('[01]*', 'tutorials/[0-9]*', '[2-9]*')
             for f in sorted((root/'nbs').glob(f'{o}.ipynb'))]
    links = [a['href'].removesuffix('.html') for a in Page(site/'index.html').all('a', 'href')]
    assert list(dict.fromkeys(o for o in links if o in order)) == order
    llms = (site/'llms.txt').read_text(encoding='utf-8')
    for o in order:
        assert (site/f'{o}.ipynb').read_bytes() == (root/f'nbs/{o}.ipynb').read_bytes()
        twin = (site/f'{o}.md').read_text(encoding='utf-8')
        assert twin.startswith('# ') and f'{o}.md)' in llms, o
        assert not re.search(r'^#\||<style|data:image', twin, re.M), o

def test_address(site, tmp_path):
    """One switch in settings.ini turns links to the repository, to Colab and to the site itself on;
    who owns them stands there alone"""
    for f in pages(site):
        html = Page(f).html
        said = re.search(r'name="description" content="([^"]*)', html)
        if '_modules' not in f.parts and f.name not in ('search.html', '404.html'):
            assert said and 'property="og:image"' in html and 'twitter:card' in html, f
            assert '( ' not in said[1], said[1]           # a link within brackets broke them
        assert not re.search(rf'href="[^"]*({at}|{cfg.user}\.github)', html), f
    for f in (root/'docs').rglob('*.*'):
        if f.suffix != '.pyc': assert f'{cfg.user}/' not in f.read_text(encoding='utf-8'), f
    shutil.copytree(root, tmp_path/'repo', ignore=shutil.ignore_patterns('.*', '_docs', 'models'))
    public = Config(tmp_path/'repo', 'settings.ini')
    public['published'] = 'yes'
    public.save()
    html = (build(tmp_path/'repo')/'00_attention.html').read_text(encoding='utf-8')
    for there in (
            f'colab.research.google.com/github/{at}/blob/{cfg.branch}/nbs/00_attention.ipynb"',
            f'"https://github.com/{at}"', '/images/clothes.png"',
            f'rel="canonical" href="https://{cfg.user}.github.io/{lib}/00_attention.html"'):
        assert there in html, there
