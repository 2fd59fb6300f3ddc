"What people who know fastai try: most of it works, the rest says what to do instead"
import contextlib, io, math, re, warnings
import matplotlib, pytest, torch
warnings.filterwarnings('ignore', message='.*torch.jit')
matplotlib.use('Agg')
from fastai.callback.all import (
    ActivationStats, CSVLogger, EarlyStoppingCallback, GradientAccumulation, GradientClip,
    ReduceLROnPlateau, SaveModelCallback, ShowGraphCallback, TerminateOnNaNCallback)
from fastai.vision.all import (
    CategoryBlock, DataBlock, ImageBlock, ImageDataLoaders, Normalize, Resize, get_image_files,
    imagenet_stats, parent_label)
from unet_attention.shapes import get_shapes_dls
from unet_attention.training import diffusion_learner
from unet_attention.unet import ConditionalTAUnet

dls = get_shapes_dls(bs=16, n_train=48, n_valid=32, sz=16, device='cpu')

def learner(*cbs, **kwargs):
    torch.manual_seed(0)
    model = ConditionalTAUnet(12, nfs=(8,16), attention_heads=(0,2), n_blocks=(1,1))
    return diffusion_learner(dls, model, cbs=[*cbs], **kwargs)

@pytest.fixture(scope='module')
def learn():
    res = learner()
    with quiet(): res.fit(1, 1e-3)
    return res

def quiet(): return contextlib.redirect_stdout(io.StringIO())

SHOWS = dict(
    show_batch=lambda l: l.dls.show_batch(),
    show_batch_sized=lambda l: l.dls.show_batch(max_n=4, nrows=2, figsize=(3, 3)),
    show_batch_train=lambda l: l.dls.train.show_batch(max_n=9, ncols=3),
    show_results=lambda l: l.show_results(max_n=4, n_steps=2, figsize=(4, 2)))

@pytest.mark.parametrize('name', SHOWS)
def test_shows(learn, name):
    fig = SHOWS[name](learn)
    assert fig.axes and fig.axes[0].images

def test_figsize(learn):
    "A figure fits into the size that was asked for, and fills its width or its height"
    for nrows,size in ((1, (4, 3)), (2, (3, 3)), (4, (6, 2))):
        got = learn.dls.show_batch(max_n=8, nrows=nrows, figsize=size, titles=None)
        got = got.get_size_inches()
        fills = [g/s for g,s in zip(got, size)]
        assert .8 < max(fills) < 1.6, (nrows, size, got)

ASKS = dict(
    validate=lambda l: len(l.validate()) == 2,
    get_preds=lambda l: l.get_preds()[0].shape == (32, 3, 16, 16),
    lr_find=lambda l: l.lr_find(num_it=3, show_plot=False).valley > 0,
    one_batch=lambda l: l.dls.one_batch()[0].shape == (16, 3, 16, 16),
    summary=lambda l: 'Total params' in str(l.summary()),
    loss_not_reduced=lambda l: l.loss_func(torch.ones(2), torch.zeros(2)) == 1)

@pytest.mark.parametrize('name', ASKS)
def test_asks(learn, name):
    with quiet(): assert ASKS[name](learn)

FITS = dict(
    one_cycle=lambda l: l.fit_one_cycle(1, 1e-3), flat_cos=lambda l: l.fit_flat_cos(1, 1e-3),
    sgdr=lambda l: l.fit_sgdr(1, 1, 1e-3), fine_tune=lambda l: l.fine_tune(1),
    bf16=lambda l: l.to_bf16().fit(1, 1e-3), frozen=lambda l: (l.freeze(), l.unfreeze(), l.fit(1)))

@pytest.mark.parametrize('name', FITS)
def test_fits(name):
    l = learner()
    before = [p.clone() for p in l.model.parameters()]
    with quiet(): FITS[name](l)
    assert len(l.recorder.losses) and all(map(math.isfinite, l.recorder.losses))
    assert any(not torch.equal(a, b) for a,b in zip(before, l.model.parameters()))

CALLBACKS = dict(
    csv=lambda f: CSVLogger(f/'history.csv'),
    save=lambda f: SaveModelCallback(monitor='valid_loss'),
    stop=lambda f: EarlyStoppingCallback(), plateau=lambda f: ReduceLROnPlateau(),
    accumulate=lambda f: GradientAccumulation(32), clip=lambda f: GradientClip(1.),
    nan=lambda f: TerminateOnNaNCallback(), stats=lambda f: ActivationStats(),
    graph=lambda f: ShowGraphCallback())

@pytest.mark.parametrize('name', CALLBACKS)
def test_callbacks(tmp_path, name):
    with quiet(): learner(CALLBACKS[name](tmp_path), path=tmp_path).fit(1, 1e-3)

def test_tensorboard(tmp_path):
    "It can trace only models that take one batch of images, and no times"
    pytest.importorskip('tensorboard')
    from fastai.callback.tensorboard import TensorBoardCallback
    log = TensorBoardCallback(tmp_path, trace_model=False, log_preds=False)
    with quiet(): learner(log).fit(1, 1e-3)
    assert [*tmp_path.iterdir()]

REFUSED = dict(
    predict=(NotImplementedError, 'sample from it', lambda l: l.predict(dls.train.dataset.x[0])),
    tta=(NotImplementedError, 'sample from it', lambda l: l.tta()),
    test_dl=(TypeError, 'dataset must be an ImageTensors', lambda l: dls.test_dl([1, 2])))

@pytest.mark.parametrize('name', REFUSED)
def test_refused(learn, name):
    error,says,f = REFUSED[name]
    with pytest.raises(error, match=says): f(learn)

# ---- fastai's own loaders -----------------------------------------------------------------------
@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "A folder of two classes"
    from PIL import Image
    d = tmp_path_factory.mktemp('photos')
    x = torch.randint(256, (24, 20, 24, 3), generator=torch.Generator().manual_seed(0)).byte()
    x[:, :10],x[:, 10:15] = 0, 255                       # black above white, and noise below
    for i,o in enumerate(x):
        (d/'ab'[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(o.numpy()).save(d/'ab'[i % 2]/f'{i}.png')
    return d

def half(): return Normalize.from_stats([.5]*3, [.5]*3)
def imagenet(): return Normalize.from_stats(*imagenet_stats)
def from_folder(d, tfm): return ImageDataLoaders.from_folder(
    d, valid_pct=.25, item_tfms=Resize(16), batch_tfms=tfm, bs=6, device='cpu')
def data_block(d, tfm):
    db = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                   item_tfms=Resize(16), batch_tfms=tfm)
    return db.dataloaders(d, bs=6, device='cpu')

@pytest.mark.parametrize('make', [from_folder, data_block])
@pytest.mark.parametrize('tfm,says', [
    (half, None), (None, r'lie in \[0, 1\]; about \[-1, 1\].*Normalize.from_stats\(\[.5\]'),
    (imagenet, r'lie in \[-2.1, 2.6\]; about \[-1, 1\].*Normalize.from_stats\(\[.5\]')])
def test_fastai_loaders(photos, make, tfm, says):
    "They train; those that are not in [-1, 1] get a warning that says how"
    own = make(photos, tfm and tfm())
    torch.manual_seed(0)
    model = ConditionalTAUnet(len(own.vocab), nfs=(8,16), attention_heads=(0,2), n_blocks=(1,1))
    l = diffusion_learner(own, model)
    with quiet(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        l.fit(1, 1e-3)
        assert l.show_results(n=2, n_steps=2).axes
    said = [str(o.message) for o in said if 'images from dls' in str(o.message)]
    assert math.isfinite(l.recorder.values[-1][0]) and len(said) == bool(says)
    if says: assert re.search(says, said[0]), said
