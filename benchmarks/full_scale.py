"""The full-scale runs on Fashion-MNIST: unconditional and conditional, under the original conditions and under ours.

    python benchmarks/full_scale.py --data /usr/share/datasets/fashion-mnist --device cuda --precision bf16 --compile --out runs/full
    python benchmarks/full_scale.py --device cuda --throughput

README.md beside this file says what is written and how to read it."""
import matplotlib
matplotlib.use('Agg')
import platform, sys, time, torch, torch.nn.functional as F, matplotlib.pyplot as plt
from contextlib import nullcontext
from json import dumps
from pathlib import Path
from statistics import median
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.callback.progress import CSVLogger
from fastai.learner import Callback
from fastcore.script import call_parse
from unet_attention.data import get_fashion_dls, show_images
from unet_attention.diffusion import noisify
from unet_attention.training import conditional_train, train
from unet_attention.unet import ConditionalTAUnet, TAUnet, save_unet

FASHION = dict(nfs=(32,64,128,256,384), n_blocks=(3,2,1,1,1,1), attention_heads=(0,8,8,8,8,8), color_channels=1)
SMALL = dict(nfs=(8,16), n_blocks=(1,1,1), attention_heads=(0,2,2), color_channels=1)
CONDITIONS = dict(original=dict(lims=(-.5,.5), target='eps', ema=None, p_uncond=0.),
                  ours=dict(lims=(-1.,1.), target='v', ema=.995, p_uncond=.1))
KINDS = dict(unconditional=1e-3, conditional=4e-3)      # and their learning rates

def sync(device):
    if torch.device(device).type == 'cuda': torch.cuda.synchronize()

def autocast(device, precision):
    return torch.autocast(torch.device(device).type, torch.bfloat16) if precision == 'bf16' else nullcontext()

def device_name(device): return torch.cuda.get_device_name() if torch.device(device).type == 'cuda' else f'CPU, {platform.machine()}'

def new_model(kind, cfg, p_uncond):
    return TAUnet(**cfg) if kind == 'unconditional' else ConditionalTAUnet(10, **cfg, p_uncond=p_uncond)

class Watch(Callback):
    "Keeps the loss of each step, the loss of each validation, and the seconds that each epoch trained, without validation"
    order = 55     # after the Recorder
    def __init__(self): self.losses,self.valid,self.seconds,self.steps = [],[],[],0
    def _now(self):
        sync(self.dls.device)
        return time.perf_counter()
    def before_train(self): self.start = self._now()
    def after_train(self): self.seconds.append(self._now() - self.start)
    def after_step(self): self.steps += 1
    def after_epoch(self): self.valid.append((self.steps, self.recorder.values[-1][1]))
    def after_fit(self): self.losses = [float(o) for o in self.recorder.losses]

    @property
    def images_s(self):
        "Images a second, without the first epoch if there is another: it compiles and warms up"
        secs,per_epoch = self.seconds[1:] or self.seconds,self.steps/len(self.seconds)
        return per_epoch*len(secs)*self.dls.bs/sum(secs)

def plot_losses(watch, target, title, file):
    fig,ax = plt.subplots(figsize=(7,4))
    ax.plot(watch.losses, label='training, running mean')
    ax.plot(*zip(*watch.valid), 'o-', label='validation')
    ax.set(xlabel='training steps', ylabel=f'mean squared error of {target}', yscale='log', title=title)
    ax.legend()
    fig.savefig(file, dpi=80, bbox_inches='tight')
    plt.close(fig)

def draw(model, kind, n, sample_steps, device, precision):
    "`n` images, and the network evaluations a second that drawing them took; two steps first, to warm up and to compile"
    from unet_attention.sampling import conditional_ddpm, ddpm
    sz,c = (n,1,32,32),torch.arange(n)%10
    def sample(steps):
        if kind == 'unconditional': return ddpm(model, sz, device, steps, progress=False)[0]
        return conditional_ddpm(model, c, sz, device, steps, progress=False)[0]
    with autocast(device, precision):
        sample(2)
        sync(device)
        start = time.perf_counter()
        x = sample(sample_steps)
        sync(device)
    return x, sample_steps/(time.perf_counter() - start)

def get_dls(data, bs, n_train, n_steps, lims, device, n_valid=None):
    "The data and the number of epochs that `n_steps` steps make: the images of one epoch are fewer if it has more steps than that"
    def dls(n): return get_fashion_dls(bs=bs, path=data, n_train=n, n_valid=n_valid, lims=lims, device=device)
    res = dls(n_train)
    if not n_steps: return res, None
    if n_steps < len(res.train): res = dls(n_steps*bs)
    return res, n_steps//len(res.train)

def full_run(kind, conditions, cfg, out, data, bs, epochs, n_train, n_valid, n_steps, sample_steps, precision, compile, device, seed):
    "Train, sample, and write everything to the folder `out`"
    out.mkdir(parents=True, exist_ok=True)
    cond,lr = CONDITIONS[conditions],KINDS[kind]
    torch.manual_seed(seed)
    dls,few = get_dls(data, bs, n_train, n_steps, cond['lims'], device, n_valid)
    epochs = min(epochs, few) if few else epochs
    model = new_model(kind, cfg, cond['p_uncond']).to(device)
    net,watch = torch.compile(model) if compile else model,Watch()
    cbs = [watch, CSVLogger((out/'history.csv').resolve())] + ([MixedPrecision(AMPMode.BF16)] if precision == 'bf16' else [])
    start = time.perf_counter()
    fit = train if kind == 'unconditional' else conditional_train
    fit(net, dls, lr=lr, n_epochs=epochs, extra_cbs=cbs, target=cond['target'], ema=cond['ema'])
    sync(device)
    seconds,n = time.perf_counter() - start,8 if kind == 'unconditional' else 9
    save_unet(model, out/'model', lims=list(cond['lims']), classes=None if kind == 'unconditional' else list(dls.train.dataset.vocab), sz=32)
    plot_losses(watch, cond['target'], f'{kind} (conditions: {conditions}), {epochs} epochs of {len(dls.train)} steps', out/'losses.png')
    x,steps_s = draw(net, kind, n, sample_steps, device, precision)
    titles = None if kind == 'unconditional' else [dls.train.dataset.vocab[i] for i in range(n)]
    fig = show_images(x.float(), lims=cond['lims'], titles=titles, title=f'{kind} (conditions: {conditions}), {sample_steps} steps of ddpm')
    fig.savefig(out/'samples.png', dpi=80, bbox_inches='tight')
    plt.close(fig)
    res = dict(kind=kind, conditions=conditions, **cond, lr=lr, epochs=epochs, steps=watch.steps, bs=bs, valid_loss=watch.valid[-1][1],
               train_seconds=seconds, train_images_s=watch.images_s, epoch_seconds=watch.seconds, sampling_images=n,
               sampling_steps=sample_steps, sampling_steps_s=steps_s, precision=precision, compiled=compile,
               device=device_name(device), torch=torch.__version__, seed=seed, **cfg)
    (out/'timing.json').write_text(dumps(res, indent=2) + '\n', encoding='utf-8')
    print(f'{out}: {seconds:.1f} s, {watch.images_s:.4g} training images/s, {steps_s:.4g} sampling steps/s, loss {watch.valid[-1][1]:.4g}')
    return res

def images_s(cfg, bs, sz, precision, compile, device, secs, rounds=3):
    "Training images a second on one batch kept in memory: noise, forward, backward, AdamW; median of `rounds` windows"
    torch.manual_seed(0)
    model = TAUnet(**cfg).to(device)
    net,opt = torch.compile(model) if compile else model,torch.optim.AdamW(model.parameters(), lr=1e-4)
    x_0 = torch.rand(bs, cfg['color_channels'], sz, sz, device=device)*2 - 1
    def step():
        x_t,t,eps = noisify(x_0)
        with autocast(device, precision): loss = F.mse_loss(net(x_t, t).float(), eps)
        loss.backward()
        opt.step()
        opt.zero_grad()
    def window(n):
        sync(device)
        start = time.perf_counter()
        for _ in range(n): step()
        sync(device)
        return time.perf_counter() - start
    window(3)      # warm up, and compile
    n = max(1, round(secs/window(1)))
    return median(n*bs/window(n) for _ in range(rounds))

def speed_table(cfg, bs, sz, device, secs, compile=True):
    "The table of `images_s`, eager and compiled, in both precisions"
    print(f'{device_name(device)}, torch {torch.__version__}, batches of {bs}\n\n| | training images/s | of fp32 eager |\n| --- | ---: | ---: |')
    base = None
    for c in (False, True) if compile else (False,):
        for p in ('fp32', 'bf16'):
            v = images_s(cfg, bs, sz, p, c, device, secs)
            base = base or v
            print(f"| {p}, {'compiled' if c else 'eager'} | {v:.4g} | {v/base:.2f} |", flush=True)

def check(device, precision, conditions, kinds):
    "Stop at wrong arguments before anything long begins"
    if precision not in ('fp32', 'bf16'): sys.exit(f"precision must be 'fp32' or 'bf16', got {precision!r}")
    if precision == 'bf16' and torch.device(device).type != 'cuda': sys.exit("precision bf16 needs device cuda: fastai's MixedPrecision has no other")
    for name,v,known in (('conditions', conditions, CONDITIONS), ('kinds', kinds, KINDS)):
        if wrong := set(v.split(',')) - set(known): sys.exit(f"{name} must be one or more of {', '.join(known)}, got {', '.join(sorted(wrong))}")

@call_parse
def main(
    data:str=None, # Folder with the four gzipped IDX files; the environment's FASHION_MNIST_PATH, then the hub, if not given
    out:str='runs/full_scale', # Folder to write to, one folder a run
    device:str='cuda', # 'cuda' or 'cpu'
    precision:str='fp32', # 'fp32' or 'bf16'
    compile:bool=False, # `torch.compile` the model
    conditions:str='original,ours', # Which conditions
    kinds:str='unconditional,conditional', # Which models
    bs:int=512, # Images in a batch
    epochs:int=25, # Passes over the training set
    n_steps:int=None, # For a rehearsal: about so many training steps, in whole epochs, the schedule shortened to them
    n_train:int=None, # For a rehearsal: so many training images
    sample_steps:int=100, # Network evaluations in sampling
    throughput:bool=False, # Only measure training images/s, eager and compiled, fp32 and bf16
    secs:float=5., # Length of a window of `--throughput` in seconds, about
    seed:int=42, # Of the weights and the noise
    small:bool=False # A tiny configuration, to see that everything runs
):
    "Train the Fashion-MNIST models at full scale, or measure how fast they train"
    check(device, precision, conditions, kinds)
    cfg,n_valid = (SMALL,bs) if small else (FASHION,None)
    if throughput: return speed_table(cfg, bs, 32, device, secs, compile=not small)
    for c in conditions.split(','):
        for k in kinds.split(','):
            full_run(k, c, cfg, Path(out)/f'{c}-{k}', data, bs, epochs, n_train, n_valid, n_steps, sample_steps, precision, compile, device, seed)
