"""What a reader runs, under `-W error` for warnings of our own doing: deprecated calls into torch,
NumPy, matplotlib, Pillow or Python, and tensors that NumPy must convert by itself"""
import sys, sysconfig, traceback, warnings
from pathlib import Path
import pytest

LIBRARIES = 'torch numpy matplotlib PIL safetensors tqdm'.split()
KINDS = DeprecationWarning, PendingDeprecationWarning, FutureWarning, UserWarning
root = Path(__file__).resolve().parent.parent

def culprit(stack):
    "Who called into the libraries: the innermost file of `stack` that belongs to none of them"
    site,python = sysconfig.get_path('purelib'),sysconfig.get_path('stdlib')
    def library(f):
        if f.startswith(site): return Path(f).relative_to(site).parts[0] in LIBRARIES
        return f.startswith((python, '<')) or f == __file__
    return next((o for o in reversed(stack) if not library(o.filename)), None)

@pytest.fixture
def ours(monkeypatch):
    "Warnings for which a module of the package is to blame"
    said = []
    def show(message, category, *args, **kwargs):
        at = culprit(traceback.extract_stack())
        if issubclass(category, KINDS) and at and Path(at.filename).parent == root/'unet_attention':
            said.append(f'{Path(at.filename).name}:{at.lineno}: {category.__name__}: {message}')
    import matplotlib, unet_attention.all  # noqa: F401
    matplotlib.use('Agg')
    with warnings.catch_warnings():
        warnings.simplefilter('always')
        monkeypatch.setattr(warnings, 'showwarning', show)
        yield said
    assert said == []

@pytest.fixture
def no_conversion(monkeypatch):
    "NumPy, handed a tensor, asks it for an array: an error here"
    import torch
    def refuse(self, *args, **kwargs): raise TypeError('NumPy was handed a tensor')
    monkeypatch.setattr(torch.Tensor, '__array__', refuse)

def network(**kw):
    from unet_attention.unet import ConditionalTAUnet
    return ConditionalTAUnet(12, nfs=(16,32), attention_heads=(0,2), n_blocks=(1,1), **kw)

def test_the_net_catches(ours):
    "A deprecated call in the package's name is caught, and one that fastai makes is not"
    code = "import warnings; warnings.warn('old', FutureWarning)"
    def call(file): exec(compile(code, file, 'exec'))
    call(str(root/'unet_attention/images.py'))
    call(str(Path(sysconfig.get_path('purelib'))/'fastai/learner.py'))
    assert ours == ['images.py:1: FutureWarning: old']
    ours.clear()

def test_figures(ours, no_conversion, tmp_path):
    import matplotlib.pyplot as plt, torch
    from unet_attention.anatomy import attention_maps, draw_unet, trace_features
    from unet_attention.images import image_grid, save_gif, show_images
    x = (2*torch.rand(4, 3, 16, 16) - 1).requires_grad_()
    still = x.detach().numpy().copy()
    still.flags.writeable = False                                    # as a picture of Pillow's
    for o in (x, x[0], list(x), x[:, :1], still, list(still), torch.zeros(4, 3, 8, 8).byte()):
        show_images(o, titles=torch.arange(len(o)) if len(o) == 4 else None)
    show_images(x, row_titles=['a', 'b'], title='all', ax=plt.subplots()[1])
    save_gif([x, x], tmp_path/'a.gif'), image_grid(x)
    draw_unet(network(), 16)
    t,c = torch.rand(1),torch.zeros(1, dtype=torch.long)
    attention_maps(network(), x[:1].detach(), t, c)
    trace_features(network(), x[:1].detach(), t, c, file=tmp_path/'b.gif')
    plt.close('all')

def test_training_and_files(ours, no_conversion, tmp_path):
    import matplotlib.pyplot as plt
    from unet_attention.checkpoints import Checkpoint, History, SaveUnet
    from unet_attention.saving import load_unet, read_config
    from unet_attention.shapes import get_shapes_dls
    from unet_attention.training import Preview, diffusion_learner
    dls = get_shapes_dls(bs=8, n_train=16, n_valid=8, sz=16)
    cbs = [Checkpoint(tmp_path/'run', resume=True), History(), SaveUnet(tmp_path/'model', sz=16)]
    for half in (False, True):
        learn = diffusion_learner(dls, network(), path=tmp_path, cbs=[*cbs, Preview(2, n_steps=2)])
        if half: learn.to_bf16()
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2 if half else 1, 5e-3)
        for o in (tmp_path/'run').iterdir(): o.unlink()
    learn.recorder.plot_loss(), learn.show_results(n=2, n_steps=2, progress=False)
    load_unet(tmp_path/'model'), read_config(tmp_path/'model'), load_unet('fashion')
    plt.close('all')

def test_samples_and_scores(ours, no_conversion):
    import torch
    from unet_attention.captions import score_captions, tokenize
    from unet_attention.editing import inpaint, sdedit
    from unet_attention.evaluation import ImageEval, load_classifier
    from unet_attention.sampling import SAMPLERS, generate
    from unet_attention.shapes import classify_shapes, shapes
    net,c,kw = network(),torch.arange(4),dict(n_steps=3, progress=False)
    for f in SAMPLERS.values(): x,_ = f(net, (4, 3, 16, 16), c=c, guidance=2., **kw)
    made = generate(net, 4, (3, 16, 16), c, **kw)
    sdedit(net, x, c=c, **kw), inpaint(net, x, x[:, :1] > 0, c=c, **kw)
    real = shapes(60).x
    judge = load_classifier('shapes')
    ImageEval(real[:30], real[30:], judge.features, judge)(real[10:40])
    score_captions(real[:2], tokenize(['red circle']*2)), classify_shapes(made)

def test_the_commands(ours, no_conversion, tmp_path, capsys):
    from unet_attention.cli import sample_model, train_model
    small = dict(nfs='8,16', attention_heads='0,2', n_blocks='1,1', sz=16, n=1, steps=2)
    out = train_model(out=str(tmp_path/'run'), n_train=16, n_valid=8, epochs=1, preview=1, **small)
    for name in ('a.png', 'a.gif'): sample_model(str(out), n=1, steps=2, out=str(tmp_path/name))
    assert sys.modules['unet_attention.cli'] and 'Wrote' in capsys.readouterr().out
