"""Sampling in the page, and the sliders, in a real browser: from files and from a static host.
Skipped, and says so, without a browser, or where the site was built without the network."""
import http.server, json, sys, threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest, torch
from test_site import build, root
from test_site_browser import browser # noqa: F401
from unet_attention.diffusion import Process
from unet_attention.sampling import ddim
from unet_attention.saving import load_unet

sys.path.insert(0, str(root/'docs'))
import live # noqa: E402

BOX = '.live[data-live=sample]'
NET = load_unet('fashion')

def grey(x): return (np.clip(x, -1, 1) + 1)*127.5

def python(c, guidance, n_steps, seed):
    "What the library samples from the same noise"
    if c == 10: c,guidance = None,1
    else: c = torch.tensor([c])
    x_T = torch.from_numpy(live.noise(seed)).view(1, 1, 32, 32)
    return ddim(NET, x_T.shape, n_steps=n_steps, c=c, guidance=guidance, x_T=x_T, progress=False)[0]

@pytest.fixture(scope='module', params=['file', 'http'])
def base(request):
    "Where the pages are"
    if not list(build().glob('_static/live/bundle.*.js')):
        pytest.skip(f'the site was built without the network: {live.missing() or "npm failed"}')
    if request.param == 'file':
        yield build().as_uri()
        return
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=build()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()

@pytest.fixture
def page(base, browser): # noqa: F811
    "A page, what it asked for, and what went wrong"
    pg = browser.new_page(viewport=dict(width=1440, height=900))
    pg.set_default_timeout(120_000)
    pg.asked,pg.wrong = [],[]
    pg.on('request', lambda r: pg.asked.append(r.url))
    pg.on('pageerror', lambda e: pg.wrong.append(str(e)))
    # pictures that are painted, and the longest time in which the page did nothing else
    pg.add_init_script('''{
      const f = CanvasRenderingContext2D.prototype.putImageData;
      window.painted = window.gap = 0;
      CanvasRenderingContext2D.prototype.putImageData = function(...o) {
        painted++; return f.apply(this, o); };
      let last = performance.now();
      setInterval(() => { gap = Math.max(gap, performance.now() - last);
                          last = performance.now(); }, 20); }''')
    yield pg
    assert pg.wrong == []
    pg.close()

def fill(pg, **fields):
    for k,v in fields.items():
        o = pg.locator(f'{BOX} [name={k}]')
        o.select_option(str(v)) if k == 'c' else o.fill(str(v))

def sample(pg, **fields):
    "Fill in the form, press the button, wait for the picture"
    fill(pg, **fields)
    x = pg.evaluate('''box => new Promise((done, fail) => {
        box = document.querySelector(box);
        box.addEventListener('sampled', e => done([...e.detail]), {once: true});
        box.querySelector('button').click();
        setTimeout(() => fail(Error(box.textContent)), 120000); })''', BOX)
    return np.array(x, np.float32).reshape(1, 1, 32, 32)

def said(pg): return pg.locator(f'{BOX} output').text_content()
def bundles(pg): return [o for o in pg.asked if 'bundle' in o]
def pixels(pg, canvas):
    "Grey values on a canvas, `(h, w)`"
    return np.array(pg.evaluate('''o => { o = document.querySelector(o);
        const {data} = o.getContext('2d').getImageData(0, 0, o.width, o.height);
        return Array.from({length: o.height}, (_, i) => Array.from({length: o.width},
            (_, j) => data[4*(i*o.width + j)])); }''', canvas))

@pytest.mark.parametrize('name', ['index', '05_sampling'])
def test_the_picture_that_python_gives(base, page, name):
    "For a seed, a class or none, any scale and number of steps; the network comes with the click"
    page.goto(f'{base}/{name}.html')
    page.wait_for_timeout(500)
    assert not bundles(page)
    for asked in (dict(c=9, guidance=2, n_steps=20, seed=0),
                  dict(c=3, guidance=1, n_steps=7, seed=42),
                  dict(c=10, guidance=3, n_steps=5, seed=2**32 - 1)):
        x,ours = sample(page, **asked),python(**asked).numpy()
        assert abs(x - ours).max() < 1e-3, asked
        assert abs(pixels(page, f'{BOX} .x_0') - grey(ours[0, 0])).max() < 1
        assert said(page).startswith(f"{asked['n_steps']} steps, ")
    assert len(bundles(page)) == 1
    assert not [o for o in page.asked if not o.startswith((base, 'data:', 'blob:'))]

def test_the_noise_is_normal_and_the_same(base, page):
    page.goto(f'{base}/index.html')
    for seed in (0, 1, 2**32 - 1):
        x = live.noise(seed, 20_000)
        assert abs(np.array(page.evaluate('o => [...LIVE.noise(o, 20000)]', seed)) - x).max() < 1e-6
        assert abs(x.mean()) < .03 and abs(x.std() - 1) < .02 and abs((x**4).mean() - 3) < .2
        assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < .03

def test_the_page_stays_responsive(base, page):
    "While the network is loaded and samples, each step is shown when it is there"
    page.goto(f'{base}/index.html')
    before = page.evaluate('gap = 0, painted')
    took = page.evaluate('performance.now()')
    sample(page, n_steps=6)
    gap,took = page.evaluate('[gap, performance.now()]') - np.array([0, took])
    print(f'{gap:.0f} of {took:.0f} ms')
    assert gap < .15*took
    assert page.evaluate('painted') == before + 2*(6 + 1)

def test_keyboard(base, page):
    "Tab goes from field to field, Enter samples, Escape stops, also while the network comes"
    page.goto(f'{base}/index.html')
    page.locator(f'{BOX} [name=c]').focus()
    for name in ('guidance', 'n_steps', 'seed', ''):
        page.keyboard.press('Tab')
        assert page.evaluate('document.activeElement.name') == name
    button = page.locator(f'{BOX} button')
    for wait in ('Loading', 'Sampling'):
        fill(page, n_steps=100)
        page.keyboard.press('Enter')
        page.wait_for_function('([o, s]) => document.querySelector(o).textContent.startsWith(s)',
                               arg=[f'{BOX} output', wait])
        assert button.text_content() == 'Stop'
        page.keyboard.press('Escape')
        assert (said(page), button.text_content()) == ('Stopped', 'Sample')
    # at once, while the stopped step still runs
    asked = dict(c=1, guidance=2, n_steps=3, seed=5)
    assert abs(sample(page, **asked) - python(**asked).numpy()).max() < 1e-3
    painted = page.evaluate('painted')
    page.wait_for_timeout(1000)
    assert page.evaluate('painted') == painted and said(page).startswith('3 steps')

def until(pg, text):
    pg.wait_for_function('([o, s]) => document.querySelector(o).textContent.startsWith(s)',
                         arg=[f'{BOX} output', text])

def test_hasty(base, page):
    "Stop works while a field is empty, a double click is one, and the wait is named again"
    page.goto(f'{base}/index.html')
    button = page.locator(f'{BOX} button')
    fill(page, n_steps=100)
    button.dblclick()
    until(page, 'Loading')
    button.click()
    assert (said(page), button.text_content()) == ('Stopped', 'Sample')
    button.click()
    assert (said(page), button.text_content()) == ('Loading the network ...', 'Stop')
    until(page, 'Sampling')
    fill(page, n_steps='')
    button.click()
    assert (said(page), button.text_content()) == ('Stopped', 'Sample')
    button.click()                                       # the browser asks for the field
    assert said(page) == 'Stopped'

def test_after_an_error(base, page):
    "A step that fails is told, its worker ends, and the next try has another"
    page.add_init_script("""{ const W = Worker; window.workers = 0;
        window.Worker = class extends W {
          constructor(o) { super(o); workers++; }
          terminate() { workers--; super.terminate(); } } }""")
    page.goto(f'{base}/index.html')
    page.evaluate("""box => document.querySelector(box + ' select').append(
        Object.assign(document.createElement('option'), {value: 77, textContent: '?'}))""", BOX)
    fill(page, c=77, n_steps=1)
    page.locator(f'{BOX} button').click()
    until(page, 'This did not work')
    assert page.evaluate('workers') == 0
    assert sample(page, c=1).any() and page.evaluate('workers') == 1
    assert said(page).startswith('1 step, ')

def test_reduced_motion(base, page):
    "The last picture alone is shown"
    page.emulate_media(reduced_motion='reduce')
    page.goto(f'{base}/index.html')
    painted = page.evaluate('painted')
    sample(page, n_steps=5)
    assert page.evaluate('painted') == painted + 2

def test_sliders(base, page):
    "They need no network: time on the noise page, guidance on the sampling page"
    page.goto(f'{base}/04_diffusion.html')
    box,cosine = '.live[data-live=noise]',Process()
    photo = pixels(page, f'{box} .x_0')/127.5 - 1
    eps = live.noise(live.SEED).reshape(32, 32)
    page.locator(f'{box} input').focus()
    for key,t in dict(Home=0., ArrowRight=.01, End=1., PageDown=.9).items():
        page.keyboard.press(key)
        a,s = (f(torch.tensor(t)).item() for f in (cosine.alpha, cosine.sigma))
        logsnr = f'{2*np.log(a/s):.2f}' if 0 < t < 1 else '∞' if t == 0 else '-∞'
        text = page.locator(f'{box} output').text_content()
        assert text == f't = {t:.2f}, α = {abs(a):.3f}, σ = {s:.3f}, log-SNR = {logsnr}'
        assert abs(pixels(page, f'{box} .x_t') - grey(a*photo + s*eps)).max() < 1
    page.goto(f'{base}/05_sampling.html')
    box = '.live[data-live=guidance]'
    page.locator(f'{box} input').focus()
    page.keyboard.press('Home')
    for scale in live.SCALES:
        text = page.locator(f'{box} output').text_content()
        assert text.partition(':')[0] == f'guidance scale {scale}'
        assert page.locator(f'{box} input').get_attribute('aria-valuetext') == text
        shown = pixels(page, f'{box} canvas').reshape(2, 32, 5, 32)
        shown = shown.swapaxes(1, 2).reshape(10, 32, 32)
        ours = [python(c, scale, live.STEPS, live.SEED)[0, 0].numpy() for c in (0, 7)]
        assert abs(shown[[0, 7]] - grey(np.stack(ours))).max() < 2
        assert (abs(shown - shown[0]).max() < 3) == (scale == 0)      # there the class is ignored
        page.keyboard.press('ArrowRight')
    assert not bundles(page)

def test_accessible_and_narrow(base, page):
    "axe finds nothing in the panels, in both themes; they fit a phone"
    axe = pytest.importorskip('axe_playwright_python.sync_playwright').Axe()
    for scheme in ('light', 'dark'):
        page.emulate_media(color_scheme=scheme)
        for name in live.PLACES:
            page.set_viewport_size(dict(width=390, height=900))
            page.goto(f'{base}/{name}.html')
            assert page.locator('.live').count() == len(live.PLACES[name])
            assert page.evaluate('document.documentElement.scrollWidth') == 390
            found = axe.run(page, '.live')
            assert found.violations_count == 0, f'{name} ({scheme}): {found.generate_report()}'

def test_without_the_network(base, page, monkeypatch, tmp_path, capsys):
    "Where it cannot be loaded the page says so; without node the site is built without it"
    page.route('**/bundle.*', lambda o: o.abort())
    page.goto(f'{base}/index.html')
    page.locator(f'{BOX} button').click()
    page.locator(f'{BOX} output', has_text='could not be loaded').wait_for()
    page.unroute('**/bundle.*')
    if base.startswith('http'):                          # of a file nothing else can be served
        cut = dict(body='LIVE.parts = {"ort', content_type='text/javascript')
        page.route('**/bundle.*', lambda o: o.fulfill(**cut))
        with page.expect_event('pageerror'): page.locator(f'{BOX} button').click()
        page.locator(f'{BOX} output', has_text='could not be loaded').wait_for()
        assert 'Invalid' in page.wrong.pop()             # what the browser says of the script
        page.unroute('**/bundle.*')
    assert sample(page, n_steps=1).any()                 # a second try
    monkeypatch.setenv('PATH', str(tmp_path))
    live.write(SimpleNamespace(outdir=tmp_path))
    assert 'without sampling in the page: node and npm missing' in capsys.readouterr().out
    assert not list(tmp_path.rglob('bundle*'))
    text = (tmp_path/'_static/live/pictures.js').read_text(encoding='utf-8')
    page.route('**/pictures.js*', lambda o: o.fulfill(body=text, content_type='text/javascript'))
    for name,left in dict(index=0, **{'05_sampling': 1}).items():
        page.goto(f'{base}/{name}.html')
        assert page.locator('.live').count() == left

def test_two_builds_at_once(monkeypatch, tmp_path):
    "Neither takes a file away from the other"
    monkeypatch.setattr(live, 'cache', tmp_path)
    write = Path.write_text
    def late(self, *args, **kwargs):
        "The second build writes the same while the first has not put its file in place"
        monkeypatch.setattr(Path, 'write_text', write)
        write(self, *args, **kwargs)
        assert len(list(tmp_path.glob('x.*.js'))) == 1          # of a third one
        live.kept('x', lambda: 'same')
    def make():
        live.kept('x', lambda: 'same')
        monkeypatch.setattr(Path, 'write_text', late)
        return 'same'
    (tmp_path/'x.old.js').write_text('old')
    file = live.kept('x', make)
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == 'same'

def test_versions_are_pinned():
    "One exact version, a digest for each package, and no host"
    wants = json.loads((root/'docs/live/package.json').read_text())['dependencies']
    text = (root/'docs/live/package-lock.json').read_text()
    packages = json.loads(text)['packages']
    assert packages.pop('')['dependencies'] == wants
    for k,v in wants.items(): assert packages[f'node_modules/{k}']['version'] == v
    assert all(o['integrity'].startswith('sha512-') for o in packages.values())
    assert 'http' not in text
