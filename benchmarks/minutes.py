"""What number should I get, after how long? One training, judged after 1, 3, 10 and 30 minutes.

    python benchmarks/minutes.py --data FOLDER --out runs/minutes
    python benchmarks/minutes.py --data FOLDER --out runs/minutes --minutes 60,120   # and so on
    python benchmarks/minutes.py --out runs/minutes --table              # a folder or a file

README.md beside this file says what is measured."""
import json, math, sys, time, torch
from contextlib import contextmanager
from pathlib import Path
from fastcore.script import call_parse
from equal import (
    Loop, alike, at_least, chained, fashion_on, judged, records, sampler_list, spread)
from full_scale import replacing
from unet_attention.averages import PowerEMA
from unet_attention.saving import save_unet
from unet_attention.unet import ConditionalTAUnet

SLACK = 3                                          # seconds that the last step may take
SIGMAS = .05,.1                                    # lengths of the averages; the first is judged

class Steady(Loop):
    """After its warm-up a rate that stays, or falls as one over the root of the steps (Karras et
    al. 2024), and power-function averages, so that any step is an end"""
    def __init__(self, model, lr, warmup, stays, **kwargs):
        super().__init__(model, 1, lr, ema=None, **kwargs)
        self.warmup,self.stays,self.emas = warmup,stays,PowerEMA(self.weights, SIGMAS)

    def cycle(self, first, middle, last):
        falls = last < middle and 0 < self.stays < self.i              # the rate, not the momentum
        if falls: return middle*(self.stays/self.i)**.5
        return first + (1 - math.cos(math.pi*min(1, self.i/self.warmup)))*(middle - first)/2

    def step(self, x_0, c):
        loss = super().step(x_0, c)
        self.emas.update()
        return loss

    @contextmanager
    def averaged(self):
        self.avg = self.emas.avgs[0]
        try:
            with super().averaged(): yield
        finally: self.avg = None

    def state_dict(self): return dict(super().state_dict(), emas=self.emas.avgs)

    def load_state_dict(self, s):
        super().load_state_dict(s)
        for a,b in zip(self.emas.avgs, s['emas']): torch._foreach_copy_(a, b)
        self.emas.step = self.i

def train(loop, batches, s, until, write, every=300):
    "Steps until `until` seconds of training have gone by in all, and a checkpoint now and then"
    while s['seconds'] < until:
        start = time.perf_counter()
        end = start + min(every, until - s['seconds'])
        while time.perf_counter() < end:
            s['losses'].append(round(loop.step(*next(batches)).item(), 4))
        s['seconds'] += time.perf_counter() - start
        if not math.isfinite(s['losses'][-1]): sys.exit(
            f'the loss is {s["losses"][-1]}, and nothing was written: choose a lower --lr')
        write()

def run(out, minutes, nfs, blocks, heads, target, schedule, lr, stays, bs, seed, precision,
        mode, samplers, n_samples, n_train, n_valid, device, data):
    "Train from where the folder `out` stands to the last of `minutes`, and judge at each"
    settings = dict(nfs=nfs, n_blocks=blocks, attention_heads=heads, target=target,
                    schedule=schedule, lr=lr, stays=stays, bs=bs, seed=seed, precision=precision,
                    compile=mode, threads=torch.get_num_threads(), n_train=n_train,
                    n_valid=n_valid)
    torch.manual_seed(seed)
    model = ConditionalTAUnet(10, nfs, heads, blocks, color_channels=1, target=target,
                              schedule=schedule).to(device)
    dls = fashion_on(device, bs=bs, path=data, n_train=n_train, n_valid=n_valid)
    loop = Steady(model, lr, 100, stays, target=target, schedule=schedule, opt='muon',
                  precision=precision, mode=mode)
    s,state = dict(settings=settings, seconds=0., losses=[]),out/'state.pt'
    if state.exists():
        s = torch.load(state, map_location=device)
        if s['settings'] != settings: sys.exit(f'{out} holds a run with other settings: choose '
                                               f"another --out, or these: {s['settings']}")
        loop.load_state_dict(s.pop('loop'))
    out.mkdir(parents=True, exist_ok=True)
    def write():
        with replacing(state) as f: torch.save(dict(s, loop=loop.state_dict()), f)
    batches = chained(dls.train)
    loop.model.train()
    for m in sorted(minutes):
        known = records(out/'minutes.jsonl')
        if any(d['minutes'] == m for d in known) or s['seconds'] > 60*m + SLACK: continue
        train(loop, batches, s, 60*m, write)
        with loop.averaged():
            eps_loss = loop.validate(dls.valid)[1]
            save_unet(loop.model, out/f'{m:g}', sz=32, classes=dls.train.dataset.vocab)
        rng = torch.get_rng_state()
        d = dict(settings, minutes=m, seconds=s['seconds'], images=loop.i*bs, eps_loss=eps_loss,
                 parameters=sum(p.numel() for p in model.parameters()), n_samples=n_samples,
                 samples=judged(loop, samplers, n_samples, 1., data))
        torch.set_rng_state(rng)
        loop.model.train()
        with open(out/'minutes.jsonl', 'a') as f: f.write(json.dumps(d) + '\n')
        print(f"{out}: {m:g} minutes, {d['images']} images, eps_loss {eps_loss:.4f}, "
              f"{d['samples']}", flush=True)

HEAD = ['rate', 'minutes', 'images', 'eps_loss', 'FID', 'class consistency', 'runs']

def print_table(files):
    "A line for each rate and number of minutes: mean and standard deviation over the runs"
    rows = alike([d for f in files for d in records(f)], 'stays', 'minutes', but=['images'])
    lines = [HEAD, ['---', *['---:']*(len(HEAD) - 1)]]
    for (stays,m),ds in sorted(rows, key=lambda o: o[0]):
        each = [list(d['samples'].values())[0] for d in ds]
        rate = f'falls after {stays} steps' if stays else 'stays'
        lines.append([rate, f'{m:g}', f"{sum(d['images'] for d in ds)/len(ds):.0f}",
                      spread([d['eps_loss'] for d in ds]), spread([o[0] for o in each], '.2f'),
                      spread([o[1] for o in each], '.3f'), len(ds)])
    print('\n'.join('| ' + ' | '.join(map(str, l)) + ' |' for l in lines))

def numbers(text): return tuple(map(int, text.split(',')))

@call_parse
def main(
    data:str=None, # Folder with the four gzipped IDX files; else FASHION_MNIST_PATH, else the hub
    out:str='runs/minutes', # Folder to write to, one folder a seed
    minutes:str='1,3,10,30', # Of training, all together; the clock stands still while it is judged
    nfs:str='32,48,96', # Channels of the levels
    blocks:str='2,1,1', # Residual blocks of the levels
    heads:str='0,0,4', # Attention heads of the levels
    target:str='v', # What the network predicts
    schedule:str='cosine', # How noise is mixed in
    lr:float=5e-3, # Highest rate, of Muon
    stays:int=500, # Steps until it falls, as one over their root; 0: never
    bs:int=32, # Images in a batch
    seeds:str='0,1,2', # Of the weights, the order and the noise
    bf16:bool=False, # Forward pass in bfloat16
    compile:bool=False, # `torch.compile` the network; the first step waits for it
    samplers:str='dpm_solver 20', # The first one's scores are in the table
    n_samples:int=1000, # So many by each
    n_train:int=None, # Training images, if not all
    n_valid:int=None, # Test images for `eps_loss`, if not all
    device:str='cpu', # 'cuda' or 'cpu'
    table:bool=False # Print the table of the runs in `out` and do nothing else
):
    "Train, and judge on the way"
    out = Path(out)
    if table: return print_table([out] if out.is_file() else sorted(out.glob('*/minutes.jsonl')))
    sampler_list(samplers), at_least(4, n_samples=n_samples)
    ends = [float(m) for m in minutes.split(',')]
    for m in ends: at_least(1e-3, minutes=m)
    for seed in numbers(seeds):
        run(out/str(seed), ends, numbers(nfs), numbers(blocks),
            numbers(heads), target, schedule, lr, stays, bs, seed, 'bf16' if bf16 else 'fp32',
            'default' if compile else None, samplers, n_samples, n_train, n_valid, device, data)
