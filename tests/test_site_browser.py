"""Every page of the site in a real browser. Skipped, and says so, where Playwright or Debian's `chromium` is missing; `CHROMIUM`
names another browser, `AXE` another copy of axe-core's `axe.min.js`."""
import http.server, importlib.util, os, re, shutil, threading
from importlib import import_module
from pathlib import Path
from urllib.parse import urldefrag
import pytest
from test_site import build, dead_links, lib, modules, pages, pytestmark, rel, root

@pytest.fixture(scope='module')
def site(): return build()

ARGS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()

def axe_file():
    if f := os.environ.get('AXE'): return Path(f)
    spec = importlib.util.find_spec('axe_playwright_python')
    return next(Path(spec.origin).parent.glob('axe*.js'), None) if spec else None

@pytest.fixture(scope='module')
def browser():
    sync = pytest.importorskip('playwright.sync_api', reason="Playwright is not installed: pip install -e '.[dev]'")
    exe = os.environ.get('CHROMIUM') or shutil.which('chromium') or '/usr/bin/chromium'
    if not Path(exe).exists(): pytest.skip('no browser: apt-get install chromium, or name one in CHROMIUM')
    with sync.sync_playwright() as p:
        b = p.chromium.launch(executable_path=exe, args=ARGS)
        yield b
        b.close()

class Server:
    "Serves a folder on this machine under the path it will have on GitHub Pages"
    def __init__(self, folder):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *a, **k): super().__init__(*a, directory=str(folder), **k)
            def translate_path(self, path): return super().translate_path(path[len(lib)+1:] if path.startswith(f'/{lib}/') else '/no-such-place')
            def log_message(self, *a): pass
        self.http = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f'http://127.0.0.1:{self.http.server_port}/{lib}/'
    def __enter__(self): return self
    def __exit__(self, *a): self.http.shutdown(); self.http.server_close()

LOOK = '''async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  const math = [...document.querySelectorAll('.math')], bad = [];
  for (const o of math) if (!o.querySelector('mjx-container') || o.querySelector('mjx-merror, [data-mjx-error]')) bad.push('not rendered: ' + o.textContent.slice(0, 60));
  if (math.length && ![...document.fonts].some(f => f.family.includes('MJX') && f.status == 'loaded')) bad.push('no font for the formulas');
  const images = [...document.images]; images.forEach(i => { i.loading = 'eager' });
  await Promise.all(images.map(i => i.decode().catch(() => 0)));
  for (const i of images) if (!i.complete || !i.naturalWidth) bad.push('image not loaded: ' + i.getAttribute('src'));
  return [bad, math.length, images.length];
}'''

THIN = '''kinds => {     // at most four of each kind: the others look the same, and there are thousands
  const seen = {};
  for (const kind of kinds) for (const o of [...document.querySelectorAll(kind)]) {
    const box = o.closest('.cell_input, .cell_output, .lines, .hero, .sig, code') || document.body;
    const k = [kind, o.className, o.parentElement && o.parentElement.className, box.className, box.parentElement && box.parentElement.className].join('|');
    if ((seen[k] = (seen[k] || 0) + 1) > 4) o.remove();
  }
}'''

AXE = """rules => axe.run(document, {resultTypes: ['violations'], runOnly: {type: rules.length > 1 ? 'tag' : 'rule', values: rules},
                                rules: rules.length > 1 ? {'color-contrast': {enabled: false}} : {}})"""

def look(browser, url, site, only=None, axe=None, widths=(1440, 768, 390)):
    "Open pages as a reader would, and list all that is wrong with them"
    bad,count,now = [],dict(pages=0, formulas=0, images=0, axe=0),['']
    pg = browser.new_page(viewport=dict(width=widths[0], height=900), color_scheme='light')
    pg.on('request', lambda r: r.url.startswith((url, 'data:', 'blob:')) or bad.append(f'{now[0]}: asks for {r.url}'))
    pg.on('requestfailed', lambda r: bad.append(f'{now[0]}: {r.url} failed: {r.failure}'))
    pg.on('response', lambda r: r.status >= 400 and bad.append(f'{now[0]}: {r.url} gave {r.status}'))
    pg.on('console', lambda m: m.type == 'error' and bad.append(f'{now[0]}: console: {m.text}'))
    pg.on('pageerror', lambda e: bad.append(f'{now[0]}: {e}'))
    for f in only or pages(site):
        now[0] = rel(site, f)
        pg.goto(url + now[0], wait_until='load')
        wrong,maths,images = pg.evaluate(LOOK)
        bad += [f'{now[0]}: {o}' for o in wrong]
        for k,v in dict(pages=1, formulas=maths, images=images).items(): count[k] += v
        for w in widths:
            pg.set_viewport_size(dict(width=w, height=900))
            if (wide := pg.evaluate('document.documentElement.scrollWidth')) > w: bad.append(f'{now[0]}: {wide} pixels wide at {w}')
        pg.set_viewport_size(dict(width=widths[0], height=900))
        if not axe: continue
        pg.evaluate(axe)
        pg.evaluate(THIN, ['.highlight span, .sig span'])
        found = [('', o) for o in pg.evaluate(AXE, ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'])['violations']]
        pg.evaluate(THIN, ['code span', 'section > dl.function', 'section > dl.class', 'section > dl.data', 'section > div.beside', 'div.cell', 'section > div.term', 'dl.field-list', 'article li'])
        for scheme in ('light', 'dark'):
            pg.emulate_media(color_scheme=scheme)
            found += [(f' ({scheme})', o) for o in pg.evaluate(AXE, ['color-contrast'])['violations']]
        pg.emulate_media(color_scheme='light')
        count['axe'] += 1
        for scheme,v in found:
            if v['impact'] in ('serious', 'critical'):
                bad.append(f"{now[0]}{scheme}: {v['id']}: {v['help']}: {len(v['nodes'])}, as {v['nodes'][0]['html'][:120]}")
    pg.close()
    return bad,count

def test_every_page(site, browser):
    axe = axe_file()
    with Server(site) as s: bad,count = look(browser, s.url, site, axe=axe.read_text(encoding='utf-8') if axe else None)
    print(count)
    assert bad == [], '\n'.join(bad)
    assert count['formulas'] > 50 and count['images'] > 30
    if not axe: pytest.skip('axe-core is not here: pages were looked at, but not checked for accessibility')

def test_search_finds_every_name(site, browser):
    "Search finds each public name; the first thing it finds is that, or a method of the same name"
    names = {o: f'{lib}.{m}.{o}' for m in modules for o in import_module(f'{lib}.{m}').__all__}
    with Server(site) as s:
        pg = browser.new_page()
        for i,(n,full) in enumerate(names.items()):
            if i in (0, len(names)-1): pg.goto(f'{s.url}search.html?q={n}', wait_until='load')        # as a reader does it
            else: pg.evaluate("n => { document.getElementById('search-results').innerHTML = ''; Search.performSearch(n) }", n)
            pg.wait_for_selector(f'#search-results li a[href$="#{full}"]')
            first = urldefrag(pg.locator('#search-results li a').first.get_attribute('href'))[1]
            assert first.lower().endswith(f'.{n.lower()}'), f'search for {n} finds {first} first'     # it knows no capitals
        first = pg.locator('#search-results li a').first
        first.click()
        pg.wait_for_url(f'**/reference.html#{full}')
        pg.wait_for_function("id => { const y = document.getElementById(id).getBoundingClientRect().y; return 0 <= y && y < innerHeight }", arg=full, timeout=10000)
        pg.close()
    print(len(names), 'names searched')

TERMS = {                                    # what people type, and the page that treats it
    'skip connection': '02_blocks', 'timestep embedding': '01_embeddings', 'noise schedule': '04_diffusion',
    'signal-to-noise ratio': '04_diffusion', 'receptive field': '00_attention', 'bottleneck': '03_unet',
    'reverse process': '04_diffusion', 'positional encoding': '01_embeddings', 'permutation equivariance': '00_attention',
    'v-prediction': '04_diffusion', 'conditioning': '01_embeddings', 'ablation': '12_ablations', 'inference': '23_saving',
    'checkpoint': '07_training', 'CFG': '05_sampling', 'classifier-free guidance': '05_sampling', 'EMA': '07_training',
    'prediction targets': '04_diffusion', 'cross-attention': '00_attention', 'value range': '06_data'}

def test_search_finds_terms(site, browser):
    "The field's words lead to the page that treats them, and to the glossary where it has them"
    missing = []
    with Server(site) as s:
        pg = browser.new_page()
        pg.goto(f'{s.url}search.html?q=attention', wait_until='load')
        for term,page in TERMS.items():
            pg.evaluate("q => { document.getElementById('search-results').innerHTML = ''; Search.performSearch(q) }", term)
            try: pg.wait_for_selector(f'#search-results li a[href*="{page}.html"]', timeout=5000)
            except Exception: missing.append(term)
        pg.close()
    assert missing == []

def test_theme_switch(site, browser):
    with Server(site) as s:
        pg = browser.new_page(color_scheme='light')
        pg.goto(f'{s.url}04_diffusion.html')
        colour = lambda: pg.evaluate('getComputedStyle(document.body).backgroundColor')
        seen = [colour()]
        for _ in range(2): pg.locator('.theme-toggle:visible').first.click(); seen.append(colour())
        assert len(set(seen)) == 2, seen
        pg.evaluate("document.body.dataset.theme = 'dark'")
        paper = pg.evaluate("getComputedStyle(document.querySelector('.cell_output img')).backgroundColor")
        assert paper == 'rgb(255, 255, 255)', f'figures lie on {paper} in the dark theme'
        pg.close()

def test_reads_like_a_book(site, browser):
    "Next leads from the home page through every notebook in reading order: book, tutorials, appendices"
    at = lambda pattern: [f.relative_to(root/'nbs').with_suffix('.html').as_posix() for f in sorted((root/'nbs').glob(pattern))]
    order = at('[01]*.ipynb') + at('tutorials/[0-9]*.ipynb') + at('[2-9]*.ipynb')
    with Server(site) as s:
        pg = browser.new_page()
        pg.goto(s.url + 'index.html')
        for o in [*order, 'howto/own_images.html']:
            pg.locator('a.next-page').click()
            pg.wait_for_url(s.url + o, wait_until='domcontentloaded')
        pg.close()

@pytest.fixture
def broken(site, tmp_path):
    "A copy of the site to break"
    shutil.copytree(site, tmp_path/'html', copy_function=shutil.copyfile)
    def rewrite(name, old, new):
        f = tmp_path/'html'/name
        s = f.read_text(encoding='utf-8'); f.unlink()
        assert old in s
        f.write_text(s.replace(old, new, 1), encoding='utf-8')
    return tmp_path/'html',rewrite

def test_dead_links_are_caught(broken):
    folder,rewrite = broken
    rewrite('index.html', 'href="glossary.html"', 'href="glosary.html"')
    assert any('glosary.html leads to no file' in o for o in dead_links(folder, [folder/'index.html']))
    rewrite('02_blocks.html', 'href="reference.html#', 'href="reference.html#no-such-')
    assert any('leads to no anchor' in o for o in dead_links(folder, [folder/'02_blocks.html']))

def test_missing_image_is_caught(broken, browser):
    folder,_ = broken
    (folder/'images/clothes.png').unlink()
    with Server(folder) as s: bad,_ = look(browser, s.url, folder, [folder/'index.html'])
    assert any('clothes.png gave 404' in o for o in bad) and any('image not loaded: images/clothes.png' in o for o in bad), bad
    assert all('clothes' in o or 'console' in o for o in bad), bad
