"""Ours, the lesson's network and diffusers' `UNet2DModel`, at equal images and at equal operations.

    python benchmarks/equal.py --data /usr/share/datasets/fashion-mnist --out equal.jsonl
    python benchmarks/equal.py --data ... --equal operations --out equal.jsonl
    python benchmarks/equal.py --table --out equal.jsonl

README.md beside this file says what is compared and how."""
import json, math, re, sys, time, torch, torch.nn.functional as F
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from inspect import signature
from itertools import islice
from pathlib import Path
from statistics import mean, stdev
from fastcore.script import call_parse
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from baseline import Baseline
from unet_attention.averages import ema_update
from unet_attention.data import ImageTensors
from unet_attention.diffusion import Denoiser, Process, noisify, to_target
from unet_attention.evaluation import ImageEval, class_consistency, fid, load_classifier
from unet_attention.sampling import SAMPLERS, generate
from unet_attention.sources import get_fashion_dls
from unet_attention.training import Muon, orthogonalise, stratified_times
from unet_attention.unet import ConditionalTAUnet

# --- the data and the process, as the library has them

class Resident(ImageTensors):
    "Images on a device, out of which it cuts a batch without being waited for"
    def __init__(self, data, device):
        super().__init__(data.x.to(device), data.y, data.vocab, condition=data.condition.to(device))

    def __getitem__(self, i):
        if self.x.is_cuda: i = i.pin_memory().to(self.x.device, non_blocking=True)
        return super().__getitem__(i)

def enlarged(x):
    "The 28x28 pixels inside the border, interpolated to the whole side"
    return F.interpolate(x[:, :, 2:-2, 2:-2].float(), x.shape[2:], mode='bilinear').round().byte()

def fashion_on(device, resized=False, **kwargs):
    "Fashion-MNIST whose bytes all lie on the device, so that no batch waits to be copied there"
    dls = get_fashion_dls(device=device, **kwargs)
    for dl in dls:
        if resized: dl.dataset.x = enlarged(dl.dataset.x)
        dl.dataset = Resident(dl.dataset, device)
    return dls

def noised(x_0, t, process, generator=None):
    "`x_t`, and what the network should predict for it"
    x_t,_,eps = noisify(x_0, t, generator=generator, process=process)
    return x_t, to_target(x_0, eps, t, process)

def eps_error(error, t, process):
    "The error of the predicted noise, from that of the prediction, `(b, c, h, w)`"
    return process.solve(error, 0., *process.factors(t, error))[1]

def times_of(t, process, r=1.):
    """The times at which images in [-r, r] have the signal-to-noise ratios that those in [-1, 1]
    have at the times `t` of the cosine schedule"""
    if r == 1 and process.schedule == 'cosine': return t
    a,s = (getattr(Process(), k)(t.double()) for k in ('alpha', 'sigma'))
    return process.time(2*(a/(r*s)).log()).to(t)

# --- the loop

def seconds(f, device):
    "What `f` returns, and the seconds until the device is done with it"
    sync = torch.cuda.synchronize if torch.device(device).type == 'cuda' else lambda: None
    sync()
    start,res = time.perf_counter(),f()
    sync()
    return res, time.perf_counter() - start

class Loop:
    "What the library's `train` does, as a plain loop that never waits for the device"
    def __init__(self,
        model, # On its device; called as `model(x_t, t)`, or with labels as `model(x_t, t, c)`
        steps:int, # Of the whole cycle
        lr:float, # Highest learning rate of the cycle
        target:str='v', # What the network predicts, 'eps', 'v', 'x_0' or 'flow'
        ema:float|None=.995, # Decay of the averaged weights; `None` for none
        eps:float=1e-8, # Of AdamW
        opt:str='adamw', # The optimiser, 'adamw' or 'muon'
        labels:bool=True, # Give the model the labels?
        precision:str='fp32', # 'fp32' or 'bf16'
        mode:str|None=None, # Of `torch.compile`; `None` for eager
        schedule:str='cosine', # How noise is mixed in, 'cosine', 'linear' or 'flow'
        weight:str|None=None, # A name in `LOSS_WEIGHTS`; `None` for the target's squared error
        t_min:float=0. # No time is smaller
    ):
        self.model,self.steps,self.lr,self.weight,self.t_min = model,steps,lr,weight,t_min
        self.process = Process(target, schedule)
        self.ema,self.labels,self.bf16 = ema,labels,precision == 'bf16'
        self.device = next(model.parameters()).device
        self.net = torch.compile(model, mode=mode, dynamic=False) if mode else model
        tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
        make = (partial(Muon, tables=tables) if opt == 'muon' else
                partial(torch.optim.AdamW, fused=True))
        self.opt = make(model.parameters(), lr, eps=eps, weight_decay=.01)
        if mode and opt == 'muon':
            self.opt.orthogonalise = torch.compile(orthogonalise, mode=mode, dynamic=False)
        floats = [b for b in model.buffers() if b.is_floating_point()]      # BatchNorm's statistics
        self.weights,self.i = [o.data for o in (*model.parameters(), *floats)],0
        self.avg = None if ema is None else [w.clone() for w in self.weights]

    def cycle(self, first, middle, last):
        "fastai's one cycle: along a cosine for a quarter of the steps, along another for the rest"
        p = self.i/self.steps
        a,b,p = (first, middle, p/.25) if p < .25 else (middle, last, (p - .25)/.75)
        return a + (1 - math.cos(math.pi*p))*(b - a)/2

    def amp(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def predict(self, net, x_t, t, c):
        with self.amp(): return net(x_t, t, *([c] if self.labels else [])).float()

    def loss(self, pred, y, t):
        if self.weight in (None, self.process.target): return F.mse_loss(pred, y)
        return ((pred - y).pow(2).mean((1,2,3))*self.process.loss_weight(self.weight, t)).mean()

    def step(self, x_0, c):
        "One step; the loss, on the device"
        torch.compiler.cudagraph_mark_step_begin()
        for g in self.opt.param_groups:
            g['lr'] = self.cycle(self.lr/25, self.lr, self.lr/1e5)
            g['betas'] = self.cycle(.95, .85, .95),.99
        t = stratified_times(len(x_0), self.device).clamp(min=self.t_min)
        x_t,y = noised(x_0, t, self.process)
        loss = self.loss(self.predict(self.net, x_t, t, c), y, t)
        loss.backward()
        self.opt.step()
        self.opt.zero_grad()
        if self.avg: ema_update(self.avg, self.weights, self.i, self.ema)
        self.i += 1
        return loss.detach()

    def train(self, batches):
        "A step for each batch; the losses, on the device"
        self.model.train()
        return torch.stack([self.step(*b) for b in batches])

    @torch.no_grad()
    def validate(self, batches, r=1.):
        """Mean squared errors of the prediction and of the noise, same times and noise each time;
        `r` is half the pixels' range, the ratios of signal to noise those of `times_of`"""
        self.model.eval()
        g = torch.Generator(self.device).manual_seed(42)
        total,n = torch.zeros(2, device=self.device),0
        for x_0,c in batches:
            t = torch.rand(len(x_0), generator=g, device=self.device)
            t = times_of(t.clamp(min=self.t_min), self.process, r)
            x_t,y = noised(x_0, t, self.process, g)
            error = self.predict(self.model, x_t, t, c) - y                      # (b, c, h, w)
            each = error,eps_error(error, t, self.process)
            total += torch.stack([o.pow(2).mean((1,2,3)).sum() for o in each])
            n += len(x_0)
        return (total/n).tolist()

    @contextmanager
    def averaged(self):
        "The averaged weights, if there are any, in place of the last ones"
        if not self.avg: return (yield)
        last = [w.clone() for w in self.weights]
        torch._foreach_copy_(self.weights, self.avg)
        try: yield
        finally: torch._foreach_copy_(self.weights, last)

    def state_dict(self):
        "The last weights, the averages, the optimizer, the place in the cycle, the random states"
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == 'cuda' else []
        return dict(model=self.model.state_dict(), opt=self.opt.state_dict(), avg=self.avg,
                    i=self.i, rng=[torch.get_rng_state(), *cuda])

    def load_state_dict(self, s):
        self.model.load_state_dict(s['model'])
        self.opt.load_state_dict(s['opt'])
        if self.avg: torch._foreach_copy_(self.avg, [a.to(self.device) for a in s['avg']])
        self.i = s['i']
        torch.set_rng_state(s['rng'][0])
        if self.device.type == 'cuda': torch.cuda.set_rng_state(s['rng'][1], self.device)

# --- samples

@cache
def reference(data):
    "What samples are judged by: Fashion-MNIST, the package's classifier, the real images' features"
    dls,judge = get_fashion_dls(bs=8, path=data),load_classifier('fashion')
    train,test = dls.train.dataset,dls.valid.dataset
    return ImageEval(train.x, test.x, judge.features, judge, test.condition)

def fid_and_consistency(x, c, data):
    "FID, and the share of images that the classifier takes for what was asked for"
    ev = reference(data)
    right = None if c is None else class_consistency(ev.classifier, x, c)
    return fid(ev.embed(x), ev.f_train),right

def floor(n, data):
    "The same of real images that were not trained on, as many of each class"
    return fid_and_consistency(*reference(data).reference(n, torch.arange(n) % 10), data)

def value(text):
    "A number, numbers with commas between them, or a name"
    try: numbers = [float(o) for o in text.split(',')]
    except ValueError: return text
    return tuple(numbers) if ',' in text else numbers[0]

def parsed(spec):
    "'dpm_solver 10 eta=1' as keywords of `generate`"
    name,steps,*more = *spec.split(),'',''
    more = [o.partition('=') for o in more if o]
    known = signature(SAMPLERS[name]).parameters if name in SAMPLERS else ()
    own = 'times', 'eta', 'variance', 'guidance', 'interval'
    right = steps.isdigit() and all(v and k in known and k in own for k,_,v in more)
    if not (known and right): sys.exit(
        f"a sampler must be like 'dpm_solver 10' or 'ddim 20 eta=1', got {spec!r}")
    return dict(sampler=name, n_steps=int(steps), **{k: value(v) for k,_,v in more})

def sampler_list(text):
    "The samplers of 'ddim 50, dpm_solver 10', or with ';' between; each must be known"
    res = [o.strip() for o in re.split(', |;', text)]  # not at the comma of 'interval=.2,.8'
    for o in res: parsed(o)
    return res

def at_least(least, /, **options):
    "Stop unless each of these options that is given is at least `least`"
    for k,v in options.items():
        if v is not None and not v >= least: sys.exit(f'{k} must be at least {least}, got {v}')

def judged(loop, samplers, n, pixels, data):
    "`n` samples by each of `samplers`, as in 'ddim 50, dpm_solver 10', a tenth of each class"
    model = Denoiser(loop.model, loop.process.target, loop.process.schedule)
    c = torch.arange(n) % 10 if loop.labels else None
    bs = 500 if loop.device.type == 'cuda' else 50
    kw = dict(c=c, bs=bs, value_range=(-pixels, pixels), clip=pixels, device=loop.device,
              progress=False)
    def score(**how): return fid_and_consistency(generate(model, n, **how, **kw), c, data)
    with loop.averaged(): return {s: score(**parsed(s)) for s in sampler_list(samplers)}

# --- the contestants

class Diffusers(nn.Module):
    "diffusers' network, called as ours are; it counts time in thousandths"
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t, c): return self.net(x, 1000*t, c, return_dict=False)[0]

def unet2d(**cfg):
    "The `UNet2DModel` of unet_speed.py, with a class embedding"
    from unet_speed import rival            # only where it takes part is diffusers needed
    net = rival(**cfg)
    net.class_embedding = nn.Embedding(10, net.time_embedding.linear_2.out_features)
    return Diffusers(net).to(memory_format=torch.channels_last)

class DenoisingDiffusion(nn.Module):
    "The class-conditional network of denoising-diffusion-pytorch, called as ours are"
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t, c): return self.net(x, 1000*t, c, cond_drop_prob=0.)

def ddp(nfs, color_channels, **_):
    "Two blocks a level and linear attention at each, as it comes: it offers no choice of either"
    from denoising_diffusion_pytorch.classifier_free_guidance import Unet
    net = Unet(nfs[0], 10, dim_mults=[n//nfs[0] for n in nfs], channels=color_channels)
    return DenoisingDiffusion(net).to(memory_format=torch.channels_last)

def ours(**cfg): return ConditionalTAUnet(10, **cfg, p_uncond=0.)
def baseline(**cfg): return Baseline(**cfg, n_classes=10)

SIZES = dict(   # the channels, those with which ours has the baseline's operations, blocks, heads
    tiny=((8,16,24), (12,28), (2,1,1,1), (0,2,2,2)),
    small=((16,32,64), (28,56), (1,1,1,1), (0,4,4,4)),
    half=((16,32,64,96), (28,48,96), (3,2,1,1,1), (0,4,4,4,4)),
    full=((32,64,128,256,384), (48,128,192,384), (3,2,1,1,1,1), (0,8,8,8,8,8)))
CONTESTANTS = {'ours': (ours, 0), 'ours, their widths': (ours, 1), 'baseline': (baseline, 0),
               'UNet2DModel': (unet2d, 0),
               'denoising-diffusion-pytorch': (ddp, 0)}             # and which list of channels

def build(name, size):
    "The network of a contestant, conditioned on the ten classes of Fashion-MNIST"
    make,i = CONTESTANTS[name]
    nfs,(blocks,heads) = SIZES[size][i],SIZES[size][2:]
    n = len(nfs) + 1                                                # the levels and the middle
    return make(nfs=nfs, n_blocks=blocks[:n], attention_heads=heads[:n], color_channels=1)

def flops(model):
    "Operations of the forward pass for one image of 32x32, two for each multiply-add"
    args = torch.zeros(1, 1, 32, 32),torch.zeros(1),torch.zeros(1, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter: model.eval()(*args)
    return counter.get_total_flops()

# --- a run

def chained(dl):
    "The batches of epoch after epoch"
    while True: yield from dl

def run(name, size, images, n_valid, pool, bs, lr, seed, target, pixels, ema, adam_eps, opt,
        precision, samplers, n_samples, compile, device, data, schedule='cosine', weight=None):
    "Train a contestant on `images` images; what came out"
    steps = images//bs
    torch.manual_seed(seed)
    model = build(name, size).to(device)
    dls = fashion_on(device, bs=bs, path=data, value_range=(-pixels, pixels),
                     n_train=min(images, pool), n_valid=n_valid)
    loop = Loop(model, steps, lr, target, ema or None, adam_eps, opt, True, precision,
                'default' if compile else None, schedule, weight)
    torch.manual_seed(1000 + seed)              # the same batches and the same noise for everybody
    batches = islice(chained(dls.train), steps)
    losses,secs = seconds(lambda: loop.train(batches).tolist(), device)
    last = loop.validate(dls.valid, pixels)[1]
    with loop.averaged(): averaged = loop.validate(dls.valid, pixels)[1]
    made = judged(loop, samplers, n_samples, pixels, data) if samplers else {}
    return dict(eps_loss=averaged, eps_loss_last=last, seconds=secs, samples=made,
                losses=[round(o, 4) for o in losses])

def records(out):
    "The runs in a file, a line each; none if it is not there"
    lines = Path(out).read_text().splitlines() if Path(out).exists() else []
    res = []
    for i,l in enumerate(lines, 1):
        try: res.append(json.loads(l))
        except ValueError: sys.exit(f'{out} has a line {i} that is cut off: take it out')
    return res

OUTCOME = set('seed seconds losses flops parameters eps_loss eps_loss_last samples evaluations fid '
              'consistency precision recall agreement'.split())

def alike(runs, *shown, but=()):
    "Runs that differ in their seed alone, by the values of the settings `shown`"
    rows = {}
    for d in runs:
        rest = [(k, v) for k,v in sorted(d.items())
                if v is not None and k not in OUTCOME | {*but}]
        rows.setdefault((tuple(d[k] for k in shown), json.dumps(rest)), []).append(d)
    return [(k, ds) for (k,_),ds in rows.items()]

# --- the tables

def spread(xs, fmt='.4f'):
    "Mean and standard deviation"
    return f'{mean(xs):{fmt}}' + (f" ± {stdev(xs):{fmt.lstrip('+')}}" if len(xs) > 1 else '')

HEAD = ['model', 'images', 'lr', 'parameters, M', 'GFLOP an image', 'training, TFLOP',
        'eps_loss, averages', 'eps_loss, last weights', 'FID', 'class consistency', 'runs',
        'seconds']

def samples_of(ds, i, fmt):
    "FID (0) or class consistency (1) of each sampler, mean and standard deviation over the runs"
    return '; '.join(f'{k}: {spread([d["samples"][k][i] for d in ds], fmt)}'
                     for k in ds[0].get('samples', {}))

def row(ds):
    "A line of the table: the runs `ds`, which differ in their seeds alone"
    d = ds[0]
    return [d['name'], d['images'], f"{d['lr']:g}", f"{d['parameters']/1e6:.2f}",
            f"{d['flops']/1e9:.3g}", f"{3*d['flops']*d['images']/1e12:.3g}",
            spread([o['eps_loss'] for o in ds]), spread([o['eps_loss_last'] for o in ds]),
            samples_of(ds, 0, '.2f'), samples_of(ds, 1, '.3f'), len(ds),
            f"{mean(o['seconds'] for o in ds):.0f}"]

def score(ds):
    "The better mean of averages and last weights; a run that broke down counts as the worst"
    ms = [mean(o[k] for o in ds) for k in ('eps_loss', 'eps_loss_last')]
    return min(math.inf if math.isnan(m) else m for m in ms)

def markdown(rows):
    lines = [HEAD, ['---', *['---:']*(len(HEAD) - 1)], *rows]
    return '\n'.join('| ' + ' | '.join(map(str, l)) + ' |' for l in lines)

def print_table(out):
    "For each setting in the file: every contestant at its best rate, then all rates"
    settings = {}
    for d in records(out):
        rows = settings.setdefault(', '.join(f'{k} {d[k]}' for k in SETTING if d.get(k)), {})
        rows.setdefault((d['images'], d['name'], d['lr']), []).append(d)
    for name,rows in settings.items():
        best = {}
        for key,ds in sorted(rows.items()):
            if key[:2] not in best or score(ds) < score(best[key[:2]]): best[key[:2]] = ds
        print(f'{name}\n\nEach at its best rate:\n\n{markdown(map(row, best.values()))}\n')
        print(f'All rates:\n\n{markdown(row(ds) for _,ds in sorted(rows.items()))}\n')

SETTING = 'size bs target pixels ema opt adam_eps precision n_valid pool samplers n_samples'.split()

@call_parse
def main(
    data:str=None, # Folder with the four gzipped IDX files; else FASHION_MNIST_PATH, else the hub
    out:str='equal.jsonl', # A line a run; runs that it holds are not repeated
    contestants:str=';'.join(CONTESTANTS), # Names, with ';' between them
    size:str='half', # 'half', 'full' (the lesson's) or 'tiny'
    equal:str='images', # 'images', or 'operations': the images that the baseline's operations allow
    n:int=9600, # Training images, those of the baseline with `--equal operations`
    n_valid:int=2000, # Test images
    pool:int=60_000, # Different training images; whoever takes more sees them again
    lrs:str='1e-3,3e-3', # Highest rates of the cycle
    seeds:str='0,1,2', # Of the weights, the order and the noise
    bs:int=128, # Images in a batch
    target:str='v', # What everybody predicts, 'v' or 'eps'
    pixels:float=1., # Everybody trains on pixels in [-pixels, pixels]; all are judged for [-1, 1]
    ema:float=.995, # Decay of the averaged weights; 0 for none
    adam_eps:float=1e-8, # AdamW's
    opt:str='adamw', # Everybody's optimiser, 'adamw' or 'muon'
    bf16:bool=False, # Forward pass in bfloat16
    samplers:str='', # Also score samples by these: 'dpm_solver 10, ddim 50'
    n_samples:int=1000, # So many by each
    compile:bool=False, # `torch.compile` the networks
    device:str='cpu', # 'cuda' or 'cpu'
    small:bool=False, # The tiny networks on a few images, to see that everything runs
    table:bool=False # Print the tables of `out` and do nothing else
):
    "Train each contestant at each rate and seed, and append what came out to a file"
    if table: return print_table(out)
    if small: size,n,n_valid,pool,bs,n_samples = 'tiny',16,8,32,8,10
    if samplers: sampler_list(samplers)
    names = contestants.split(';')
    for k,v,known in (('contestants', names, CONTESTANTS), ('size', [size], SIZES),
                      ('target', [target], ('v', 'eps')), ('opt', [opt], ('adamw', 'muon')),
                      ('equal', [equal], ('images', 'operations'))):
        if wrong := set(v) - set(known):
            sys.exit(f"{k} must be among {'; '.join(known)}, got {'; '.join(sorted(wrong))}")
    setting = dict(size=size, bs=bs, target=target, pixels=pixels, ema=ema, adam_eps=adam_eps,
                   opt=opt, precision='bf16' if bf16 else 'fp32', n_valid=n_valid, pool=pool,
                   samplers=samplers, n_samples=n_samples if samplers else 0)
    base = flops(build('baseline', size))
    for name in names:
        model = build(name, size)
        ops = flops(model)
        images = n if equal == 'images' else round(n*base/ops)
        for lr in map(float, lrs.split(',')):
            for seed in map(int, seeds.split(',')):
                d = dict(setting, name=name, images=max(1, images//bs)*bs, lr=lr, seed=seed)
                done = records(out)
                if any(d.items() <= o.items() for o in done): continue
                res = run(**d, compile=compile, device=device, data=data)
                d.update(parameters=sum(p.numel() for p in model.parameters()), flops=ops, **res)
                with open(out, 'a') as f: f.write(json.dumps(d) + '\n')
                print(f'{name:18} {d["images"]} images, rate {lr:g}, seed {seed}: eps_loss '
                      f'{d["eps_loss"]:.4f}, with the last weights {d["eps_loss_last"]:.4f}, '
                      f'{d["seconds"]:.0f} s {samples_of([d], 0, ".2f")}', flush=True)
