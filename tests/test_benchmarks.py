"The scripts in `benchmarks/` run, tiny; how fast, no test can say"
import gzip, itertools, json, math, os, subprocess, sys, types
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
import numpy as np, pytest, torch

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'benchmarks'))
import baseline, equal, full_scale
full_scale.PEEK = 3                                                       # to save time
needs_diffusers = pytest.mark.skipif(not find_spec('diffusers'),
                                     reason="diffusers is not installed: pip install -e '.[bench]'")

def run(script, *args):
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(root)}
    args = [sys.executable, root/'benchmarks'/script, *map(str, args)]
    r = subprocess.run(args, capture_output=True, text=True, env=env)
    return r.returncode, r.stdout, r.stderr

def cells(out):
    "The cells of the tables in `out`, row by row"
    lines = [l for l in out.splitlines() if l.startswith('|')]
    return [[c.strip() for c in l.strip('|').split('|')] for l in lines]

@pytest.mark.parametrize('name', ['agree', 'minutes'])
def test_tables(name, capsys):
    "The table in README.md is what the script prints of the results that lie beside it"
    folder = root/'benchmarks'
    import_module(name).main(table=True, out=str(folder/'results'/f'{name}.jsonl'))
    lines,text = capsys.readouterr().out.splitlines(),(folder/'README.md').read_text()
    assert len(lines) > 2 and [l for l in lines if l not in text] == []

@needs_diffusers
def test_unet_speed(tmp_path):
    rivals = 'full,trimmed,single' + ',ddp'*bool(find_spec('denoising_diffusion_pytorch'))
    args = '--small', '--rivals', rivals
    rc, out, err = run('unet_speed.py', *args, '--json', tmp_path/'speed.json')
    assert rc == 0, err
    names = ['UNet2DModel', 'UNet2DModel trimmed', 'UNet2DModel 1 layer']
    if 'ddp' in rivals: names.append('denoising-diffusion-pytorch')
    rivals = [n + f for n in names for f in ('', ', channels_last')]
    rows = cells(out)
    ratios = [f'TAUnet / {n}' for n in rivals]
    assert [r[0] for r in rows] == ['model', '---', 'TAUnet', *rivals, 'ratio', '---', *ratios]
    n = len(rivals)
    assert [len(r) for r in rows] == [8]*(n + 3) + [6]*(n + 2) and all(c for r in rows for c in r)
    d = json.loads((tmp_path/'speed.json').read_text())
    for n,r in d['results'].items():
        assert len(r['train']) == len(r['sample']) == d['about']['rounds'], n
        assert min(r['train'] + r['sample'] + [r['memory'], r['share']]) > 0, n
    res = d['results']
    blocks = [res[n]['blocks'] for n in ('TAUnet', *rivals[::2])]
    assert blocks == ['3+1+3', '3+2+5', '3+1+3', '2+2+4', '4+2+5'][:len(blocks)]
    assert all(res[n]['flops'] == res[f'{n}, channels_last']['flops'] > 0 for n in rivals[::2])
    assert res['UNet2DModel trimmed']['flops'] < res['UNet2DModel']['flops']
    rc, out, err = run('unet_speed.py', '--small', '--cost')
    assert rc == 0 and [len(r) for r in cells(out)] == [4]*3, out + err

@needs_diffusers
def test_high_rate():
    args = '--small --bs 4 --steps 20 --of 40 --lrs 1e-3,1e-2'.split()
    rc, out, err = run('high_rate.py', *args)
    assert rc == 0, err
    rows = cells(out)
    names,lrs = ('TAUnet', 'UNet2DModel, channels_last'),('1e-3', '1e-2')
    assert [r[:3] for r in rows[2:]] == [[n, lr, '0'] for n in names for lr in lrs]
    assert all(len(r) == 13 and 0 < float(v) < 5 for r in rows[2:] for v in r[3:])
    low,high = rows[2][3:],rows[3][3:]
    assert low != high and float(high[-1]) < float(high[0])   # the rate arrives, the network learns
    rc, out, err = run('high_rate.py', '--small', '--contestants', 'nobody')
    assert rc == 1 and 'contestants must be among TAUnet' in err

def write_idx(file, a):
    head = bytes((0, 0, 8, a.ndim)) + np.array(a.shape, '>u4').tobytes()
    file.write_bytes(gzip.compress(head + a.astype('u1').tobytes()))

@pytest.fixture
def fashion(tmp_path):
    "A folder like Fashion-MNIST's, of noise"
    rng = np.random.default_rng(0)
    for part,n in (('train', 40), ('t10k', 20)):
        write_idx(tmp_path/f'{part}-images-idx3-ubyte.gz', rng.integers(0, 256, (n, 28, 28)))
        write_idx(tmp_path/f'{part}-labels-idx1-ubyte.gz', rng.integers(0, 10, n))
    return tmp_path

# --- full_scale.py

SMALL = dict(small=True, device='cpu', bs=8, n_train=16, epochs=2, sample_steps=3)

def weights(folder):
    from safetensors.torch import load_file
    return load_file(folder/'model'/'model.safetensors')

def table(folder):
    "The history, without the times"
    rows = [l.split(',') for l in (folder/'history.csv').read_text().splitlines()]
    return [r[:4] for r in rows]

@pytest.mark.parametrize('conditions,target,value_range', [
    ('original', 'eps', (-.5,.5)), ('ours', 'v', (-1,1)), ('baseline', 'eps', (-.5,.5))])
def test_full_scale(fashion, conditions, target, value_range):
    "Both kinds, two epochs of two steps: what is written, and that a second call repeats nothing"
    from unet_attention.saving import load_unet, read_config
    out = fashion/'out'
    kwargs = dict(SMALL, data=fashion, out=out, conditions=conditions, precision='bf16')
    full_scale.main(**kwargs)
    for k,name in (('unconditional', 'TAUnet'), ('conditional', 'ConditionalTAUnet')):
        d = out/f'{conditions}-{k}'
        t = json.loads((d/'timing.json').read_text())
        assert [t[o] for o in ('steps', 'epochs_done', 'target')] == [4, 2, target]
        assert t['value_range'] == list(value_range) and t['n_samples'] == 10
        assert list(t['fid']) == ['dpm_solver 20', 'ddim 50', 'ddpm 100']
        assert all(o > 1 for o in t['fid'].values())            # of networks that learned nothing
        right = t['class_consistency'].values()
        assert all(o is None if k == 'unconditional' else 0 <= o <= 1 for o in right)
        assert all(t[o] > 0 for o in ('valid_loss', 'eps_loss', 'eps_loss_at_1', 'sampling_steps_s',
                                      'epoch_seconds', 'train_images_s')), t
        assert len(table(d)) == 1 + 2 and float(table(d)[2][2]) == t['valid_loss']
        assert all((d/f).stat().st_size > 2000 for f in ('losses.png', 'samples.png', 'state.pt'))
        assert not list(d.glob('**/*new*'))
        if conditions == 'baseline': continue
        model = load_unet(d/'model')
        assert type(model).__name__ == name
        assert read_config(d/'model')['extra']['value_range'] == list(value_range)
        assert model.process.target == target
        p_uncond = .1 if conditions == 'ours' else 0
        assert k == 'unconditional' or model.config['p_uncond'] == p_uncond
    before = {f: f.stat().st_mtime_ns for f in out.glob('**/*')}
    full_scale.main(**kwargs)
    assert {f: f.stat().st_mtime_ns for f in out.glob('**/*')} == before
    full_scale.main(**dict(kwargs, kinds='conditional', samplers='ddim 2'))       # judged anew
    d = out/f'{conditions}-conditional'
    assert list(json.loads((d/'timing.json').read_text())['fid']) == ['ddim 2']
    assert len(table(d)) == 1 + 2

def test_full_scale_command(fashion):
    args = ('--small --device cpu --bs 8 --n-train 16 --epochs 1 --nfs 8,16 --sample-steps 2 '
            '--conditions baseline --kinds conditional --lr 1e-3').split()
    rc, log, err = run('full_scale.py', *args, '--data', fashion, '--out', fashion/'out')
    assert rc == 0 and 'eps_loss' in log and 'sampling_steps_s' in log, log + err
    t = json.loads((fashion/'out'/'baseline-conditional'/'timing.json').read_text())
    assert (t['nfs'], t['lr'], t['epochs_done']) == ([8,16], 1e-3, 1)

@pytest.mark.parametrize('conditions', ['ours', 'baseline'])
def test_full_scale_goes_on(fashion, conditions, monkeypatch):
    "Stopped by the clock after an epoch, broken off in the files of the next: as if in one go"
    kwargs = dict(SMALL, data=fashion, conditions=conditions, kinds='conditional', epochs=3)
    cut,straight = fashion/'cut',fashion/'straight'
    d,whole = (o/f'{conditions}-conditional' for o in (cut, straight))
    full_scale.main(out=straight, **kwargs)
    full_scale.main(out=cut, minutes=1e-6, **dict(kwargs, kinds='conditional,unconditional'))
    assert len(table(d)) == 1 + 1 and not (cut/f'{conditions}-unconditional').exists()
    assert all((d/f).exists() for f in ('losses.png', 'samples.png'))
    assert 'sampling_steps_s' not in json.loads((d/'timing.json').read_text())
    early = weights(d)
    def power_cut(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(full_scale, 'plot_losses', power_cut)
        with pytest.raises(KeyboardInterrupt): full_scale.main(out=cut, **kwargs)
    assert len(table(d)) == 1 + 2
    full_scale.main(out=cut, **kwargs)
    assert table(d) == table(whole) and len(table(d)) == 1 + 3
    a,b = weights(d),weights(whole)
    assert all(torch.equal(a[k], b[k]) for k in b)
    assert not all(torch.equal(early[k], b[k]) for k in b)
    with pytest.raises(SystemExit, match='other settings'):
        full_scale.main(out=cut, **dict(kwargs, lr=.1))

def test_full_scale_keeps_the_last_weights(fashion):
    "The state holds the weights of training beside their optimizer, the model's file the averages"
    kwargs = dict(SMALL, conditions='ours', kinds='unconditional')
    full_scale.main(out=fashion/'out', data=fashion, **kwargs)
    d = fashion/'out'/'ours-unconditional'
    state,model = torch.load(d/'state.pt')['loop'],weights(d)
    assert not all(torch.equal(state['model'][k], model[k]) for k in model)
    assert all(torch.equal(a, model[k]) for a,k in zip(state['avg'], state['model']))

def test_full_scale_refuses(fashion, capsys):
    for args,says in ((dict(precision='fp16'), 'precision must be'),
                      (dict(kinds='both'), 'kinds must be'),
                      (dict(conditions='ours,theirs'), 'conditions must be'),
                      (dict(samplers='ddim'), 'a sampler must be like'),
                      (dict(samplers='ddim 2 clip=1'), 'a sampler must be like'),
                      (dict(epochs=0), 'epochs must be at least 1, got 0'),
                      (dict(n_samples=1), 'n_samples must be at least 4')):
        with pytest.raises(SystemExit, match=says): full_scale.main(device='cpu', **args)
    with pytest.raises(SystemExit):                   # it says so, and leaves no folder
        full_scale.main(out=fashion/'out', data=fashion, lr=1e30, conditions='ours', **SMALL)
    assert capsys.readouterr().out.count('choose a lower --lr') == 2
    assert not (fashion/'out').exists()

# --- the loop of equal.py, which full_scale.py runs too

@pytest.mark.parametrize('kind,conditions', [
    ('conditional', 'ours'), ('unconditional', 'original')])
def test_loop_is_train(fashion, kind, conditions):
    "The same losses in each step, the same validation, as `train` of the tutorials"
    from fastai.callback.core import Callback
    from fastai.optimizer import OptimWrapper
    from unet_attention.training import train
    class Watch(Callback):
        order = 70
        def before_fit(self): self.losses,self.valid = [],[]
        def after_batch(self):
            if self.training: self.losses.append(self.loss.item())
        def after_epoch(self): self.valid.append(self.recorder.values[-1][1:])
    cond,labels = full_scale.CONDITIONS[conditions],kind == 'conditional'
    def begin():
        torch.manual_seed(3)
        model = full_scale.new_model(kind, conditions, full_scale.SMALL)
        dls = equal.fashion_on('cpu', bs=8, path=fashion, value_range=cond['value_range'])
        torch.manual_seed(4)
        return model, dls
    model,dls = begin()
    watch = Watch()
    adamw = partial(OptimWrapper, opt=torch.optim.AdamW, betas=(.9, .99))
    kwargs = dict(opt_func=adamw) if cond['opt'] == 'adamw' else {}
    train(model, dls, 5e-3, 2, [watch], conditional=labels, ema=cond['ema'], **kwargs)
    ours,dls = begin()
    steps,losses = 2*len(dls.train),[]
    loop = equal.Loop(ours, steps, 5e-3, cond['target'], cond['ema'], opt=cond['opt'],
                      labels=labels)
    for valid in watch.valid:
        losses += loop.train(dls.train).tolist()
        with loop.averaged(): assert loop.validate(dls.valid) == pytest.approx(valid, rel=1e-5)
    assert len(losses) == 10 and losses == pytest.approx(watch.losses, rel=1e-5)
    with loop.averaged():
        for a,b in zip(ours.parameters(), model.parameters()): assert (a - b).abs().max() < 1e-4

def test_validate_at_one_range():
    "A network for half the pixels' range is judged as its twin for the whole range is"
    def f(x, t): return x*torch.sin(3*t)[:, None, None, None] + .1
    class Net(torch.nn.Module):
        def __init__(self, r):
            super().__init__()
            self.r,self.p = r,torch.nn.Parameter(torch.zeros(1))
        def forward(self, x, t):          # at the twin's time for this signal-to-noise ratio
            a,s = torch.cos(t*math.pi/2),torch.sin(t*math.pi/2)
            k = ((a*self.r)**2 + s**2).sqrt()
            return f(x/k[:, None, None, None], torch.atan2(s, a*self.r)*2/math.pi)
    x = torch.rand(40, 1, 8, 8)*2 - 1
    def eps_loss(r, at):
        loop = equal.Loop(Net(r), 1, 1e-3, 'eps', labels=False)
        return loop.validate([(r*x, None)], at)[1]
    assert eps_loss(.5, .5) == pytest.approx(eps_loss(1., 1.), rel=1e-4)
    assert eps_loss(.5, 1.) != pytest.approx(eps_loss(1., 1.), rel=1e-2)

# --- baseline.py

def test_baseline_parameters():
    model = equal.build('baseline', 'half')
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.03e6, rel=.01)

def test_baseline_class():
    "The class reaches the middle and the decoder, not the encoder"
    torch.manual_seed(0)
    model,seen = equal.build('baseline', 'tiny').eval(),[]
    blocks = [m for m in model.modules() if isinstance(m, baseline.Res)]
    for m in blocks: m.register_forward_hook(lambda m, args, out: seen.append(out))
    x,t = torch.randn(2, 1, 32, 32),torch.rand(2)
    outs = [model(x, t, c) for c in (torch.tensor([1,2]), torch.tensor([3,4]), None)]
    n = len(blocks)
    assert n == 3 + 1 + 3 and len(seen) == 3*n and outs[0].shape == x.shape
    for i,j in ((0, n), (n, 2*n)):
        same = [torch.equal(a, b) for a,b in zip(seen[i:i+n], seen[j:j+n])]
        assert same == [True]*3 + [False]*4

def test_baseline_attention():
    "After each block on the way down, at the levels with heads, and nowhere else"
    model = equal.build('baseline', 'half')
    attention = [n for n,m in model.named_modules() if isinstance(m, baseline.Attention)]
    assert attention == ['attns.1.0', 'attns.1.1', 'attns.2.0']

def test_renoise():
    "A network that knows the one image there is finds it; labels and generator arrive"
    m = torch.rand(2, 1, 8, 8)
    class Net(torch.nn.Module):
        def forward(self, x, t, c):
            a = torch.cos(t*math.pi/2)[:, None, None, None]
            return (x - a*m[c])/(1 - a**2).sqrt()
    c = torch.tensor([0,1,1])
    g = torch.Generator().manual_seed(0)
    x,xs = baseline.renoise(Net(), (3,1,8,8), n_steps=5, c=c, generator=g)
    assert len(xs) == 5 and (x - m[c]).abs().max() < 1e-4

# --- equal.py

@pytest.mark.parametrize('size', equal.SIZES)
def test_equal_operations(size):
    theirs,ours = (equal.flops(equal.build(n, size)) for n in ('baseline', 'ours, their widths'))
    assert ours == pytest.approx(theirs, rel=.05)

def test_equal(fashion, capsys):
    "A line a run, none repeated, and the tables"
    out,names = fashion/'equal.jsonl',['ours', 'baseline']
    args = '--small --lrs 1e-3,1e-2 --seeds 0,1 --contestants ours;baseline'.split()
    rc, log, err = run('equal.py', *args, '--data', fashion, '--out', out)
    assert rc == 0, log + err
    ds = equal.records(out)
    runs = [(d['name'], d['lr'], d['seed']) for d in ds]
    assert runs == [(n, lr, s) for n in names for lr in (1e-3, 1e-2) for s in (0, 1)]
    assert all(d['images'] == 16 and len(d['losses']) == 2 and 0 < d['eps_loss'] < 5 for d in ds)
    assert len({d['eps_loss'] for d in ds}) == 8
    kwargs = dict(small=True, data=fashion, out=out, contestants='ours;baseline')
    equal.main(lrs='1e-3', seeds='0', equal='operations', **kwargs)
    new, = equal.records(out)[8:]               # the baseline's run is there, ours sees more images
    assert new['name'] == 'ours' and new['images'] == 8*len(new['losses']) > 16
    ops = [d['images']*d['flops'] for d in (new, ds[-1])]
    assert abs(ops[0] - ops[1]) < 8*new['flops']                            # less than a batch away
    capsys.readouterr()
    equal.main(table=True, out=out)
    rows = cells(capsys.readouterr().out)
    best,rest = rows[:5],rows[5:]
    assert all(r[0] == equal.HEAD for r in (best, rest)) and {len(r) for r in rows} == {12}
    assert [r[:3] for r in rest[2:]] == [
        *([n, '16', lr] for n in sorted(names) for lr in ('0.001', '0.01')),
        ['ours', str(new['images']), '0.001']]
    v = [d['eps_loss'] for d in ds[4:6]]
    assert rest[2][6] == f'{np.mean(v):.4f} ± {np.std(v, ddof=1):.4f}' and rest[2][10] == '2'
    assert best[2] == min(rest[2:4], key=lambda r: min(r[6:8])) and '±' not in rest[-1][6]

def test_equal_samples(fashion, capsys):
    "With `--samplers` a run is judged by its samples, too, from averaged weights in its own range"
    kwargs = dict(small=True, data=fashion, lrs='1e-3', seeds='0,1', contestants='ours')
    for pixels in (1., .5):
        equal.main(out=fashion/'e.jsonl', samplers='ddim 2, dpm_solver 3', pixels=pixels, **kwargs)
    ds = equal.records(fashion/'e.jsonl')
    assert [list(d['samples']) for d in ds] == [['ddim 2', 'dpm_solver 3']]*4
    fids = [f for d in ds for f,_ in d['samples'].values()]
    assert len(set(fids)) == 8 and all(1 < f < 500 for f in fids)
    assert all(0 <= c <= 1 for d in ds for _,c in d['samples'].values())
    capsys.readouterr()
    equal.main(table=True, out=fashion/'e.jsonl')
    out = capsys.readouterr().out
    assert out.count('ddim 2: ') == 2*2*2 and 'samplers ddim 2, dpm_solver 3' in out
    f,c = equal.fid_and_consistency(*equal.reference(fashion).reference(10, torch.arange(10)),
                                    fashion)
    assert equal.floor(10, fashion) == (f, c)

def test_times_of():
    "The times of another schedule, or of other pixels, at the same ratios of signal to noise"
    t = torch.linspace(.05, .95, 10)
    for schedule in ('cosine', 'linear', 'flow'):
        for r in (1., .5):
            p = equal.Process('v', schedule)
            u = equal.times_of(t, p, r)
            want = equal.Process().logsnr(t)
            assert torch.allclose(p.logsnr(u) + 2*math.log(r), want, atol=1e-3)

def test_formulations(fashion, capsys):
    "Each combination trains, samples and is a line of the table; none is repeated"
    import formulations
    kwargs = dict(small=True, data=fashion, out=fashion/'f.jsonl', samplers='ddim 2', seeds='0')
    formulations.main(**kwargs)
    ds = equal.records(fashion/'f.jsonl')
    assert [(d['target'], d['schedule'], d['weight']) for d in ds] == formulations.PLAN
    assert len({d['eps_loss'] for d in ds}) == len(ds)
    formulations.main(**kwargs)
    assert len(equal.records(fashion/'f.jsonl')) == len(ds)
    capsys.readouterr()
    formulations.main(table=True, out=fashion/'f.jsonl')
    rows = cells(capsys.readouterr().out)
    assert rows[0][4] == 'FID, ddim 2' and [tuple(r[:3]) for r in rows[2:]] == formulations.PLAN
    assert rows[2][3] == f"{ds[0]['eps_loss']:.4f}"
    with pytest.raises(SystemExit, match='only must be among'): formulations.main(only='v none')

def test_agree(tmp_path, capsys):
    "The reader tells pairs that agree from pairs that do not; one run, and its lines of the table"
    import agree
    x,c = agree.pairs(300, torch.Generator().manual_seed(0))
    assert x.shape == (300, 3, 64, 64) and x.min() == -1 and x.max() == 1
    mixed = torch.cat([x[..., :32], x.roll(1, 0)[..., 32:]], -1)
    empty = torch.cat([x[..., :32], 0*x[..., 32:] - 1], -1)
    for gap in agree.GAPS:
        assert set(agree.agreement(x, c)[gap].values()) == {1.}
        assert agree.agreement(x + .1*torch.randn_like(x), c)[gap] == {'two': 1., 'colour': 1.}
        res = agree.agreement(mixed, c)[gap]
        assert res['two'] == 1 and res['colour'] < .35
        assert agree.agreement(empty, c)[gap]['two'] == 0
    far = {k: agree.reach(agree.build(k)) for k in agree.NETS}
    assert far['none, pixel norm'] < max(agree.GAPS) and sorted(far.values())[1] == 63
    kwargs = dict(out=tmp_path/'a.jsonl', n=8, bs=4, n_samples=6, seeds='0', sheets=tmp_path)
    agree.main(only='none;middle, pixel norm', **kwargs)
    agree.main(only='none', **kwargs)
    assert (tmp_path/'none, seed 0.png').stat().st_size > 0
    assert [d['name'] for d in equal.records(tmp_path/'a.jsonl')] == ['none', 'middle, pixel norm']
    capsys.readouterr()
    agree.main(table=True, out=tmp_path/'a.jsonl')
    rows = cells(capsys.readouterr().out)
    assert rows[0] == agree.HEAD and [r[:2] for r in rows[2:]] == [
        [n, str(g)] for n in ('none', 'middle, pixel norm') for g in agree.GAPS]
    with pytest.raises(SystemExit, match='only must be among'): agree.main(only='all')

def test_equal_refuses():
    for args,says in ((dict(contestants='ours;theirs'), 'contestants must be among ours'),
                      (dict(equal='hours'), 'equal must be among'),
                      (dict(size='big'), 'size must be among')):
        with pytest.raises(SystemExit, match=says): equal.main(**args)

@pytest.mark.parametrize('name,module', [
    ('UNet2DModel', 'diffusers'), ('denoising-diffusion-pytorch', 'denoising_diffusion_pytorch')])
def test_equal_peers(name, module):
    "The networks of other libraries take the class and the time"
    pytest.importorskip(module, reason="pip install -e '.[bench]'")
    model = equal.build(name, 'tiny').eval()
    x,t,c = torch.randn(2, 1, 32, 32),torch.rand(2),torch.tensor([1,2])
    y = model(x, t, c)
    assert y.shape == x.shape
    assert not torch.equal(y, model(x, t, c + 1)) and not torch.equal(y, model(x, t/2, c))

def test_variants(tmp_path):
    "Each kind of change trains; a run that the file holds is not repeated"
    names = ('as it is;shortcut of x, AdamW, rate 5e-3;QK norm;skip from conv_in;weights held;'
             'AdamW, rate 5e-3')
    args = ('--net', 'small', '--n', 32, '--bs', 16, '--seeds', '0', '--only', names,
            '--out', tmp_path/'v.jsonl')
    rc, out, err = run('variants.py', *args)
    assert rc == 0, err
    assert [l.split('  ')[0] for l in out.splitlines()] == names.split(';')
    rows = [json.loads(l) for l in (tmp_path/'v.jsonl').read_text().splitlines()]
    assert len({r['eps_loss'][0] for r in rows}) == 6                    # six changes, six results
    rc, out, err = run('variants.py', *args)
    assert rc == 0 and out == '', out + err
    rc, out, err = run('variants.py', '--table-only', '--out', tmp_path/'v.jsonl')
    assert rc == 0 and out.count('| small, 32 images |') == 6, out + err
    with open(tmp_path/'v.jsonl', 'a') as f: f.write('{"net": "sma')           # killed meanwhile
    rc, out, err = run('variants.py', '--table-only', '--out', tmp_path/'v.jsonl')
    assert rc == 1 and 'line 7 that is cut off' in err
    rc, out, err = run('variants.py', '--cost', '--net', 'small')
    assert rc == 0 and '| skip from conv_in |' in out and '| weights held |' not in out, err
    rc, out, err = run('variants.py', '--only', 'nothing')
    assert rc == 1 and 'only must be among as it is' in err

def test_operators():
    rc, out, err = run('operators.py', '--small', '--bs', 2)
    lines = [l for l in out.splitlines() if l.count('|') == 4 and l[2] != '-' and 'calls' not in l]
    rows = {l.split('|')[1].strip(): int(l.split('|')[2]) for l in lines}
    assert rc == 0 and rows['convolutions'] > 10, out + err
    assert rows['all'] == sum(v for k,v in rows.items() if k != 'all'), out + err

def test_minutes(fashion, tmp_path, monkeypatch, capsys):
    "Judged at each of the minutes, goes on where it stood, and saves a model each time"
    import minutes
    from unet_attention.saving import load_unet
    monkeypatch.setattr(equal, 'judged', lambda *args: {'dpm_solver 3': (1., .5)})
    monkeypatch.setattr(minutes, 'judged', equal.judged)
    tick = itertools.count(0, .6).__next__                       # a clock that every look moves on
    monkeypatch.setattr(minutes, 'time', types.SimpleNamespace(perf_counter=tick))
    out,args = tmp_path/'runs',dict(data=str(fashion), nfs='8', blocks='1', heads='0', bs=8,
                                    n_train=16, n_valid=8, target='flow', samplers='dpm_solver 3')
    minutes.main(out=str(out), minutes='.05,.1', seeds='0,1', **args)
    minutes.main(out=str(out), minutes='.1,.15', seeds='0', **args)
    rows = equal.records(out/'0'/'minutes.jsonl')
    assert [r['minutes'] for r in rows] == [.05, .1, .15]
    assert [r['seconds'] >= 60*r['minutes'] for r in rows] == [True]*3
    images = [r['images'] for r in rows]
    assert images == sorted(set(images)) and all(i % 8 == 0 for i in images), images
    minutes.main(out=str(out), minutes='.02', seeds='0', **args)      # 2 s: a whole minute ago
    assert len(equal.records(out/'0'/'minutes.jsonl')) == 3
    with pytest.raises(SystemExit, match='minutes must be at least'):
        minutes.main(out=str(out), minutes='-1', seeds='0', **args)
    models = [load_unet(out/'0'/f'{m:g}') for m in (.05, .15)]
    assert models[0].process.target == 'flow'
    a,b = (m.conv_in.weight for m in models)
    assert not torch.equal(a, b)
    with pytest.raises(SystemExit, match='holds a run with other settings'):
        minutes.main(out=str(out), minutes='1', seeds='0', **dict(args, bs=4))
    capsys.readouterr()
    for o in (out, out/'0'/'minutes.jsonl'): minutes.main(table=True, out=str(o))
    rows = cells(capsys.readouterr().out)
    assert rows[0] == minutes.HEAD and [r[-1] for r in rows if r[1][0] == '0'] == [*'221', *'111']

def test_images_of_the_lesson(fashion):
    "Enlarged images fill the side, and no time is smaller than asked for"
    a,b = (equal.fashion_on('cpu', bs=8, path=fashion, n_train=16, n_valid=8, resized=r)
           for r in (False, True))
    x,y = a.train.dataset.x,b.train.dataset.x
    assert x.shape == y.shape and y.dtype is torch.uint8 and not x[:, :, :2].any()
    assert y[:, :, :2].any() and abs(y.float().mean()/x.float().mean()*(28/32)**2 - 1) < .02
    names = sampler_names('ddim 2 guidance=2 interval=.2,.8, ddpm 3;heun 2')
    assert names == ['ddim', 'ddpm', 'heun']
    net = equal.ours(nfs=(8,), n_blocks=(1,), attention_heads=(0,), color_channels=1)
    seen = []
    net.register_forward_pre_hook(lambda m, args: seen.append(args[1].min().item()))
    loop = equal.Loop(net, 4, 1e-3, t_min=.5)
    loop.train(b.train)
    loop.validate(b.valid)
    assert len(seen) == 3 and min(seen) == .5

def sampler_names(text): return [o.split()[0] for o in equal.sampler_list(text)]

def test_minutes_averages():
    "The averages are PowerEMA's after a resume too, and the last weights come back after a look"
    import minutes
    def new():
        torch.manual_seed(0)
        return minutes.Steady(equal.ours(nfs=(8,), n_blocks=(1,), attention_heads=(0,),
                                         color_channels=1), 1e-3, 2, 2, opt='muon')
    batch = torch.randn(4, 1, 8, 8),torch.tensor([0,1,2,3])
    one,two = new(),new()
    torch.manual_seed(1); one.train([batch]*4)
    torch.manual_seed(1); two.train([batch]*2)
    state = two.state_dict()
    three = new()
    three.load_state_dict(state)
    three.train([batch]*2)
    for a,b in zip(one.emas.avgs[0], three.emas.avgs[0]): assert torch.equal(a, b)
    last = [w.clone() for w in one.weights]
    with one.averaged():
        assert all(torch.equal(a, w) for a,w in zip(one.emas.avgs[0], one.weights))
    assert all(torch.equal(a, w) for a,w in zip(last, one.weights)) and one.avg is None

def test_minutes_rate():
    "The rate climbs, stays, and falls as one over the root of the steps; or it never falls"
    import minutes
    def rates(stays):
        loop = minutes.Steady(torch.nn.Linear(1, 1), 8., 10, stays)
        for loop.i in (0, 10, 20, 80, 320): yield loop.cycle(1., 8., 0.),loop.cycle(.95, .85, .95)
    assert [*zip(*rates(20))] == [(1, 8, 8, 4, 2), (.95, .85, .85, .85, .85)]
    assert [*zip(*rates(0))][0] == (1, 8, 8, 8, 8)

@pytest.mark.skipif(not os.environ.get('FASHION_MNIST_PATH'), reason='needs FASHION_MNIST_PATH')
def test_steps(tmp_path, monkeypatch, capsys):
    "Evaluations are counted, with guidance and without; sets that the file holds are not repeated"
    import steps
    from unet_attention.saving import save_unet
    from unet_attention.unet import ConditionalTAUnet
    save_unet(ConditionalTAUnet(10, (8,), (0,), (1,), color_channels=1), tmp_path/'model', sz=32)
    out = tmp_path/'steps.jsonl'
    monkeypatch.setattr(steps, 'get_fashion_dls', partial(steps.get_fashion_dls, n_train=2000))
    only = ['photographs', 'ddim 3 eta=1', 'heun 2 times=uniform',
            'dpm_solver 2 guidance=2 interval=0,1', 'dpm_solver 4 guidance=2 interval=.6,1']
    args = dict(out=str(out), n=20, model=str(tmp_path/'model'), seeds='0,1')
    for i in range(2): steps.main(only=';'.join(only), **args)
    rows = equal.records(out)
    assert [r['spec'] for r in rows] == [*only, *only[1:]]
    assert [r['evaluations'] for r in rows] == [0, *[3, 2, 4, 7]*2]       # heun took Euler's step
    assert rows[0]['fid'] < min(r['fid'] for r in rows[1:]) and rows[0]['consistency'] > .7
    assert rows[1]['fid'] != rows[5]['fid']
    capsys.readouterr()
    steps.main(table=True, out=str(out))
    table = cells(capsys.readouterr().out)
    assert table[0] == steps.HEAD and [r[0] for r in table[2:]] == only
    with open(out, 'a') as f: f.write(json.dumps(dict(rows[-1], model='another', fid=99.)) + '\n')
    steps.main(table=True, out=str(out))
    assert len(cells(capsys.readouterr().out)) == len(table) + 1        # not as one more seed
    for spec in steps.PLAN: assert isinstance(steps.parsed(spec)['n_steps'], int)
    for spec in ('dpm 10', 'ddim ten', 'ddpm', 'ddpm 2 eta=1', 'ddim 2 eta'):
        with pytest.raises(SystemExit, match='a sampler must be like'): steps.main(only=spec)
