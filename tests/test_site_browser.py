"""Every page of the site in a real browser. Skipped, and says so, where Playwright or Debian's
`chromium` is missing; `CHROMIUM` names another browser, `AXE` another copy of axe-core's
`axe.min.js`."""
import http.server, importlib.util, os, shutil, threading
from importlib import import_module
from pathlib import Path
import pytest
import test_site
from test_site import build, lib, modules, pages

pytestmark = test_site.pytestmark

ARGS = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync '
        '--disable-background-networking --disable-component-update').split()

@pytest.fixture(scope='module')
def site():
    "The address of the site, served under the path that it will have on GitHub Pages"
    folder = str(build())                           # before anybody waits for a page
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *a): super().__init__(*a, directory=folder)
        def translate_path(self, path): return super().translate_path(path.removeprefix(f'/{lib}'))
        def log_message(self, *a): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/{lib}/'
    server.shutdown()

@pytest.fixture(scope='module')
def browser():
    sync = pytest.importorskip('playwright.sync_api',
                               reason="Playwright is not installed: pip install -e '.[dev]'")
    exe = os.environ.get('CHROMIUM') or shutil.which('chromium') or '/usr/bin/chromium'
    if not Path(exe).exists():
        pytest.skip('no browser: apt-get install chromium, or name one in CHROMIUM')
    with sync.sync_playwright() as p:
        yield p.chromium.launch(executable_path=exe, args=ARGS)

LOOK = '''async () => {
  await window.MathJax?.startup?.promise;
  const bad = [], math = [...document.querySelectorAll('.math')], images = [...document.images];
  const start = o => o.textContent.slice(0, 60);
  for (const o of math)
    if (!o.querySelector('mjx-container') || o.querySelector('mjx-merror'))
      bad.push('not rendered: ' + start(o));
  images.forEach(i => { i.loading = 'eager' });
  await Promise.all(images.map(i => i.decode().catch(() => 0)));
  for (const i of images)
    if (!i.naturalWidth) bad.push('image not loaded: ' + i.getAttribute('src'));
  const short = o => o.textContent.split('\\n').every(l => l.length <= 100);
  for (const o of document.querySelectorAll('.cell_input pre'))  // a hundred characters fit
    if (o.scrollWidth > o.clientWidth + 1 && short(o)) bad.push('too wide: ' + start(o));
  return bad;
}'''

def test_every_page(site, browser):
    "Nothing is missing, asked for elsewhere, in error, or wider than the window"
    bad,now = [],''
    pg = browser.new_page(viewport=dict(width=1440, height=900))
    def say(what): bad.append(f'{now}: {what}')
    pg.on('request', lambda r: r.url.startswith((site, 'data:', 'blob:'))
          or say(f'asks for {r.url}'))
    pg.on('response', lambda r: r.status >= 400 and say(f'{r.url} gave {r.status}'))
    pg.on('console', lambda m: m.type == 'error' and say(m.text))
    pg.on('pageerror', say)
    for now in [f.relative_to(build()).as_posix() for f in pages(build())]:
        pg.goto(site + now, wait_until='load')
        for o in pg.evaluate(LOOK): say(o)
        for w in (390, 768, 1440):
            pg.set_viewport_size(dict(width=w, height=900))
            if (wide := pg.evaluate('document.documentElement.scrollWidth')) > w:
                say(f'{wide} pixels wide at {w}')
    pg.close()
    assert bad == [], '\n'.join(bad)

def test_accessible(site, browser):
    "axe finds nothing serious in what is ours: contrast in both themes, names, order of headings"
    spec = importlib.util.find_spec('axe_playwright_python')
    file = os.environ.get('AXE') or spec and next(Path(spec.origin).parent.glob('axe*.js'), None)
    if not file: pytest.skip('axe-core is not here')
    bad,rules = [],['color-contrast', 'heading-order', 'image-alt', 'link-name',
                    'scrollable-region-focusable', 'duplicate-id']
    for scheme in ('light', 'dark'):
        for name in ('index', '04_diffusion', 'papers', 'glossary', 'reference/sampling'):
            pg = browser.new_page(viewport=dict(width=1440, height=900), color_scheme=scheme)
            pg.goto(f'{site}{name}.html', wait_until='load')
            # the colours of code are the theme's
            pg.evaluate("document.querySelectorAll('.highlight span').forEach(o => o.remove())")
            pg.evaluate(Path(file).read_text(encoding='utf-8'))
            run = "rules => axe.run(document.querySelector('article'), {runOnly: rules})"
            for v in pg.evaluate(run, rules)['violations']:
                n,like = len(v['nodes']),v['nodes'][0]['html'][:120]
                bad.append(f"{name} ({scheme}): {v['id']}: {n}, as {like}")
            pg.close()
    assert bad == [], '\n'.join(bad)

def first(pg, query):
    "Where the first result of a search leads"
    pg.evaluate("document.getElementById('search-results').innerHTML = ''")
    pg.evaluate('q => Search.performSearch(q)', query)
    pg.wait_for_selector('#search-results li a', timeout=5000)
    return pg.locator('#search-results li a').first.get_attribute('href')

TERMS = {                                    # what people type, and the page that should come first
    '00_attention':
        'receptive field, permutation equivariance, attention map, cross-attention, softmax',
    '01_embeddings': 'timestep embedding, positional encoding, conditioning, null condition',
    '02_blocks': 'skip connection, residual block, group normalisation, GroupNorm',
    '03_unet': 'bottleneck, n_blocks, nfs, U-Net',
    '04_diffusion': 'noise schedule, signal-to-noise ratio, SNR, reverse process, v-prediction, '
                    'flow matching',
    '05_sampling': 'sampling, cfg, CFG, classifier-free, classifier-free guidance, guidance scale',
    '06_data': 'value range',
    '10_editing': 'inpainting, img2img', 'reference/checkpoints': 'checkpoint',
    '07_training': 'mixed precision, exponential moving average',
    'reference/evaluation': 'fid, FID', '08_evaluation': 'fréchet inception distance',
    '12_ablations': 'ablation', '23_saving': 'inference',
    'howto/own_images': 'own dataset, custom dataset', 'howto/save_load': 'resume',
    'howto/onnx': 'onnx, onnxruntime', 'howto/diffusers': 'diffusers, DiffusionPipeline',
    'howto/several': 'multi gpu', 'howto/larger_images': 'larger images', 'faults': 'faults',
    'about': 'install, license, licence, cite, cuda, gpu'}

def test_search(site, browser):
    "Search finds the page that treats a word first, and each public name first"
    pg,wrong = browser.new_page(),[]
    pg.goto(f'{site}search.html?q=attention', wait_until='load')
    for page,terms in TERMS.items():
        for t in terms.split(', '):
            if not (to := first(pg, t)).partition('#')[0].endswith(f'{page}.html'):
                wrong.append((t, page, to))
    for m in modules:
        for n in import_module(f'{lib}.{m}').__all__:
            # it knows no capitals
            if not (to := first(pg, n)).lower().endswith(f'.{n.lower()}'): wrong.append((n, m, to))
    pg.close()
    assert wrong == []
