"""Every page of the site in a real browser, from its files. Skipped, and says so, where Playwright
or Debian's `chromium` is missing; `CHROMIUM` names another browser."""
import os, shutil
from importlib import import_module
import pytest
from test_site import build, lib, modules, pages

ARGS = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync '
        '--disable-background-networking --disable-component-update').split()

@pytest.fixture(scope='module')
def site(): return build().as_uri()

@pytest.fixture(scope='module')
def browser():
    sync = pytest.importorskip('playwright.sync_api', reason="see pip install -e '.[dev]'")
    exe = os.environ.get('CHROMIUM') or shutil.which('chromium')
    if not exe: pytest.skip('no browser: apt-get install chromium, or name one in CHROMIUM')
    with sync.sync_playwright() as p: yield p.chromium.launch(executable_path=exe, args=ARGS)

LOOK = '''async () => {
  await window.MathJax?.startup?.promise;
  const start = o => o.textContent.slice(0, 60), all = o => [...document.querySelectorAll(o)];
  const bad = all('.math').filter(o => !o.querySelector('mjx-container')
      || o.querySelector('mjx-merror')).map(o => 'not rendered: ' + start(o));
  const short = o => o.textContent.split('\\n').every(l => l.length <= 100);
  const wide = all('.cell_input pre').filter(o => o.scrollWidth > o.clientWidth + 1 && short(o));
  return bad.concat(wide.map(o => 'too wide: ' + start(o)));       // a hundred characters fit
}'''

def test_every_page(site, browser):
    "Nothing is missing, asked for elsewhere, in error, or wider than the window"
    bad,now = [],''
    pg = browser.new_page(viewport=dict(width=1440, height=900))
    def say(what): bad.append(f'{now}: {what}')
    ours = site,'data:','blob:'
    pg.on('request', lambda r: r.url.startswith(ours) or say(f'asks for {r.url}'))
    pg.on('requestfailed', lambda r: say(f'has no {r.url}'))
    pg.on('console', lambda m: m.type == 'error' and say(m.text))
    pg.on('pageerror', say)
    for now in pages(build()):
        pg.goto(now.as_uri(), wait_until='load')
        for o in pg.evaluate(LOOK): say(o)
        for w in (390, 768, 1440):
            pg.set_viewport_size(dict(width=w, height=900))
            if (wide := pg.evaluate('document.documentElement.scrollWidth')) > w:
                say(f'{wide} pixels wide at {w}')
    assert bad == [], '\n'.join(bad)

def test_accessible(site, browser):
    "axe finds nothing serious in what is ours: contrast in both themes, names, order of headings"
    axe = pytest.importorskip('axe_playwright_python.sync_playwright').Axe()
    rules = ['color-contrast', 'heading-order', 'image-alt', 'link-name',
             'scrollable-region-focusable', 'duplicate-id']
    for scheme in ('light', 'dark'):
        pg = browser.new_page(viewport=dict(width=1440, height=900), color_scheme=scheme)
        for name in ('index', '04_diffusion', 'papers', 'glossary', 'reference/sampling'):
            pg.goto(f'{site}/{name}.html', wait_until='load')
            # the colours of code are the theme's
            pg.evaluate("document.querySelectorAll('.highlight span').forEach(o => o.remove())")
            found = axe.run(pg, 'article', dict(runOnly=rules))
            assert found.violations_count == 0, f'{name} ({scheme}): {found.generate_report()}'
        pg.close()

TERMS = {                                    # what people type, and the page that should come first
    '00_attention':
        'receptive field, permutation equivariance, attention map, cross-attention, softmax',
    '01_embeddings': 'timestep embedding, positional encoding, conditioning, null condition',
    '02_blocks': 'skip connection, residual block, group normalisation, GroupNorm',
    '03_unet': 'bottleneck, n_blocks, nfs, U-Net',
    '04_diffusion': 'noise schedule, signal-to-noise ratio, SNR, reverse process, v-prediction, '
                    'flow matching',
    '05_sampling': 'sampling, cfg, CFG, classifier-free, classifier-free guidance, guidance scale',
    '06_data': 'value range', '10_editing': 'inpainting', 'reference/checkpoints': 'checkpoint',
    '07_training': 'mixed precision, exponential moving average',
    'reference/evaluation': 'fid, FID', '08_evaluation': 'fréchet inception distance',
    '12_ablations': 'ablation', '23_saving': 'inference',
    'howto/own_images': 'own dataset, custom dataset', 'howto/save_load': 'resume',
    'howto/onnx': 'onnx', 'howto/diffusers': 'diffusers', 'howto/several': 'multi gpu',
    'howto/gpu': 'gpu', 'howto/epochs': 'epochs', 'howto/logging': 'tensorboard, wandb',
    'howto/latents': 'latent diffusion', 'reference/emoji': 'emoji',
    'about': 'install, license, licence, cite, cuda'}

def test_search(site, browser):
    "Search finds the page that treats a word first, and each public name first"
    pg,wrong = browser.new_page(),[]
    pg.goto(f'{site}/search.html?q=attention', wait_until='load')
    def first(query):
        pg.evaluate("document.getElementById('search-results').innerHTML = ''")
        pg.evaluate('q => Search.performSearch(q)', query)
        return pg.locator('#search-results li a').first.get_attribute('href', timeout=5000)
    words = {t: f'{page}.html' for page,terms in TERMS.items() for t in terms.split(', ')}
    for t,page in words.items():
        if not (to := first(t)).partition('#')[0].endswith(page): wrong.append((t, page, to))
    for m in modules:
        for n in import_module(f'{lib}.{m}').__all__:
            # it knows no capitals
            if not (to := first(n)).lower().endswith(f'.{n.lower()}'): wrong.append((n, m, to))
    assert wrong == []
