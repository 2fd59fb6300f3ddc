"""Wrong arguments to training: each row is a call, the error that it must raise, what it must say.

The notebook shows one such case for each public name; the others are here."""
import math, re, warnings
import pytest, torch, torch.nn.functional as F
from torch import nn
warnings.filterwarnings('ignore', message='.*torch.jit')
from fastai.basics import Callback, DataLoader, DataLoaders, Learner
from unet_attention.data import ImageTensors, ShardedDL, image_dls
from unet_attention.diffusion import Denoiser
from unet_attention.checkpoints import Checkpoint, History
from unet_attention.training import (
    EMA, ConditionalFashionDDPM, DiffusionLearner, Distributed, Diverged, FashionDDPM, Muon,
    RaiseOnNaN, conditional_train, diffusion_learner, orthogonalise, stratified_times, train)
from unet_attention.unet import ConditionalTAUnet, TAUnet, UNet

T,V = TypeError,ValueError
sizes = dict(nfs=(8,), attention_heads=(0,), n_blocks=(1,))
labels = torch.arange(8)
images = ImageTensors(torch.zeros(8, 3, 8, 8, dtype=torch.uint8), labels)
dls = image_dls(images, images, bs=4)

def net(): return TAUnet(**sizes)

def cond(n=8): return ConditionalTAUnet(n, **sizes)

def batches(x): return DataLoaders(*[DataLoader([(o,) for o in x], bs=8)]*2)     # images alone

def fit(cbs, model=None, dls=dls):
    "An epoch of a plain `Learner`"
    learn = Learner(dls, model or net(), loss_func=F.mse_loss, cbs=cbs)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)

def weight(): return nn.Parameter(torch.ones(16, 20))

class Grey(nn.Module):
    "Answers in one channel, which the loss would broadcast to three"
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
    def forward(self, x, t): return self.conv(x)

class Tuple(Grey):
    "Says what it predicts, without a `Denoiser` to unpack its answer"
    process = net().process
    def forward(self, x, t): return x, t

class Still(nn.Module):
    "Without weights"
    def forward(self, x, t): return x

rand = torch.rand(8, 3, 8, 8)
spoilt = rand.clone()
spoilt[5, 0, 3] = math.inf
def within_distrib_ctx():
    learn = diffusion_learner(dls, net(), cbs=Distributed(None))
    learn.remove_cbs([o for o in learn.cbs if o.name == 'progress'])
    return learn

constructors = [
    (lambda: ShardedDL(DataLoader(iter(range(9)), bs=3), 0, 2), V, 'dls must hold fastai'),
    (lambda: ShardedDL([rand], 0, 2), V, "dls must hold fastai's loaders of batches"),
    (lambda: within_distrib_ctx().lr_find(), V, 'lr_find must come before distrib_ctx'),
    (lambda: stratified_times(0), V, 'n must be at least 1, got 0'),
    (lambda: stratified_times(2.), T, 'n must be a whole number, got 2.0'),
    (lambda: FashionDDPM(seed=-1), V, 'seed must be at least 0, got -1'),
    (lambda: FashionDDPM(seed=.5), T, 'seed must be a whole number, got 0.5'),
    (lambda: FashionDDPM(weight=.5), T, 'weight must be a function of abar, got 0.5'),
    (lambda: FashionDDPM(weight=lambda a: .5), T, 'weight(abar) must be a tensor, (100,), got'),
    (lambda: FashionDDPM(weight=lambda a: a[:, None]), V, 'weight(abar) must be (100,), got (100,'),
    (lambda: FashionDDPM(weight=lambda a: -a), V, 'weight(abar) must lie in [0, inf], got -0.995'),
    (lambda: FashionDDPM(weight=lambda a: a*math.nan), V, 'weight(abar) must lie in [0, inf], got'),
    (lambda: EMA(1.), V, 'decay must be a number in [0, 1), got 1.0'),
    (lambda: EMA(-.1), V, 'decay must be a number in [0, 1), got -0.1'),
    (lambda: EMA('.9'), T, "decay must be a number, got '.9'"),
    (lambda: Muon(net().half().parameters()), V, 'params must be float32, float64 or bfloat16'),
    (lambda: Muon([torch.zeros(3, dtype=torch.complex64)]), V, 'params must be float32, float64'),
    (lambda: Muon([weight()], tables=weight()), TypeError, 'tables must be a list of weights'),
    (lambda: Muon([weight()], betas=(.9,)), V, 'betas must be two'),
    (lambda: Muon([dict(params=[weight()], mu=7)]), V, r'mu must be'),
    (lambda: Muon([weight()]).add_param_group(dict(params=[weight()], lr=-1)), V, 'lr must be'),
    (lambda: Muon([weight()]).load_state_dict(torch.optim.AdamW([weight()]).state_dict()), V,
     "state_dict must be a Muon's"),
    (lambda: orthogonalise(weight()), TypeError, 'ms must be a list of matrices'),
]

learners = [
    (lambda: diffusion_learner(net(), dls), T, 'model must say what it predicts'),
    (lambda: diffusion_learner(dls, Grey()), T, "as Denoiser(model, target='eps'), got Grey"),
    (lambda: diffusion_learner(dls, lambda x, t: x), T, 'model must say what it predicts'),
    *[(lambda o=o: diffusion_learner(dls, o), T, 'model must be a module with weights, got ')
      for o in (Denoiser(Still(), 'eps'), Denoiser(lambda x, t: x, 'eps'), Tuple)],
    (lambda: diffusion_learner(dls.train, net()), T, 'dls must be DataLoaders, with train'),
    (lambda: diffusion_learner([rand], net()), T, 'dls must be DataLoaders, with train and valid'),
    *[(lambda o=o: diffusion_learner(dls, o, conditional=True), V, 'conditional must be False for')
      for o in (net(), UNet((8,)))],
    (lambda: diffusion_learner(dls, net(), ema=1.), V, 'ema must be a number in [0, 1), got 1.0'),
    (lambda: diffusion_learner(dls, net(), wd=-1), V, 'wd must be a number in [0, inf), got -1'),
    (lambda: diffusion_learner(dls, net(), wd='.01'), T, "wd must be a number, got '.01'"),
    (lambda: diffusion_learner(dls, net(), weight=.5), T, 'weight must be a function of abar'),
    (lambda: diffusion_learner(dls, net(), weight=abs, cbs=FashionDDPM()), V, 'weight must be'),
    (lambda: diffusion_learner(dls, net(), target='v'), T, "unexpected keyword argument 'target'"),
    (lambda: diffusion_learner(dls, net()).show_results(n=0), V, 'n must be at least 1, got 0'),
]

calls = [
    *[(lambda o=o: train(net(), dls, 1e-3, o), V, f'n_epochs must be at least 1, got {o}')
      for o in (0, -2)],
    (lambda: train(net(), dls, 1e-3, 1.5), T, 'n_epochs must be a whole number, got 1.5'),
    *[(lambda o=o: train(net(), dls, o, 1), V, 'lr must be a number in (0, inf)')
      for o in (0, -1., math.nan, math.inf)],
    (lambda: train(net(), dls, '1e-3', 1), T, "lr must be a number, got '1e-3'"),
    (lambda: train(Grey(), dls, 1e-3, 1), T, 'model must say what it predicts'),
    (lambda: train(net(), dls, 1e8, 2), Diverged, 'lr must be smaller: at step'),
    (lambda: train(net(), dls, 1e-3, 1, extra_cbs=Checkpoint('x', every=0)), V, 'every must be at'),
    (lambda: train(net(), dls, 1e-3, 1, extra_cbs=Checkpoint('x', keep=0)), V, 'keep must be at'),
    (lambda: fit([FashionDDPM(), Checkpoint('x')]), T, 'learn must be a DiffusionLearner'),
    (lambda: train(net(), dls, 1e-3, 1, extra_cbs=[Checkpoint('x'), Checkpoint('y')]), V,
     'cbs must hold one Checkpoint, got 2'),
    (lambda: train(net(), dls, 1e-3, 1, target='v'), T, "unexpected keyword argument 'target'"),
    (lambda: train(net().half(), dls, 1e-3, 1), V, 'and keeps them), got torch.float16'),
    (lambda: train(net().requires_grad_(False), dls, 1e-3, 1), V,
     'model must have weights, of which some require gradients, got TAUnet'),
    (lambda: conditional_train(net(), dls), V, 'conditional must be False for a model without a'),
    (lambda: conditional_train(cond(), dls, n_epochs=0), V, 'n_epochs must be at least 1, got 0'),
]

batches_and_fits = [
    (lambda: fit(FashionDDPM(), dls=batches(rand*255)), V, 'images from dls must lie in [-16, 16]'),
    (lambda: fit(FashionDDPM(), dls=batches(rand*math.nan)), V, '[-16, 16], got nan..nan'),
    (lambda: fit(FashionDDPM(), dls=batches(spoilt)), V,
     'in image 5 of batch 0, epoch 0: number 5 of the data set'),
    (lambda: fit(FashionDDPM(), dls=batches([])), V, "dls.train must yield a batch at least, got"),
    (lambda: fit(FashionDDPM(), dls=DataLoaders(batches(rand).train, batches([]).valid)), V,
     'dls.valid must yield a batch at least'),
    (lambda: fit(FashionDDPM(), dls=batches(rand.byte())), T, 'images from dls must be floating'),
    (lambda: fit(FashionDDPM(), dls=batches(rand[:, 0])), V, 'images from dls must be (b, c, h'),
    (lambda: fit(ConditionalFashionDDPM(), cond(), batches(rand)), V, 'dls must yield (images, '),
    (lambda: fit(ConditionalFashionDDPM(), cond(5)), V, 'c must lie in [0, 4], got 0..7'),
    (lambda: fit(FashionDDPM(), Grey()), T, 'model must say what it predicts'),
    (lambda: fit(FashionDDPM(), Denoiser(Grey(), 'eps')), V, 'model(x_t, t) must be (4, 3, 8, 8)'),
    (lambda: fit(FashionDDPM(), Tuple()), T, 'model(x_t, t) must be a tensor'),
    (lambda: fit([FashionDDPM(), FashionDDPM()]), V, 'cbs must hold one FashionDDPM, got 2'),
    (lambda: fit([FashionDDPM(), EMA(), EMA()]), V, 'cbs must hold one EMA, got 2'),
]

rows = dict(constructors=constructors, learners=learners, calls=calls, fits=batches_and_fits)

@pytest.mark.parametrize('call,error,says', [
    pytest.param(*row, id=f'{kind} {i}: {row[2]}')
    for kind,table in rows.items() for i,row in enumerate(table)])
def test_error(call, error, says):
    with pytest.raises(error, match=re.escape(says)): call()

def test_welcome():
    "Odd but right: doubles, as numpy gives them; no labels in validation; no averages"
    fit(FashionDDPM(), dls=batches(rand.double()))
    learn = diffusion_learner(dls, cond(), ema=None)
    assert isinstance(learn, DiffusionLearner) and not [o for o in learn.cbs if isinstance(o, EMA)]
    with learn.no_bar(): learn.validate(dl=batches(rand).valid)

def test_without_weights():
    "A function, or a module without weights, can be sampled from, if not trained"
    from unet_attention.sampling import SAMPLERS, generate
    for o in (lambda x, t: x, Still()):
        model = Denoiser(o, 'eps')
        for f in SAMPLERS.values():
            assert f(model, (2, 3, 8, 8), n_steps=2, progress=False)[0].isfinite().all()
        assert generate(model, 2, (3, 8, 8), n_steps=2, progress=False).shape == (2, 3, 8, 8)

@pytest.mark.parametrize('sampler', ['ddpm', 'ddim', 'heun', 'dpm_solver'])
def test_sampling_stops_at_nan(sampler):
    "A network that answers NaN from its third evaluation on ends sampling at that step"
    from unet_attention.sampling import SAMPLERS
    calls = []
    def fails(x, t):
        calls.append(t)
        return x*math.nan if len(calls) > 2 else x
    with pytest.raises(FloatingPointError, match='finite numbers, got others by step [23] of 5'):
        SAMPLERS[sampler](Denoiser(fails, 'v'), (2, 3, 8, 8), n_steps=5, progress=False)

def test_no_looking(monkeypatch):
    "On a device nothing is looked at: with values out of sight, bytes pass"
    monkeypatch.setattr('unet_attention.checks.values_known', lambda x: False)
    fit(FashionDDPM(), dls=batches(rand*255))

def test_interrupted_validation():
    "A validation that fails does not leave its generator to the next fit"
    class Fail(Callback):
        def after_pred(self):
            if not self.training: raise RuntimeError('enough')
    learn = diffusion_learner(dls, net(), cbs=Fail())
    with learn.no_bar(), learn.no_logging():
        with pytest.raises(RuntimeError, match='enough'): learn.fit(1)
        assert learn.fashion_ddpm.generator is not None
        learn.fashion_ddpm.before_fit()
    assert learn.fashion_ddpm.generator is None

def test_validating_an_exported_learner():
    "An empty training loader is an error in training alone: an exported learner has one"
    learn = diffusion_learner(DataLoaders(batches([]).train, batches(rand).valid), net())
    with learn.no_bar(): assert learn.validate()

def test_lag_on_a_device(monkeypatch):
    "Where the loss must be waited for, it is looked at a step later, and at the end of the epoch"
    cb = RaiseOnNaN()
    looked = []
    monkeypatch.setattr(RaiseOnNaN, '_look', lambda self, now, step, *_: looked.append(step))
    class Device:
        "A tensor that says it is on a device"
        def __init__(self, x): self.x,self.device = x,torch.device('cuda')
        def norm(self): return self
    stack = torch.stack
    monkeypatch.setattr(torch, 'stack', lambda o: Device(o) if not isinstance(o[-1], Device) else o)
    seen = []
    class Watch(Callback):
        order = 12
        def before_step(self): seen.append([*looked])
    try: fit([FashionDDPM(), cb, Watch()])
    finally: monkeypatch.setattr(torch, 'stack', stack)
    assert seen == [[], [0]] and looked == [0, 1]

def test_history_of_another_fit(tmp_path):
    "A resumed fit refuses a table of other columns, or no table at all; a new one does as fastai's"
    class Cut(Callback):
        def after_step(self):
            if self.train_iter == 3: raise SystemError('and dark it was')
    def run(*cbs, append=False, **kw):
        cbs = [History(append=append), Checkpoint(tmp_path/'run', resume=True), *cbs]
        learn = diffusion_learner(dls, net(), path=tmp_path, cbs=cbs, **kw)
        with learn.no_bar(), learn.no_logging(): learn.fit(2)
        return file.read_text().splitlines()
    file,head = tmp_path/'history.csv','epoch,train_loss,valid_loss,time'
    with pytest.raises(SystemError): run(Cut())
    before = file.read_text()
    for append in (False, True):
        with pytest.raises(ValueError, match=f'a last table with the columns {head}, got ..epoch'):
            run(append=append, metrics=[])
    assert file.read_text() == before
    file.write_text('my notes\n')
    with pytest.raises(ValueError, match=r'history.csv must hold a last table .* got \[\]'): run()
    assert file.read_text() == 'my notes\n'
    file.write_text(before)
    assert len(run()) == 3
    for o in (tmp_path/'run').iterdir(): o.unlink()
    lines = run(append=True, metrics=[])
    assert len(lines) == 6 and lines[3] == head != lines[0]

def test_tables_that_were_replaced():
    "Embeddings get AdamW's step though their weights are others than when the learner was made"
    model = ConditionalTAUnet(20, nfs=(16,), attention_heads=(0,), n_blocks=(1,))
    learn = diffusion_learner(dls, model)
    state = {k: v.clone() for k,v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    muon = learn.opt.opt
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    assert tables and all('step' in muon.state[w] for w in tables)
    assert any('momentum' in s for s in muon.state.values())
