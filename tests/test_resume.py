"Training goes on to the bit: a process killed at random moments, and in the middle of a write"
import builtins, errno, os, random, resource, signal, subprocess, sys, time
from functools import partial
from pathlib import Path
import numpy as np, pytest

KILLS, EVERY = 20, 3

# ---- the process that is killed: `python test_resume.py FOLDER` ----------------------------------
def train(folder):
    "Train a small network from the newest checkpoint in `folder`, and keep its weights"
    import torch
    from fastai.basics import Callback
    from unet_attention.checkpoints import Checkpoint, write_whole
    from unet_attention.data import ImageTensors, image_dls
    from unet_attention.training import diffusion_learner
    from unet_attention.unet import TAUnet
    class Note(Callback):
        "Notes each step in a file as soon as it is done, before the checkpoint is written"
        order = 99
        def before_fit(self):
            self.file = os.open(folder/'steps', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        def before_train(self):
            if self.checkpoint.batch: self.note('from')
        def after_batch(self):
            if self.training: self.note('done')
        def note(self, what): os.write(self.file, f'{what} {self.learn.train_iter}\n'.encode())
    folder.mkdir(exist_ok=True)
    for seed in (torch.manual_seed, random.seed, np.random.seed): seed(42)
    images = ImageTensors(torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8))
    dls = image_dls(images, images.select(range(8)), bs=4)
    model = TAUnet((8,16), (0,2), (1,1), color_channels=1)
    cbs = [Note(), Checkpoint(folder, every=EVERY, resume=True)]
    learn = diffusion_learner(dls, model, cbs=cbs)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(5, 5e-3)
        learn.fit_flat_cos(4, 1e-3)
    b = b''.join(p.detach().numpy().tobytes() for p in model.parameters())
    write_whole(folder/'weights', b)

def kill_often(folder):
    """One run to its end, another in processes forked one after the other: each is killed after a
    random time, every second one while a file is being written; the last may end."""
    import torch, unet_attention.checkpoints  # noqa: F401        imported once, before the forks
    torch.set_num_threads(1)
    def child():
        pid = os.fork()
        if pid: return pid
        try: train(folder/'killed')
        finally: os._exit(0)
    def unfinished():
        try: return {(o.name, o.stat().st_mtime_ns) for o in there.glob('.*.new')}
        except FileNotFoundError: return set()                          # just made whole
    def wait_for(f):
        until = time.time() + 5
        while time.time() < until and not f(): time.sleep(.0002)
    train(folder/'whole')
    there,rng = folder/'killed',random.Random()
    (there/'steps').parent.mkdir()
    (there/'steps').touch()
    for i in range(KILLS):
        before,size = unfinished(),(there/'steps').stat().st_size
        pid = child()
        if i % 4: wait_for(lambda: (there/'steps').stat().st_size > size)
        if i % 2 == 0: time.sleep(rng.uniform(0, .5))
        else:
            for _ in range(rng.randint(1, 6)):                  # in the middle of a write
                seen = before | unfinished()
                wait_for(lambda: unfinished() - seen)
        os.kill(pid, signal.SIGKILL)
        _,status = os.waitpid(pid, 0)
        print('ended' if os.WIFEXITED(status) else 'killed', *unfinished() - before)
    os.waitpid(child(), 0)

if __name__ == '__main__': kill_often(Path(sys.argv[1]))

# ---- the tests -----------------------------------------------------------------------------------
def test_killed_twenty_times(tmp_path):
    t = time.time()
    r = subprocess.run([sys.executable, __file__, tmp_path], text=True, capture_output=True)
    assert r.returncode == 0, r.stderr
    kills = r.stdout.splitlines()
    was,now = [(tmp_path/o/'weights').read_bytes() for o in ('whole', 'killed')]
    assert was == now and len(was) > 1000
    lines = (tmp_path/'killed'/'steps').read_text().splitlines()
    steps = [(what, int(n)) for what,n in map(str.split, lines)]
    lost = [a - b for (what,a),(again,b) in zip(steps, steps[1:])
            if (what, again) == ('done', 'from')]
    unfinished = sum('.new' in o for o in kills)
    print(f'{sum("killed" in o for o in kills)} killed, {unfinished} in a write; '
          f'{len(lost)} resumed in an epoch, lost {lost}; {time.time() - t:.0f} s')
    assert sum('killed' in o for o in kills) > KILLS//2 and unfinished
    assert lost and max(lost) <= EVERY

# ---- in this process: what else may go wrong -----------------------------------------------------
def learner(**kwargs):
    import torch
    from unet_attention.data import ImageTensors, image_dls
    from unet_attention.training import diffusion_learner
    from unet_attention.unet import TAUnet
    for seed in (torch.manual_seed, random.seed, np.random.seed): seed(42)
    images = ImageTensors(torch.randint(256, (24, 1, 8, 8), dtype=torch.uint8))
    dls = image_dls(images, images.select(range(8)), bs=4, device='cpu')
    return diffusion_learner(dls, TAUnet((8,), (0,), (1,), color_channels=1), **kwargs)

def fit(learn, *cbs):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 5e-3, cbs=[*cbs])
    return [p.data.clone() for p in learn.model.parameters()]

def optimisers():
    import torch
    from fastai.basics import Adam, OptimWrapper, ranger
    return dict(adamw=partial(OptimWrapper, opt=torch.optim.AdamW), fastai=Adam, ranger=ranger,
                momentum=partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=.9)))

@pytest.mark.parametrize('name', ['adamw', 'fastai', 'ranger', 'momentum'])
def test_other_optimisers(tmp_path, name):
    import torch
    from fastai.basics import Callback
    from unet_attention.checkpoints import Checkpoint
    class Cut(Callback):
        def after_step(self):
            if self.train_iter == 8: raise SystemError('and dark it was')
    make = partial(learner, opt_func=optimisers()[name])
    whole = fit(make())
    with pytest.raises(SystemError): fit(make(), Cut(), Checkpoint(tmp_path, every=3))
    resumed = fit(make(), Checkpoint(tmp_path, every=3, resume=True))
    assert all(torch.equal(a, b) for a,b in zip(whole, resumed))

def broken(how):
    "Let the next checkpoint fail in its folder, and return what mends it"
    if how == 'full disk':                       # here: no file may be longer than 1000 bytes
        soft,hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    was = builtins.open                          # as root, no folder is read-only: so in Python
    def refuse(file, mode='r', *args, **kw):
        if 'w' in mode: raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return was(file, mode, *args, **kw)
    builtins.open = refuse
    return lambda: setattr(builtins, 'open', was)

@pytest.mark.parametrize('how, says', [('full disk', 'File too large'), ('read-only', 'Read-only')])
def test_what_was_kept_stays(tmp_path, how, says):
    "A checkpoint that cannot be written is one clear error; the last one is there, and resumes"
    import torch
    from fastai.basics import Callback
    from unet_attention.checkpoints import Checkpoint, CheckpointError, checkpoints
    mend = []
    class Break(Callback):
        def after_step(self):
            if self.train_iter == 7: mend.append(broken(how))
    whole = fit(learner())
    try:
        with pytest.raises(CheckpointError) as e:
            fit(learner(), Break(), Checkpoint(tmp_path, every=3))
    finally: mend[0]()
    assert says in str(e.value) and 'folder must be where' in str(e.value)
    assert '\n' not in str(e.value)
    assert [o.stem[-2:] for o in checkpoints(tmp_path)] == ['03', '06']
    assert not [*tmp_path.glob('.*')]                                   # nothing unfinished
    resumed = fit(learner(), Checkpoint(tmp_path, every=3, resume=True))
    assert all(torch.equal(a, b) for a,b in zip(whole, resumed))

def test_deterministic_algorithms():
    "Training works where torch is asked for algorithms that give the same numbers each time"
    import torch
    torch.use_deterministic_algorithms(True)
    try: assert all(torch.equal(a, b) for a,b in zip(fit(learner()), fit(learner())))
    finally: torch.use_deterministic_algorithms(False)

def test_what_callbacks_gather(tmp_path):
    "Best values, previews, and what a callback of one's own asks for by `kept`, go on as well"
    from fastai.basics import Callback
    from fastai.callback.tracker import SaveModelCallback
    from unet_attention.checkpoints import Checkpoint
    from unet_attention.evaluation import Score
    from unet_attention.training import Preview
    class Count(Callback):
        kept,n = 'n',0
        def before_fit(self): self.n = 0
        def after_batch(self): self.n += 1
    class Cut(Callback):
        def after_step(self):
            if self.train_iter == 8: raise SystemError('and dark it was')
    def make(name):
        def score(x, c): return dict(s=1., fid=Score(2., None, .1))     # of which the value counts
        cbs = [Count(), SaveModelCallback(), Preview(n=2, n_steps=1, score=score)]
        return learner(cbs=cbs, path=tmp_path/name)
    fit(whole := make('whole'))
    with pytest.raises(SystemError): fit(make('cut'), Cut(), Checkpoint(tmp_path, every=3))
    fit(resumed := make('cut'), Checkpoint(tmp_path, every=3, resume=True))
    assert whole.count.n == resumed.count.n == 16              # 6 to train, 2 to validate, twice
    assert whole.save_model.best == resumed.save_model.best
    assert whole.preview.scores == resumed.preview.scores and len(resumed.preview.images) == 2
    assert resumed.preview.scores[0] == dict(epoch=1, s=1., fid=2.)
    assert all((a == b).all() for a,b in zip(whole.preview.images, resumed.preview.images))

def table(learn): return (learn.path/'history.csv').read_text().splitlines()

def test_history_appends(tmp_path):
    """`History(append=True)` keeps the tables that are there, as fastai's does; resumed, it goes on
    with the last; without, each fit has the file to itself"""
    from fastai.basics import Callback
    from unet_attention.checkpoints import Checkpoint, History
    class Cut(Callback):
        def after_step(self):
            if self.epoch == 1 and self.n_fits == 2: raise SystemError('and dark it was')
        def before_fit(self): self.n_fits = self.n_fits + 1
        n_fits = 0
    def two(*cbs, append=True, folder='new'):
        learn = learner(cbs=[History(append=append), *cbs], path=tmp_path)
        for _ in range(2): fit(learn, Checkpoint(tmp_path/folder, every=3, resume=True))
        return [o.split(',')[0] for o in table(learn)]
    with pytest.raises(SystemError): two(Cut())
    assert two() == two() == ['epoch', '0', '1']*2                # the last time all was done
    assert two(folder='another') == ['epoch', '0', '1']*4
    assert two(append=False, folder='third') == ['epoch', '0', '1']

# ---- damaged files, and weights of other kinds ---------------------------------------------------
def cut_at(n):
    from fastai.basics import Callback
    class Cut(Callback):
        def after_step(self):
            if self.train_iter == n: raise SystemError('and dark it was')
    return Cut()

def flip(file, bit):
    "Change one bit of a file"
    data = bytearray(file.read_bytes())
    data[bit//8] ^= 1 << bit % 8
    file.write_bytes(data)

def test_one_bit(tmp_path):
    "A bit that changes anywhere in a checkpoint, or a digest that is missing, is noticed"
    import json, torch
    from safetensors import safe_open
    from safetensors.torch import save_file
    from unet_attention.checkpoints import (
        Checkpoint, CheckpointError, checkpoints, read_checkpoint)
    whole = fit(learner())
    with pytest.raises(SystemError): fit(learner(), cut_at(8), Checkpoint(tmp_path, every=3))
    last = checkpoints(tmp_path)[-1]
    data,rng = last.read_bytes(),random.Random(1)
    head = 8 + int.from_bytes(data[:8], 'little')
    def same(a, b): return json.dumps(a, default=str) == json.dumps(b, default=str)
    was,missed = read_checkpoint(last),0
    bits = [rng.randrange(len(data)*8) for _ in range(60)] + [rng.randrange(head*8)
                                                              for _ in range(60)]
    for bit in bits:
        flip(last, bit)
        try: missed += not same(was, read_checkpoint(last))
        except CheckpointError: pass
        last.write_bytes(data)
    assert not missed
    with safe_open(last, 'pt') as f:
        meta,tensors = f.metadata(),{k: f.get_tensor(k) for k in f.keys()}
    meta.pop('sha256')
    save_file(tensors, last, meta)
    with pytest.raises(CheckpointError, match='sha256'): read_checkpoint(last)
    last.write_bytes(data)
    flip(last, len(data)*8 - 12)
    with pytest.warns(UserWarning, match='going on from the one before'):
        resumed = fit(learner(), Checkpoint(tmp_path, every=3, resume=True))
    assert all(torch.equal(a, b) for a,b in zip(whole, resumed))

def odd(dtype=None):
    "A small network with a single number among its weights, and a mask of -inf as a buffer"
    import torch
    from torch import nn
    from unet_attention.diffusion import Process
    class Odd(nn.Module):
        process = Process('eps')
        def __init__(self):
            super().__init__()
            self.conv,self.scale = nn.Conv2d(1, 1, 3, padding=1),nn.Parameter(torch.ones(()))
            self.register_buffer('mask', torch.full((4,4), -torch.inf).triu(1))
        def forward(self, x, t): return self.scale*self.conv(x)
    return Odd().to(dtype or torch.float32)

def odd_learner(**kwargs):
    from unet_attention.training import diffusion_learner
    return diffusion_learner(learner().dls, odd(), **kwargs)

@pytest.mark.parametrize('name', ['muon', 'adamw', 'fastai'])
def test_single_numbers_and_masks(tmp_path, name):
    "A weight without axes trains and resumes; a buffer need not be finite, weights must"
    import torch
    from unet_attention.checkpoints import Checkpoint, CheckpointError
    from unet_attention.training import EMA
    kw = {} if name == 'muon' else dict(opt_func=optimisers()[name])
    whole = fit(odd_learner(**kw))
    with pytest.raises(SystemError):
        fit(odd_learner(**kw), cut_at(8), Checkpoint(tmp_path, every=3))
    resumed = fit(odd_learner(**kw), Checkpoint(tmp_path, every=3, resume=True))
    assert all(torch.equal(a, b) for a,b in zip(whole, resumed))
    learn = odd_learner(cbs=EMA(restart=False), **kw)
    for _ in range(2): fit(learn)
    bad = odd_learner(**kw)
    bad.model.scale.data.fill_(torch.inf)
    with pytest.raises(CheckpointError, match='weights must be finite to be kept: state.model.sc'):
        fit(bad, Checkpoint(tmp_path/'bad'))

@pytest.mark.parametrize('kind, wide', [('bfloat16', 'float32'), ('float16', 'float32'),
                                        ('float32', 'float32'), ('float64', 'float64')])
def test_averages_of_half_precision(kind, wide):
    "Averages of weights in half precision move, and the raw weights come back as they were"
    import torch
    from types import SimpleNamespace
    from unet_attention.training import EMA
    model,ema = odd(getattr(torch, kind)),EMA()
    for p in model.parameters(): p.data.zero_()
    ema.learn = SimpleNamespace(model=model, cbs=[ema])
    ema.before_fit()
    exact = torch.zeros((), dtype=torch.float64)
    for p in model.parameters(): p.data.fill_(1)
    for n in range(3000):
        ema.after_step()
        exact.lerp_(torch.ones((), dtype=torch.float64), 1 - min(.995, (1 + n)/(10 + n)))
    assert {o.dtype for o in ema.avg} == {getattr(torch, wide)}
    assert all((a - exact).abs().max() < 1e-3 for a in ema.avg)
    raw = [torch.randn_like(p) for p in model.parameters()]
    for p,r in zip(model.parameters(), raw): p.data.copy_(r)
    ema.swap(True)
    assert all((p - exact).abs().max() < 1e-2 for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {getattr(torch, kind)}
    ema.swap(False)
    assert all(torch.equal(p, r) for p,r in zip(model.parameters(), raw))

def test_half_precision_resumes(tmp_path):
    "Weights in bfloat16: their averages are kept in float32, and training goes on to the bit"
    import torch
    from unet_attention.checkpoints import Checkpoint, checkpoints, read_checkpoint
    from unet_attention.diffusion import Denoiser
    from unet_attention.training import diffusion_learner
    def make(): return diffusion_learner(learner().dls, Denoiser(odd(torch.bfloat16), 'eps'))
    whole = fit(make())
    with pytest.raises(SystemError): fit(make(), cut_at(8), Checkpoint(tmp_path, every=3))
    kept = read_checkpoint(checkpoints(tmp_path)[-1])
    assert {o.dtype for o in kept['callbacks']['ema']['avg']} == {torch.float32}
    resumed = fit(make(), Checkpoint(tmp_path, every=3, resume=True))
    assert {p.dtype for p in resumed} == {torch.bfloat16}
    assert all(torch.equal(a, b) for a,b in zip(whole, resumed))

# ---- what may not differ -------------------------------------------------------------------------
def others():
    "Ways to make another fit of the same lines: what the message names, and how to make it"
    from fastai.callback.training import GradientAccumulation, GradientClip
    from unet_attention.diffusion import Denoiser, Process
    from unet_attention.training import AutoPrecision, FashionDDPM
    class Mine(FashionDDPM): pass
    def target(learn): learn.model.process = Process('eps')
    def schedule(learn): learn.model.process = Process('v', 'linear')
    def subclass(learn): learn.model.__class__ = type('Other', (type(learn.model),), {})
    def scale(learn): learn.model = Denoiser(learn.model, 'v', time_scale=2.)
    def batch(learn): learn.dls.train.bs,learn.dls.train.n = 8,48
    def add(*cbs): return lambda learn: learn.add_cbs(cbs)
    def weight(learn): learn.fashion_ddpm.weight = 'min_snr'
    def noising(learn):
        learn.remove_cb(learn.fashion_ddpm)
        learn.add_cb(Mine())
    return [('network', target), ('network', schedule), ('network', subclass), ('network', scale),
            ('batch_size', batch), ('noising', weight), ('noising', noising),
            *[('callbacks', add(o)) for o in (
                GradientAccumulation(8), GradientClip(.5), AutoPrecision('bf16'))]]

def test_another_fit(tmp_path):
    "A fit that computes something else is refused, and what was kept stays; cosmetics may differ"
    import torch
    from fastai.basics import Callback
    from fastai.callback.training import GradientAccumulation
    from unet_attention.checkpoints import Checkpoint, CheckpointError, History, checkpoints
    from unet_attention.training import Preview
    whole = fit(learner())
    with pytest.raises(SystemError): fit(learner(), cut_at(8), Checkpoint(tmp_path, every=3))
    names = [o.name for o in checkpoints(tmp_path)]
    for what,change in others():
        change(learn := learner())
        with pytest.raises(CheckpointError, match=f'go on as it began: .*{what} was'):
            fit(learn, Checkpoint(tmp_path, resume=True))
        assert [o.name for o in checkpoints(tmp_path)] == names
    more = [Preview(n=2, n_steps=1), History(), Callback()]
    resumed = fit(learner(cbs=more, path=tmp_path), Checkpoint(tmp_path, every=3, resume=True))
    assert all(torch.equal(a, b) for a,b in zip(whole, resumed))
    with pytest.raises(SystemError):
        fit(learner(cbs=GradientAccumulation(8)), cut_at(3), Checkpoint(tmp_path/'acc'))
    with pytest.raises(CheckpointError, match="n_acc': 8}} and is .*n_acc': 12"):
        fit(learner(cbs=GradientAccumulation(12)), Checkpoint(tmp_path/'acc', resume=True))

# ---- which files stay, and which fit goes on -----------------------------------------------------
@pytest.mark.parametrize('keep', [1, 2, 3])
def test_past_damaged_files(tmp_path, keep):
    "Damaged files do not displace new ones: after a resume past them, the newest saves are there"
    import torch
    from unet_attention.checkpoints import Checkpoint, checkpoints, read_checkpoint
    whole = fit(learner())
    with pytest.raises(SystemError): fit(learner(), cut_at(8), Checkpoint(tmp_path, 1, keep=4))
    for o in checkpoints(tmp_path)[1:]: o.write_bytes(o.read_bytes()[:-8])
    with pytest.warns(UserWarning, match='going on from'), pytest.raises(SystemError):
        fit(learner(), cut_at(6), Checkpoint(tmp_path, 1, keep=keep, resume=True))
    left = checkpoints(tmp_path)
    assert [int(o.stem[-2:]) for o in left] == [5, 6][-keep:]
    assert all(map(read_checkpoint, left))
    resumed = fit(learner(), Checkpoint(tmp_path, 1, keep=keep, resume=True))
    assert all(torch.equal(a, b) for a,b in zip(whole, resumed))
    assert len(checkpoints(tmp_path)) == keep

def test_damaged_files_stay_if_refused(tmp_path):
    "A fit that is refused removes nothing, damaged or not, and is not counted"
    import torch
    from unet_attention.checkpoints import Checkpoint, CheckpointError, checkpoints
    whole = fit(learner())
    with pytest.raises(SystemError): fit(learner(), cut_at(8), Checkpoint(tmp_path, every=1))
    (files := checkpoints(tmp_path))[-1].write_bytes(b'damaged')
    learn = learner()
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match='go on as it began'):
        learn.fit_one_cycle(3, 5e-3, cbs=Checkpoint(tmp_path, resume=True))
    assert checkpoints(tmp_path) == files
    with pytest.warns(UserWarning): resumed = fit(learn, Checkpoint(tmp_path, resume=True))
    assert all(torch.equal(a, b) for a,b in zip(whole, resumed)) and learn.fits == 1

def test_same_learner_goes_on(tmp_path):
    "The cell of a fit that was cut, run again: the same fit goes on, and the next is a new one"
    import torch
    from unet_attention.checkpoints import Checkpoint, CheckpointError, checkpoints
    def two(learn, **kw): return [fit(learn, Checkpoint(tmp_path/'whole', **kw)) for _ in range(2)]
    whole,learn = two(learner()),learner(cbs=(cut := cut_at(8)))
    def again(n=2):
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(n, 5e-3, cbs=Checkpoint(tmp_path/'cut', every=3, resume=True))
        return [p.data.clone() for p in learn.model.parameters()]
    with pytest.raises(SystemError): again()
    with pytest.raises(SystemError): again()                    # cut once more: still the first fit
    with pytest.raises(CheckpointError, match='n_epoch was 2 and is 3'): again(3)
    assert [o.stem for o in checkpoints(tmp_path/'cut')][-1] == 'fit_1_step_0000006'
    learn.remove_cb(cut)
    assert all(torch.equal(a, b) for a,b in zip(whole[0], again())) and learn.fits == 1
    assert all(torch.equal(a, b) for a,b in zip(whole[1], again())) and learn.fits == 2

def test_stopped_fit_goes_on(tmp_path):
    "As above for Ctrl-C within `stop_on_interrupt`; but other lines are another fit, and no error"
    import torch
    from fastai.basics import Callback
    from unet_attention.checkpoints import Checkpoint, StopOnInterrupt, checkpoints
    class Press(Callback):
        def after_pred(self):
            if self.train_iter == 7: self.stop_on_interrupt._note()
    whole = fit(learner())
    def stopped(name):
        learn = learner(cbs=[StopOnInterrupt(), press := Press()])
        with learn.stop_on_interrupt: fit(learn, Checkpoint(tmp_path/name))
        assert checkpoints(tmp_path/name)[-1].stem == 'fit_1_step_0000008'
        learn.remove_cb(press)
        return learn
    learn = stopped('same')
    with learn.stop_on_interrupt: resumed = fit(learn, Checkpoint(tmp_path/'same', resume=True))
    assert all(torch.equal(a, b) for a,b in zip(whole, resumed)) and learn.fits == 1
    learn = stopped('other')
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3, cbs=Checkpoint(tmp_path/'other', resume=True))
    assert learn.fits == 2 and len(learn.recorder.values) == 1
