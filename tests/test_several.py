"Several processes train one network as one would; accumulated gradients, and recomputed ones"
import os, signal, socket, subprocess, sys, time, traceback
from functools import partial
from pathlib import Path
import numpy as np, pytest

LIMIT = 90                                                   # seconds that a process may take

SMALL = ('--n-train 96 --n-valid 16 --sz 16 --bs 8 --nfs 8,16 --attention-heads 0,2 --n-blocks 1,1 '
         '--epochs 5 --n 1 --steps 1 --checkpoint-every 1').split()

# ---- the processes: `python test_several.py FOLDER NAME` -----------------------------------------
def start(f, n, port):
    "Fork `n` processes that call `f(rank)`, as torchrun would start them; 1 stands for none"
    pids = []
    for rank in range(n):
        pid = os.fork()
        if pid == 0:
            signal.alarm(LIMIT)
            if n > 1: os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n), LOCAL_WORLD_SIZE=str(n),
                MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
            code = 1
            try: f(rank); code = 0
            except BaseException: traceback.print_exc()
            finally: sys.stdout.flush(), sys.stderr.flush(), os._exit(code)
        pids.append(pid)
    return pids

def run(f, n=2):
    "The exit codes of `n` processes; those of a killed one is negative"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    pids = start(f, n, port)
    return [os.waitstatus_to_exitcode(os.waitpid(o, 0)[1]) for o in pids]

def learner(n_images, bs, cbs=(), drop_last=True, seed=0, **kwargs):
    "A small conditional network, with a learner"
    import torch
    from unet_attention.data import ImageTensors, image_dls
    from unet_attention.training import diffusion_learner
    from unet_attention.unet import ConditionalTAUnet
    torch.manual_seed(0)
    x = torch.randint(256, (n_images, 1, 8, 8), dtype=torch.uint8)
    x[:, 0, 0, 0] = torch.arange(n_images)                   # by which an image is known
    images = ImageTensors(x, torch.arange(n_images) % 3)
    dls = image_dls(images, images.select(range(0, n_images, 3)), bs=bs, device='cpu')
    dls.train.drop_last = drop_last
    torch.manual_seed(seed)
    model = ConditionalTAUnet(3, (16,16), (0,2), (1,1), color_channels=1, p_uncond=.3)
    return diffusion_learner(dls, model, cbs=list(cbs), **kwargs)

def fit(learn, n=3, lr=1e-3, **kwargs):
    from contextlib import nullcontext
    together = learn.distrib_ctx() if 'WORLD_SIZE' in os.environ else nullcontext()
    with together, learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n, lr, **kwargs)
    return learn

def keep(learn, file, **more):
    import torch
    r = learn.recorder
    torch.save(dict(weights=[p.detach() for p in learn.model.parameters()],
                    values=[[*o] for o in r.values], losses=[*map(float, r.losses)], **more), file)

WAYS = dict(whole={}, uneven=dict(n_images=37), dropped=dict(drop_last=True),
            accumulated=dict(accumulate=2))

def alike(folder, rank, world, name, n_images=44, drop_last=False, accumulate=1, seed=0):
    "Two epochs in batches of 12, with a note of what each held"
    from fastai.basics import Callback
    from fastai.callback.training import GradientAccumulation
    class Note(Callback):
        order = -2.5                                         # before and after the noise
        def before_fit(self): self.seen = []
        def before_batch(self):
            known = 127.5*(self.x[:, 0, 0, 0] + 1)
            if self.training: self.images = known.round().int().tolist()
        def after_pred(self):
            counts = not hasattr(self.dl, 'share') or self.dl.share(self.iter)[2] > 0
            n = len(self.y) if counts else 0                 # an image that another has as well
            noisy = self.xb[0][:n, 0, 1, 1]
            if self.training: self.seen.append(
                (self.epoch, self.images[:n], self.xb[1][:n], noisy, *(o[:n] for o in self.xb[3:])))
    bs = 12//world
    cbs = [Note()] + [GradientAccumulation(accumulate*bs)]*(accumulate > 1)
    learn = fit(learner(n_images, bs, cbs, drop_last, seed), 2)
    keep(learn, folder/f'{name}_{world}_{rank}', seen=learn.note.seen)

def diverge(folder, rank):
    "One process computes a NaN, in the third step"
    from fastai.basics import Callback
    from unet_attention.training import Diverged
    class Spoil(Callback):
        def after_pred(self):
            if self.training and self.train_iter == 2 and rank: self.learn.pred = self.pred*np.nan
    learn = learner(24, 4, [Spoil()])
    try: fit(learn)
    except Diverged as e:
        good = all(p.isfinite().all() for p in learn.model.parameters())
        wrapped = hasattr(learn.model, 'module') or hasattr(learn.dls.train, 'dl')
        (folder/f'diverged_{rank}').write_text(f'{e.step} {good} {wrapped}')

def written(folder, rank, die=False, resume=False, name='run', world=2):
    "All that writes, each process into a folder of its own; they may die in the second epoch"
    from fastai.basics import Callback
    from unet_attention.checkpoints import Checkpoint, History, SaveUnet
    from unet_attention.training import Preview
    class Die(Callback):
        order = 99
        def after_batch(self):
            if die and rank == 1 and self.train_iter == 9: os.kill(os.getpid(), signal.SIGKILL)
    out = folder/f'{name}_{rank}'
    cbs = [Die(), SaveUnet(out/'model'), History(), Preview(n=2, folder=out/'previews', n_steps=1),
           Checkpoint(out/'checkpoints', every=2, resume=resume)]
    learn = learner(44, 8//world, cbs, path=out, seed=3*rank)
    fit(learn)
    keep(learn, folder/f'{name}_{rank}_{resume}_{world}')

def stop(folder, rank):
    "One of the processes gets a signal"
    from fastai.basics import Callback
    from unet_attention.checkpoints import Checkpoint, StopOnInterrupt
    class Press(Callback):
        def after_pred(self):
            if rank and self.train_iter == 11: os.kill(os.getpid(), signal.SIGTERM)
    kept = Checkpoint(folder/f'stopped_{rank}')
    learn = learner(40, 2, [StopOnInterrupt(), Press(), kept])
    with learn.stop_on_interrupt: fit(learn, 10_000)
    (folder/f'stopped_at_{rank}').write_text(f'{learn.train_iter}')

def refuse(folder, rank):
    "What does not work among several processes says so in each of them"
    learn = learner(24, 4)
    said = []
    def attempt(f):
        try: f()
        except Exception as e: said.append(f'{type(e).__name__} {e}')
    with learn.distrib_ctx(), learn.no_bar(), learn.no_logging():
        attempt(lambda: learn.lr_find(num_it=3, show_plot=False))
        learn.dls.train.drop_last,learn.dls.train.n = True,7
        attempt(lambda: learn.fit(1))                       # fewer images than a batch has
    from unet_attention.training import on_first
    def fails(): raise ValueError(f'of process {rank}')
    attempt(lambda: on_first(fails))
    (folder/f'refused_{rank}').write_text('\n'.join(said))

def command(folder, rank):
    "The command in both processes, of which one is told to end; and once more, to the end"
    from threading import Thread
    from unet_attention.cli import train_command
    out = folder/'command'
    def press():
        while not [*out.glob('checkpoints/*_000000[2-9].*')]: time.sleep(.01)
        os.kill(os.getpid(), signal.SIGTERM)
    if rank: Thread(target=press, daemon=True).start()
    for options in (SMALL, ['--resume', '--n', '1', '--steps', '1']):
        train_command([*options, '--out', str(out)])
        ended = len((out/'history.csv').read_text().splitlines())
        print('ended', ended, sep='|')
        time.sleep(.2)

def one(folder, rank):
    for name,kw in WAYS.items(): alike(folder, rank, 1, name, **kw)

def two(folder, rank):
    for name,kw in WAYS.items(): alike(folder, rank, 2, name, **kw)
    alike(folder, rank, 2, 'unseeded', seed=rank)
    diverge(folder, rank)
    written(folder, rank, name='whole')
    stop(folder, rank)
    refuse(folder, rank)
    command(folder, rank)

def main(folder):
    import shutil, torch, accelerate, unet_attention.all  # noqa: F401       once, before the forks
    torch.set_num_threads(1)
    codes = dict(one=run(partial(one, folder), 1), two=run(partial(two, folder)),
                 three=run(partial(alike, folder, world=3, name='whole'), 3),
                 die=run(partial(written, folder, die=True)))
    shutil.copytree(folder/'run_0', folder/'fewer_0')
    codes['resume'] = run(partial(written, folder, resume=True))
    codes['fewer'] = run(partial(written, folder, resume=True, name='fewer', world=1), 1)
    for k,v in codes.items(): print('codes', k, *v, sep='|')

if __name__ == '__main__': main(Path(sys.argv[1]))

# ---- the tests -----------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def several(tmp_path_factory):
    "All runs of small networks, made once: their folder, and the exit codes of their processes"
    folder = tmp_path_factory.mktemp('several')
    cmd = [sys.executable, __file__, folder]
    r = subprocess.run(cmd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = [o.split('|') for o in r.stdout.splitlines() if o.startswith('codes|')]
    codes = {k: [*map(int, v)] for _,k,*v in lines}
    assert codes, r.stdout
    for k,v in codes.items(): assert not any(v) or k == 'die', r.stdout
    return folder, codes, r.stdout

def load(file):
    import torch
    return torch.load(file, weights_only=False)

def off(a, b): return max((x - y).abs().max().item() for x,y in zip(a, b, strict=True))

@pytest.mark.parametrize('name,world', [*((o, 2) for o in WAYS), ('whole', 3)])
def test_as_one(several, name, world):
    "Losses, metrics and weights are those of one process with the same batches, on every rank"
    one,*ranks = [load(several[0]/f'{name}_{w}_{r}') for w in (1, world) for r in range(w)]
    assert all(off(ranks[0]['weights'], o['weights']) == 0 for o in ranks)
    for o in ranks:
        assert off(one['weights'], o['weights']) < 1e-5
        for k in ('losses', 'values'): np.testing.assert_allclose(one[k], o[k], atol=1e-5)

@pytest.mark.parametrize('name,world', [*((o, 2) for o in WAYS), ('whole', 3)])
def test_shares(several, name, world):
    "Each image once an epoch; times, noise and dropped labels are the shares of one batch"
    import torch
    each = [load(several[0]/f'{name}_{w}_{r}') for w in (1, world) for r in range(w)]
    one,*ranks = [o['seen'] for o in each]
    for whole,*parts in zip(one, *ranks, strict=True):
        assert whole[1] == sum((o[1] for o in parts), [])
        for i in (2, 3): assert torch.equal(whole[i], torch.cat([o[i] for o in parts]))
    assert any(o[4].any() for r in ranks for o in r)            # some labels were dropped,
    assert any(a[4].tolist() != b[4].tolist() for a,b,*_ in zip(*ranks))        # and not the same
    n,left = (37 if name == 'uneven' else 44), name != 'dropped'
    for epoch in range(2):
        images = sorted(i for r in ranks for e,o,*_ in r if e == epoch for i in o)
        assert images == [*range(n)] if left else len({*images}) == len(images) == 36

def test_unseeded(several):
    "Processes that begin with other weights and random states are made equal to the first"
    a,b,right = [load(several[0]/o) for o in ('unseeded_2_0', 'unseeded_2_1', 'whole_2_0')]
    for o in (a, b): assert off(o['weights'], right['weights']) == 0

def test_diverged(several):
    "A NaN in one process ends all of them at the same step, with finite weights and no wrappers"
    assert [(several[0]/f'diverged_{r}').read_text() for r in (0, 1)] == ['2 True False']*2

def test_first_writes(several):
    "Only the first process has written anything"
    names = {str(o.relative_to(several[0]/'whole_0')) for o in (several[0]/'whole_0').rglob('*.*')}
    assert {'history.csv', 'model/config.json', 'previews/epoch_0002.png'} <= names
    assert any('checkpoints/fit_1_step' in o for o in names)
    assert not (several[0]/'whole_1').exists()

def test_killed(several):
    "A process is killed: the other ends with an error, and the run resumes, to the bit"
    folder,codes,_ = several
    assert codes['die'] == [1, -signal.SIGKILL] and codes['resume'] == [0, 0]
    whole,*again = [load(folder/o) for o in
                    ('whole_0_False_2', 'run_0_True_2', 'run_1_True_2', 'fewer_0_True_1')]
    for o in again[:2]: assert off(whole['weights'], o['weights']) == 0
    assert off(whole['weights'], again[2]['weights']) < 1e-5    # one process went on alone
    assert len((folder/'run_0'/'history.csv').read_text().splitlines()) == 4
    assert not (folder/'run_1').exists()

def test_stopped(several):
    "A signal to one process ends both after the same step, with a checkpoint of it"
    steps = [int((several[0]/f'stopped_at_{r}').read_text()) for r in (0, 1)]
    assert steps[0] == steps[1] and 12 <= steps[0] < 30
    names = [o.stem for o in (several[0]/'stopped_0').glob('fit*')]
    assert f'fit_1_step_{steps[0]:07}' in names

def test_refused(several):
    "An error in the first process is one in all; lr_find within distrib_ctx is refused, not hung"
    for r in (0, 1):
        said = (several[0]/f'refused_{r}').read_text()
        assert 'lr_find must come before distrib_ctx' in said
        assert 'ValueError of process 0' in said and 'dls.train must yield a batch' in said

# ---- the commands --------------------------------------------------------------------------------
def test_command(tmp_path):
    "torchrun ends the command with an error when a process is killed, and leaves none behind"
    code = 'from unet_attention.cli import train_command; train_command()'
    (tmp_path/'run.py').write_text(code)
    cmd = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    cmd += ['--', 'run.py', *SMALL, '--out', 'run']
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    p = subprocess.Popen(cmd, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.STDOUT)
    def ranks(): return {int(o.parent.name) for o in Path('/proc').glob('[0-9]*/cmdline')
                         if b'run.py' in read(o) and b'distributed' not in read(o)
                         and parent(o.parent) == p.pid}
    def read(file):
        try: return file.read_bytes()
        except OSError: return b''
    def parent(o): return int(read(o/'stat').rpartition(b')')[2].split()[1] or 0)
    try:
        until = time.time() + LIMIT
        while not (several := [*(tmp_path/'run').glob('checkpoints/*_000000[5-9].*')]):
            assert p.poll() is None and time.time() < until, p.stdout.read()
            time.sleep(.05)
        workers = ranks()
        assert len(workers) == 2 and several
        os.kill(max(workers), signal.SIGKILL)
        said,_ = p.communicate(timeout=LIMIT)
        assert p.returncode == 1 and 'Signal 9 (SIGKILL)' in said, said
        assert not any(Path(f'/proc/{o}').exists() for o in workers)
    finally: p.terminate(), p.wait(60)                       # torchrun ends what it has started

def test_command_resumes(several):
    "A signal to one process ends the command in both; resumed, it goes on; the first alone speaks"
    folder,_,said = several
    lines = (folder/'command'/'history.csv').read_text().splitlines()
    assert [o.split(',')[0] for o in lines] == ['epoch', *map(str, range(5))]
    assert 'Stopped early' in said and said.count('Wrote ') == 2
    assert int(said.split('ended|')[1].split()[0]) < 6

def test_accelerate_cpu_starts_one(monkeypatch):
    "`accelerate launch --cpu --num_processes 2` starts one process: an error, not half a training"
    from unet_attention.training import join_processes
    for k,v in dict(MASTER_ADDR='127.0.0.1', ACCELERATE_MIXED_PRECISION='no').items():
        monkeypatch.setenv(k, v)
    with pytest.raises(ValueError, match='several processes must be started by torchrun'):
        join_processes()

# ---- memory --------------------------------------------------------------------------------------
def accumulating(n_acc, bs, n=24, cbs=(), **kwargs):
    "A learner with times and noise that belong to the image, whatever batch it is in"
    import torch
    from fastai.callback.training import GradientAccumulation
    from unet_attention.data import ImageTensors, image_dls
    from unet_attention.diffusion import noisify, to_target
    from unet_attention.training import FashionDDPM, diffusion_learner
    from unet_attention.unet import TAUnet
    class Fixed(FashionDDPM):
        def before_batch(self):
            x_0 = self.x
            t,eps = (x_0[:, 0, 0, 0] + 1)/2,(1e3*x_0).sin()
            x_t,t,_ = noisify(x_0, t, eps, process=self.process)
            self.learn.xb,self.learn.yb = (x_t, t),(to_target(x_0, eps, t, self.process),)
    torch.manual_seed(0)
    images = ImageTensors(torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8))
    model = TAUnet((16,16), (0,2), (1,1), color_channels=1)
    cbs = [Fixed(), *[GradientAccumulation(n_acc)]*(n_acc > bs), *cbs]
    dls = image_dls(images, images, bs=bs, device='cpu')
    return diffusion_learner(dls, model, cbs=cbs, **kwargs)

def quiet(learn, **kwargs):
    import torch
    torch.manual_seed(1)                                     # of the order of the images
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2, **kwargs)
    return [o.detach() for o in learn.model.parameters()]

def test_accumulation():
    "Three batches of four make the steps of one of twelve; the averages move once a step"
    from fastai.basics import SGD, Callback
    class Steps(Callback):
        def after_step(self): self.n = self.learn.ema.n
    one,three = (accumulating(12, bs, cbs=[Steps()], opt_func=SGD) for bs in (12, 4))
    before = [p.detach().clone() for p in one.model.parameters()]
    assert off(quiet(one), quiet(three)) < 1e-6 < off(before, quiet(one))
    assert one.steps.n == three.steps.n == 4

def test_accumulation_resumes(tmp_path):
    "Cut between two batches of one step, training goes on with the gradients that there were"
    from fastai.basics import Callback
    from unet_attention.checkpoints import Checkpoint
    class Cut(Callback):
        order = 120
        def after_batch(self):
            if self.training and self.train_iter == 8: raise SystemError('cut')
    whole = quiet(accumulating(12, 4))
    with pytest.raises(SystemError):
        quiet(accumulating(12, 4, cbs=[Cut()]), cbs=Checkpoint(tmp_path, every=1))
    again = quiet(accumulating(12, 4), cbs=Checkpoint(tmp_path, every=1, resume=True))
    assert off(whole, again) == 0

def test_accumulation_diverges():
    "A NaN in the first of three batches ends training at their step, which is not taken"
    from fastai.basics import Callback
    from unet_attention.training import Diverged
    class Spoil(Callback):
        def after_pred(self):
            if self.training and self.train_iter == 3: self.learn.pred = self.pred*np.nan
    learn = accumulating(12, 4, cbs=[Spoil()])
    with pytest.raises(Diverged) as e: quiet(learn)
    assert e.value.step == 5 and all(o.isfinite().all() for o in learn.model.parameters())

def test_recompute_compiled():
    "enable_gradient_checkpointing changes no gradient, compiled too, and halves what is kept"
    import torch
    from unet_attention.unet import ConditionalTAUnet
    torch.manual_seed(0)
    model = ConditionalTAUnet(3, (16,16), (0,2), (2,1), color_channels=1, p_uncond=0.)
    for p in model.parameters():
        if not p.any(): torch.nn.init.normal_(p, std=.1)
    x,t,c = torch.randn(4, 1, 16, 16),torch.rand(4),torch.tensor([0,1,2,0])
    kept = []
    def grads(m):
        m.zero_grad()
        kept.append(0)
        def pack(o): kept[-1] += o.nbytes; return o
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda o: o): y = m(x, t, c)
        y.pow(2).mean().backward()
        return [p.grad.clone() for p in model.parameters()]
    plain = grads(model)
    again = grads(model.enable_gradient_checkpointing())
    compiled = grads(torch.compile(model, backend='aot_eager'))
    assert off(plain, again) < 1e-6 and off(plain, compiled) < 1e-6
    assert kept[1] < kept[0]/2
