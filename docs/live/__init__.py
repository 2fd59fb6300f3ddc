"""Sampling in the page: the network as ONNX with onnxruntime-web in one file that is loaded on a
click, and pictures for the sliders. Both are made once, and kept in `cache` under their digest."""
import gzip, hashlib, json, logging, math, secrets, shutil, subprocess, tempfile
from base64 import b64decode, b64encode
from importlib.util import find_spec
from pathlib import Path
import numpy as np
from docutils import nodes
from sphinx.errors import ExtensionError

here = Path(__file__).resolve().parent
root,cache = here.parent.parent,here/'cache'
MODEL,SEED,STEPS,SCALES,SZ = 'fashion',0,20,[0, 1, 1.5, 2, 3, 5],32
# page: its panels, and how the title begins under whose first paragraph they stand; on the home
# page under the buttons
PLACES = {'index': {'sample': 'Attention U-Nets'},
          '04_diffusion': {'noise': 'How much signal'},
          '05_sampling': {'guidance': 'How is a condition', 'sample': 'Can it take fewer'}}

def noise(seed, n=SZ*SZ):
    "Standard normal numbers, as page.js draws them: mulberry32, then Box and Muller"
    a,low = seed,2**32 - 1
    def u():
        nonlocal a
        a = a + 0x6D2B79F5 & low
        z = (a ^ a >> 15)*(a | 1) & low
        z ^= z + (z ^ z >> 7)*(z | 61) & low
        return (z ^ z >> 14)/2**32
    def normal(): return math.sqrt(-2*math.log(1 - u()))*math.cos(2*math.pi*u())
    return np.array([normal() for _ in range(n)], np.float32)

def kept(name, make, *sources):
    "A file of `cache`, made unless one of these sources is there"
    parts = [o if isinstance(o, bytes) else o.read_bytes() for o in (here/'__init__.py', *sources)]
    file = cache/f'{name}.{hashlib.sha256(b"".join(parts)).hexdigest()[:12]}.js'
    if file.exists(): return file
    text = make()
    cache.mkdir(exist_ok=True)
    for old in {*cache.glob(f'{name}.*.js')} - {file}: old.unlink(missing_ok=True)
    new = cache/f'{file.name}.{secrets.token_hex(4)}'      # another build may write it, too
    new.write_text(text, encoding='utf-8')
    return new.replace(file)

def text_of(content): return b64encode(content).decode()
def packed(content): return text_of(gzip.compress(content, 9, mtime=0))
def script(**names): return ''.join(f'LIVE.{k} = {json.dumps(v)};\n' for k,v in names.items())

def missing():
    "Why there can be no sampling, or nothing"
    absent = [o for o in ('node', 'npm') if not shutil.which(o)]
    absent += [o for o in ('onnx', 'onnxscript') if not find_spec(o)]
    return absent and f"{' and '.join(absent)} missing"

def bundle():
    "One script with the network, onnxruntime-web and the worker that joins them"
    from unet_attention.saving import export_onnx, load_unet
    for o in ('onnx_ir', 'onnxscript'): logging.getLogger(o).setLevel('WARNING')
    with tempfile.TemporaryDirectory() as tmp:
        for o in ('package.json', 'package-lock.json'): shutil.copy(here/o, tmp)
        npm = 'npm ci --ignore-scripts --prefer-offline --no-audit --no-fund --silent'
        subprocess.run(npm.split(), cwd=tmp, check=True)
        ort = Path(tmp)/'node_modules/onnxruntime-web/dist'
        model = export_onnx(load_unet(MODEL), Path(tmp)/'model.onnx', sz=SZ)
        return script(parts=dict(
            worker=(here/'worker.js').read_text(encoding='utf-8'), model=packed(model.read_bytes()),
            ort=packed((ort/'ort.wasm.bundle.min.mjs').read_bytes()),
            wasm=packed((ort/'ort-wasm-simd-threaded.wasm').read_bytes())))

def pictures():
    "One script with what is shown before a click: samples at every scale, and a photograph"
    import torch
    from unet_attention.sampling import ddim
    from unet_attention.saving import load_unet, read_config
    classes,net = read_config(MODEL)['extra']['classes'],load_unet(MODEL)
    c,x_T = torch.arange(len(classes)),torch.from_numpy(noise(SEED)).view(1, 1, SZ, SZ)
    kw = dict(n_steps=STEPS, c=c, x_T=x_T.expand(len(c), -1, -1, -1), progress=False)
    x = torch.cat([ddim(net, kw['x_T'].shape, guidance=g, **kw)[0] for g in SCALES])
    grey = ((x.clamp(-1, 1) + 1)*127.5).round().byte().numpy()
    # the first of Fashion-MNIST's test images
    photo = np.frombuffer(b64decode((here/'photo.txt').read_text()), np.uint8).reshape(28, 28)
    return 'globalThis.LIVE = {};\n' + script(
        classes=classes, none=len(classes), scales=SCALES, seed=SEED, steps=STEPS,
        photo=text_of(np.pad(photo, (SZ - 28)//2).tobytes()), guided=text_of(grey.tobytes()))

def write(app):
    "Write what the pages load beside them; without node, no network"
    to = Path(app.outdir)/'_static/live'
    to.mkdir(parents=True, exist_ok=True)
    lib = root/'unet_attention'
    weights = (lib/f'pretrained/{MODEL}/config.json'),      # holds their digest
    text = kept('pictures', pictures, here/'photo.txt', lib/'sampling.py', *weights).read_text()
    why = missing()
    if not why:
        try: file = kept('bundle', bundle, here/'package-lock.json', here/'worker.js',
                         lib/'saving.py', *weights)
        except subprocess.CalledProcessError as e: why = f'{e.cmd[0]} failed'
        else:
            shutil.copy(file, to)
            text += script(bundle=dict(file=file.name, size=file.stat().st_size))
    if why: print(f'docs: the site is built without sampling in the page: {why}')
    (to/'pictures.js').write_text(text, encoding='utf-8')
    for o in ('page.js', 'live.css'): shutil.copy(here/o, to)

def place(app, doctree, docname):
    "Each panel where PLACES wants it; page.js fills it"
    for panel,words in PLACES.get(docname, {}).items():
        found = [o for o in doctree.findall(nodes.section) if o[0].astext().startswith(words)]
        if len(found) != 1: raise ExtensionError(f'{docname}: no place for {panel}: {words}')
        kind = nodes.raw if docname == 'index' else nodes.paragraph
        first = next(iter(found[0].findall(kind)))
        div = f'<div class="live" data-live="{panel}"></div>'
        first.parent.insert(first.parent.index(first) + 1, nodes.raw('', div, format='html'))

def link(app, name, template, context, doctree):
    if name in PLACES:
        for o in ('pictures.js', 'page.js'): app.add_js_file(f'live/{o}', loading_method='defer')
        app.add_css_file('live/live.css')

def setup(app):
    app.connect('builder-inited', write)
    app.connect('doctree-resolved', place)
    app.connect('html-page-context', link)
