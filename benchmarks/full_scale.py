"""The full-scale runs on Fashion-MNIST, each of which goes on where it was cut short.

    python benchmarks/full_scale.py --data FOLDER --precision bf16 --graphs --out runs/full
    python benchmarks/full_scale.py --data FOLDER --minutes 9     # again, until all is done

README.md beside this file says what is written and how to read it."""
import json, math, os, platform, sys, time, torch
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from fastcore.script import call_parse
from safetensors.torch import save_file
from baseline import RECIPE, Baseline, renoise
from equal import Loop, at_least, fashion_on, judged, sampler_list, seconds
from unet_attention.images import show_images
from unet_attention.sampling import ddpm
from unet_attention.saving import save_unet
from unet_attention.unet import ConditionalTAUnet, TAUnet

FASHION = dict(nfs=(32,64,128,256,384), n_blocks=(3,2,1,1,1,1), attention_heads=(0,8,8,8,8,8),
               color_channels=1)
SMALL = dict(nfs=(8,8,16), n_blocks=(2,1,1,1), attention_heads=(0,2,2,2), color_channels=1)
CONDITIONS = dict(
    original=dict(value_range=(-.5,.5), target='eps', ema=None, p_uncond=0., adam_eps=1e-8,
                  opt='adamw'),
    ours=dict(value_range=(-1.,1.), target='v', ema=.995, p_uncond=.1, adam_eps=1e-8, opt='muon'),
    baseline=RECIPE)
KINDS = dict(unconditional=1e-3, conditional=4e-3)      # and their highest learning rates
PEEK = 25                                               # steps of the samples after each epoch
T_MIN = 2/math.pi*math.acos(.999**.5)                   # where `abar` is 0.999

# --- the library's models, samplers and files

def new_model(kind, conditions, cfg):
    "The network of a run"
    cond,n = CONDITIONS[conditions],10 if kind == 'conditional' else None
    cfg = dict(cfg, target=cond['target'])
    if conditions == 'baseline': return Baseline(**cfg, n_classes=n)
    return ConditionalTAUnet(n, **cfg, p_uncond=cond['p_uncond']) if n else TAUnet(**cfg)

def sample(net, kind, conditions, n, steps, device, seed):
    "`n` images, of the first `n` classes if conditional; the same noise for the same seed"
    c = torch.arange(n, device=device) if kind == 'conditional' else None
    sampler,g = (renoise if conditions == 'baseline' else ddpm),torch.Generator(device)
    kwargs = dict(c=c, generator=g.manual_seed(seed), progress=False)
    return sampler(net, (n,1,32,32), device, steps, **kwargs)[0].float()

def save_model(model, folder, **extra):
    "What `load_unet` reads; of the baseline, the weights alone"
    if not isinstance(model, Baseline): return save_unet(model, folder, **extra)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder/'model.safetensors') as f:
        save_file({k: v.contiguous() for k,v in model.state_dict().items()}, f)

# --- what a run writes

@contextmanager
def replacing(file):
    "A name to write to; it becomes `file` when all is written"
    tmp = file.with_stem(f'{file.stem}-new')
    yield tmp
    os.replace(tmp, file)

def save_figure(fig, file):
    with replacing(file) as f: fig.savefig(f, dpi=80, bbox_inches='tight')
    plt.close(fig)

def plot_losses(losses, history, target, title, file):
    fig,ax = plt.subplots(figsize=(7,4))
    ends = [len(losses)*h['epoch']/len(history) for h in history]
    ax.plot(losses, lw=.3, alpha=.6, label='training, each step')
    for k,label in (('train_loss', 'training, mean of an epoch'), ('valid_loss', 'validation')):
        ax.plot(ends, [h[k] for h in history], 'o-', ms=3, label=label)
    ax.set(xlabel='training steps', ylabel=f'mean squared error of {target}', yscale='log')
    ax.set_title(title, fontsize=10)
    ax.legend()
    save_figure(fig, file)

def write(out, s, loop, images, vocab):
    "Everything: the state `s` of the run, from which it goes on, and what people read"
    st,history = s['settings'],s['history']
    title = f"{st['kind']} (conditions: {st['conditions']}), epoch {len(history)} of {st['epochs']}"
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out/'state.pt') as f: torch.save(dict(s, loop=loop.state_dict()), f)
    with replacing(out/'history.csv') as f:
        rows = [history[0], *(h.values() for h in history)]
        f.write_text(''.join(','.join(map(str, r)) + '\n' for r in rows), encoding='utf-8')
    with replacing(out/'timing.json') as f:
        res = dict(st, steps=loop.i, epochs_done=len(history), torch=torch.__version__,
                   devices=sorted({h['device'] for h in history}),
                   train_seconds=[h['train_seconds'] for h in history], **s['scores'])
        f.write_text(json.dumps(res, indent=2) + '\n', encoding='utf-8')
    plot_losses(s['losses'], history, st['target'], title, out/'losses.png')
    fig = show_images(images, value_range=st['value_range'], titles=vocab, title=title)
    save_figure(fig, out/'samples.png')
    facts = dict(value_range=list(st['value_range']), classes=vocab, sz=32)
    with loop.averaged(): save_model(loop.model, out/'model', **facts)

# --- a run

class Clock:
    "Time is up when one more step, as long as the longest so far, would not fit"
    def __init__(self, minutes):
        self.end = math.inf if minutes is None else time.perf_counter() + 60*minutes
        self.longest = 0

    def late(self): return self.longest and time.perf_counter() + self.longest > self.end

    @contextmanager
    def step(self):
        start = time.perf_counter()
        yield
        self.longest = max(self.longest, time.perf_counter() - start)

def train_epoch(loop, dls, s):
    "An epoch and its validation, added to the state `s` of the run"
    losses,secs = seconds(lambda: loop.train(dls.train).tolist(), loop.device)
    if not all(map(math.isfinite, losses)): raise FloatingPointError(
        'the loss is no longer finite, and this epoch was not written: choose a lower --lr')
    with loop.averaged(): valid_loss,eps_loss = loop.validate(dls.valid)
    cuda = loop.device.type == 'cuda'
    device = torch.cuda.get_device_name() if cuda else f'CPU {platform.machine()}'
    epoch,n = len(s['history']) + 1,len(losses)
    s['losses'] += losses
    images = n*dls.train.bs if dls.train.drop_last else len(dls.train.dataset)
    s['history'].append(dict(epoch=epoch, train_loss=sum(losses)/n, valid_loss=valid_loss,
                             eps_loss=eps_loss, train_seconds=secs, images_s=images/secs,
                             device=device))

def scores(loop, dls, s, steps_s, samplers, n_samples, data):
    "What a finished run is judged by"
    pixels = s['settings']['value_range'][1]
    with loop.averaged():
        valid_loss,eps_loss = loop.validate(dls.valid)
        at_1,at_half = (loop.validate(dls.valid, r=pixels/p)[1] for p in (1, .5))
    made = {}                       # resized images are others than those the classifier knows
    if not s['settings']['resized']:
        with loop.amp(): made = judged(loop, samplers, n_samples, pixels, data)
    return dict(valid_loss=valid_loss, eps_loss=eps_loss, eps_loss_at_1=at_1,
                eps_loss_at_half=at_half, sampling_steps_s=steps_s, samplers=samplers,
                n_samples=n_samples, fid={k: v[0] for k,v in made.items()},
                class_consistency={k: v[1] for k,v in made.items()},
                epoch_seconds=median(h['train_seconds'] for h in s['history']),
                train_images_s=median(h['images_s'] for h in s['history']))

def run(kind, conditions, cfg, out, clock, data, lr, bs, epochs, n_train, n_valid, device,
        precision, mode, sample_steps, samplers, n_samples, seed, resized):
    "Train, sample and write to the folder `out`, from where it stands"
    cond,lr = CONDITIONS[conditions],KINDS[kind] if lr is None else lr
    settings = dict(kind=kind, conditions=conditions, **cond, lr=lr, bs=bs, epochs=epochs,
                    n_train=n_train, precision=precision, compile=mode, seed=seed,
                    resized=resized, **cfg)
    torch.manual_seed(seed)
    dls = fashion_on(device, bs=bs, path=data, n_train=n_train, n_valid=n_valid,
                     value_range=cond['value_range'], resized=resized)
    loop = Loop(new_model(kind, conditions, cfg).to(device), epochs*len(dls.train), lr,
                cond['target'], cond['ema'], cond['adam_eps'], cond['opt'], kind == 'conditional',
                precision, mode, t_min=T_MIN if resized else 0.)
    s = dict(settings=settings, history=[], losses=[], scores={})
    if (out/'state.pt').exists():
        s = torch.load(out/'state.pt', map_location='cpu')
        if s['settings'] != settings: sys.exit(f'{out} holds a run with other settings: choose '
                                               f"another --out, or these: {s['settings']}")
        loop.load_state_dict(s.pop('loop'))
        asked = dict(samplers=samplers, n_samples=n_samples)
        if not asked.items() <= s['scores'].items(): s['scores'] = {}      # others were asked for
    def images(net, n):
        with loop.averaged(), loop.amp(): return sample(net, kind, conditions, 10, n, device, seed)
    while not s['scores']:
        n = len(s['history'])
        if clock.late(): return print(f'{out}: time is up after {n} of {epochs} epochs')
        with clock.step():
            if n < epochs:
                train_epoch(loop, dls, s)
                x = images(loop.model, PEEK)
            else:
                images(loop.net, 2)                              # compiles, and warms up
                x,secs = seconds(lambda: images(loop.net, sample_steps), device)
                s['scores'] = scores(loop, dls, s, sample_steps/secs, samplers, n_samples, data)
            write(out, s, loop, x, dls.train.dataset.vocab if loop.labels else None)
        facts = s['scores'] or s['history'][-1]
        numbers = (f'{k} {v:.4g}' for k,v in facts.items() if isinstance(v, (int, float)))
        print(f'{out}:', *numbers, *(f'{k} {facts[k]}' for k in ('fid',) if k in facts), flush=True)

def check(device, precision, **lists):
    "Stop at wrong arguments before anything long begins"
    if precision not in ('fp32', 'bf16'):
        sys.exit(f"precision must be 'fp32' or 'bf16', got {precision!r}")
    for (name,v),known in zip(lists.items(), (CONDITIONS, KINDS)):
        if wrong := set(v.split(',')) - set(known): sys.exit(
            f"{name} must be one or more of {', '.join(known)}, got {', '.join(sorted(wrong))}")

@call_parse
def main(
    data:str=None, # Folder with the four gzipped IDX files; else FASHION_MNIST_PATH, else the hub
    out:str='runs/full_scale', # Folder to write to, one folder a run
    device:str='cuda', # 'cuda' or 'cpu'
    precision:str='fp32', # 'fp32' or 'bf16'
    compile:bool=False, # `torch.compile` the model
    graphs:bool=False, # The same with CUDA graphs, `mode='reduce-overhead'`
    conditions:str='original,ours', # Which conditions, of original, ours and baseline
    kinds:str='unconditional,conditional', # Which models
    nfs:str=None, # Channels of the levels, as in 16,32,64,128,192
    lr:float=None, # Highest learning rate, in place of 1e-3 (unconditional) and 4e-3 (conditional)
    bs:int=512, # Images in a batch
    epochs:int=25, # Passes over the training set, which one cycle of the learning rate takes
    n_train:int=None, # For a rehearsal: so many training images
    minutes:float=None, # Stop in time; the same command goes on
    sample_steps:int=100, # Network evaluations in the final sampling
    samplers:str='dpm_solver 20, ddim 50, ddpm 100', # Each scored by FID and class consistency
    n_samples:int=1000, # So many by each
    seed:int=42, # Of the weights and the noise
    resized:bool=False, # Images enlarged, not padded, and `abar` at most 0.999, as in the lesson
    small:bool=False # A tiny configuration, to see that everything runs
):
    "Train the Fashion-MNIST models at full scale"
    broken = 0
    check(device, precision, conditions=conditions, kinds=kinds)
    sampler_list(samplers), at_least(4, n_samples=n_samples)
    at_least(1, epochs=epochs, bs=bs, sample_steps=sample_steps, n_train=n_train)
    cfg,n_valid,clock = (SMALL,bs,Clock(minutes)) if small else (FASHION,None,Clock(minutes))
    if small: n_samples = min(n_samples, 10)
    if nfs: cfg = dict(cfg, nfs=tuple(map(int, nfs.split(','))))
    if precision == 'bf16': torch.set_float32_matmul_precision('high')      # Muon's products: TF32
    mode = 'reduce-overhead' if graphs else 'default' if compile else None
    for c in conditions.split(','):
        for k in kinds.split(','):
            try: run(k, c, cfg, Path(out)/f'{c}-{k}', clock, data, lr, bs, epochs, n_train, n_valid,
                     device, precision, mode, sample_steps, samplers, n_samples, seed, resized)
            except FloatingPointError as e: broken = print(f'{out}/{c}-{k}: {e}') or 1
    if broken: sys.exit(1)
