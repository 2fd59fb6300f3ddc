"The site that `tools/docs` builds, as files: links, images, names, plain text, addresses"
import atexit, functools, importlib.util, inspect, re, shutil, subprocess, sys, tempfile
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
lib,user,at = cfg['lib_name'],cfg['user'],f"{cfg['user']}/{cfg['lib_name']}"
needs = [o for o in ('sphinx', 'myst_nb', 'furo', 'sphinx_copybutton', 'sphinx_design',
                     'sphinx-mathjax-offline') if importlib.util.find_spec(o) is None]
pytestmark = pytest.mark.skipif(bool(needs),
    reason=f"the site cannot be built without {', '.join(needs)}: pip install -e '.[docs]'")
modules = re.findall(rf'^from {lib}\.(\w+) import', (root/lib/'all.py').read_text(encoding='utf-8'),
                     re.M)

@functools.cache
def build(repo=root):
    "The folder of the site of the repository at `repo`, built once for all tests"
    tmp = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, tmp, True)
    r = subprocess.run([sys.executable, repo/'tools/docs', '--out', f'{tmp}/html'], text=True,
                       capture_output=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return Path(tmp)/'html'

@pytest.fixture(scope='module')
def site(): return build()

class Page(HTMLParser):
    "The links, anchors and images of a page; `names` are links from backticked names"
    def __init__(self, file):
        super().__init__()
        self.links,self.ids,self.images,self.names,self.text = [],set(),[],[],''
        self.html = file.read_text(encoding='utf-8')
        self.feed(self.html)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids.add(a.get('id'))
        if tag == 'img': self.images.append(a)
        if tag == 'a' and a.get('href'):
            self.links.append(a['href'])
            if 'name' in (a.get('class') or '').split(): self.names.append([a['href'], ''])
    def handle_data(self, d):
        if self.names and not self.names[-1][1]: self.names[-1][1] = d

page = functools.cache(Page)
def pages(site): return sorted(site.rglob('*.html'))

def test_links(site):
    "Links within the site lead to a page, and to a place in it"
    bad,n = [],0
    for f in pages(site):
        for href in set(page(f).links):
            if re.match(r'[a-z]+:', href): continue
            path,anchor = urldefrag(href)
            to,n = (f.parent/unquote(path)).resolve() if path else f,n+1
            if to.is_dir(): to = to/'index.html'
            if to.is_file() and not (anchor and to.suffix == '.html'): continue
            if not to.is_file() or unquote(anchor) not in page(to).ids: bad.append((f.name, href))
    assert bad == [] and n > 1000

def test_images(site):
    "Every figure has words of its own, comes late, and takes its room before"
    from PIL import Image
    n = 0
    for f in pages(site):
        for a in page(f).images:
            assert len(a.get('alt') or '') > 15, (f.name, a)
            assert a.get('loading') == 'lazy' and a.get('height'), (f.name, a)
            if f.name == 'index.html': continue
            im = Image.open(f.parent/unquote(a['src']))
            half = 1 + (im.info.get('dpi', (72, 72))[0] > 120)
            size = int(a['width']),int(a['height'])
            assert size == (im.width//half, im.height//half), (f.name, a)
            n += half == 2
    assert n > 30

def test_cells_that_only_test_are_folded(site):
    "They say how many checks passed; what shows something, or makes what others use, stays open"
    sys.path.insert(0, str(root/'docs'))
    from book import checks
    assert checks('test_eq(1, 1)\nx = 2\nassert x', ['print(y)']) == 2
    assert checks('for o in [1, 2]: test_eq(o, o)', []) == 1
    assert checks('with expect_fail(ValueError): f()', ['x = 1']) == 1
    assert checks('x = 2\ntest_eq(x, 2)', ['print(x)']) == 0            # needed later
    # made anew before it is used
    assert checks('x = 2\ntest_eq(x, 2)', ['x = 3\nprint(x)']) == 1
    assert checks('test_eq(x, 2)\nx.save()', []) == 0
    assert sum(len(re.findall(r'\d+ checks? passed', page(f).html)) for f in pages(site)) > 30
    for f in (root/'nbs').rglob('[!._]*.ipynb'):
        html = page(site/f.relative_to(root/'nbs').with_suffix('.html')).html
        bar = re.search(r'<progress|</style>\s*<div|\d+it/s', html)
        assert not bar, f'{f.name} has a progress bar'

def test_reference(site):
    """Each public name: its real parameters and none that is private, how to import it, its source
    on the site; nearly all have an example"""
    shown,total = 0,0
    for m in modules:
        p,mod = page(site/f'reference/{m}.html'),import_module(f'{lib}.{m}')
        source = page(site/f'_modules/{lib}/{m}.html').ids
        for o in mod.__all__:
            f,full = getattr(mod, o),f'{lib}.{m}.{o}'
            entry = re.search(rf'id="{re.escape(full)}".*?(?=id="{lib}\.{m}\.[A-Z_a-z]\w*"|$)',
                              p.html, re.S)[0]
            text = re.sub('<.*?>', '', entry)
            assert f'from {lib}.{m} import {o}' in text and '[source]' in text and o in source, full
            shown,total = shown + (o in text.split(f'import {o}', 1)[1]),total+1
            if not (inspect.isfunction(f) or inspect.isclass(f) and '__init__' in vars(f)): continue
            head = text[:text.find('[source]')]
            for k in inspect.signature(f).parameters:
                assert k[0] == '_' or re.search(rf'\b{k}\b', head), f'{full}: {k} is missing'
            assert not re.search(r'[(,]\s*_\w', head), f'{full} shows a private parameter'
    print(f'{shown} of {total} names have an example')
    assert shown > .8*total

def test_names_link_to_what_they_say(site):
    "A backticked name leads to the entry of that name, ours or torch's, fastai's, fastcore's"
    seen = {(name, href) for f in pages(site) for href,name in page(f).names}
    for name,href in seen:
        last = name.removesuffix('()').split('.')[-1].lower()
        assert re.search(rf'\b{last}\b', href.lower()), (name, href)
    assert len(seen) > 50

def test_reading_order(site):
    "Book, tutorials, appendices, by number; each as it is and as plain text, all in `llms.txt`"
    order = [f.relative_to(root/'nbs').with_suffix('.html')
             for o in ('[01]*', 'tutorials/[0-9]*', '[2-9]*')
             for f in sorted((root/'nbs').glob(f'{o}.ipynb'))]
    links = [h for h in page(site/'index.html').links
             if re.match(r'(tutorials/)?\d\d_\w+\.html$', h)]
    assert list(dict.fromkeys(links))[:len(order)] == [o.as_posix() for o in order]
    llms = (site/'llms.txt').read_text(encoding='utf-8')
    for o in order:
        nb = o.with_suffix('.ipynb')
        assert (site/nb).read_bytes() == (root/'nbs'/nb).read_bytes()
        twin = (site/o.with_suffix('.md')).read_text(encoding='utf-8')
        assert twin.startswith('# ') and f'{o.with_suffix(".md").as_posix()})' in llms, o
        assert not re.search(r'^#\||<style|data:image', twin, re.M), o

def test_address(site, tmp_path):
    """One switch in settings.ini turns links to the repository, to Colab and to the site itself on;
    who owns them stands there alone"""
    for f in pages(site):
        if (html := page(f).html) and 'name="description"' in html:
            assert 'property="og:image"' in html and 'twitter:card' in html, f
            said = re.search(r'name="description" content="([^"]*)', html)[1]
            assert '( ' not in said, said                 # a link within brackets broke them
        elif '_modules' not in f.parts and f.name not in ('search.html', '404.html'):
            pytest.fail(f'{f} has no description')
        assert not re.search(rf'href="[^"]*({at}|{user}\.github)', html), f
    for f in [*(root/'docs').rglob('*.*'), root/'tools/docs']:
        if f.is_file() and f.suffix != '.pyc':
            assert not re.search(rf'{user}(/|\.github)', f.read_text(encoding='utf-8')), f
    for d in ('docs', 'nbs', lib, 'tools', 'benchmarks'):
        shutil.copytree(root/d, tmp_path/d,
                        ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    shutil.copy(root/'CONTRIBUTING.md', tmp_path)
    settings = (root/'settings.ini').read_text(encoding='utf-8')
    settings = settings.replace('published = no', 'published = yes')
    (tmp_path/'settings.ini').write_text(settings, encoding='utf-8')
    html = (build(tmp_path)/'00_attention.html').read_text(encoding='utf-8')
    for there in (
            f'colab.research.google.com/github/{at}/blob/{cfg["branch"]}/nbs/00_attention.ipynb"',
            f'"https://github.com/{at}"', '/images/card.png"',
            f'rel="canonical" href="https://{user}.github.io/{lib}/00_attention.html"'):
        assert there in html, there
