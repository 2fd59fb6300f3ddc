"""Training speed, sampling speed and peak memory of `TAUnet`, of diffusers' `UNet2DModel` and of
denoising-diffusion-pytorch's `Unet`, measured in turn in one run.

    python benchmarks/unet_speed.py --threads 2 --json speed.json
    python benchmarks/unet_speed.py --cost              # of ours, over side and batch

README.md beside this file says what is compared and how to read the tables."""
import math, platform, resource, sys, time, torch, torch.nn.functional as F
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from json import dumps
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from fastcore.script import call_parse
from torch.utils.flop_counter import FlopCounterMode
try:
    import diffusers
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.unets.unet_2d import UNet2DModel
except ImportError: sys.exit("This needs diffusers: pip install -e '.[bench]'")
from unet_attention.attention import group_norm
from unet_attention.blocks import ResidualBlock
from unet_attention.unet import TAUnet

FASHION = dict(nfs=(32,64,128,256,384), n_blocks=(3,2,1,1,1,1), attention_heads=(0,8,8,8,8,8),
               color_channels=1)
SMALL = dict(nfs=(8,16), n_blocks=(2,1,1), attention_heads=(0,2,2), color_channels=1)
OURS = 'TAUnet'

class Pass(torch.nn.Module):
    "Stands where a residual block was"
    def forward(self, x, emb): return x

def trim(model):
    "Cut what ours has not: each level's last decoder block and its skip, the middle's second block"
    for down in model.down_blocks:
        down.register_forward_hook(lambda m,args,out: (out[0], out[1][:len(m.resnets)]))
    for up in model.up_blocks:
        up.resnets = up.resnets[:-1]
        if hasattr(up, 'attentions'): up.attentions = up.attentions[:-1]
    model.mid_block.resnets[1] = Pass()
    return model

def rival(nfs, n_blocks, attention_heads, color_channels, layers=None):
    """diffusers' nearest: our channels, heads, time embedding; `layers` blocks a level down, one
    more up; ours if not given"""
    L = len(nfs)
    layers = [layers]*L if layers else n_blocks[:L]
    kinds = ['Attn' if h else '' for h in attention_heads[:L]]
    groups = group_norm(math.gcd(*nfs)).num_groups
    # one number of layers and of channels a head (not: of heads) for all levels
    def unet(n, nc, nh): return UNet2DModel(
        in_channels=color_channels, out_channels=color_channels,
        block_out_channels=nfs, layers_per_block=n,
        down_block_types=[f'{k}DownBlock2D' for k in kinds],
        up_block_types=[f'{k}UpBlock2D' for k in reversed(kinds)],
        attention_head_dim=nc//max(nh, 1), add_attention=nh > 0, norm_num_groups=groups,
        attn_norm_num_groups=groups,
        resnet_time_scale_shift='scale_shift')
    res = unet(1, nfs[-1], attention_heads[L])
    for i in range(L):                              # so each level comes from a model of its own
        part = unet(layers[i], nfs[i], attention_heads[i])
        res.down_blocks[i],res.up_blocks[L-1-i] = part.down_blocks[i],part.up_blocks[L-1-i]
    return res

def ddp(nfs, n_blocks, attention_heads, color_channels):
    "denoising-diffusion-pytorch's: two blocks a level; full attention at the levels that have ours"
    try: from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Unet
    except ImportError: sys.exit("ddp needs denoising-diffusion-pytorch: pip install -e '.[bench]'")
    heads = max(attention_heads)
    return Unet(nfs[0], channels=color_channels, dim_mults=[n//nfs[0] for n in nfs],
                full_attn=tuple(h > 0 for h in attention_heads[:len(nfs)]), attn_heads=heads,
                attn_dim_head=max(8, nfs[-1]//heads), flash_attn=True)

RIVALS = dict(full=('UNet2DModel', rival),
              trimmed=('UNet2DModel trimmed', lambda **cfg: trim(rival(**cfg))),
              single=('UNet2DModel 1 layer', lambda **cfg: rival(**cfg, layers=1)),
              ddp=('denoising-diffusion-pytorch', ddp))
CONTESTANTS = {OURS: TAUnet}
for name,f in RIVALS.values():
    CONTESTANTS[name] = f
    def last(f=f, **cfg): return f(**cfg).to(memory_format=torch.channels_last)
    CONTESTANTS[f'{name}, channels_last'] = last

def build(name, cfg, device):
    "The model, without weights that are zero: products with zeros can be cheaper"
    torch.manual_seed(0)
    model = CONTESTANTS[name](**cfg).to(device)
    for p in model.parameters():
        if not p.any(): torch.nn.init.normal_(p, std=.02)
    return model

def call(model, x, t):
    out = model(x, t)
    return out if torch.is_tensor(out) else out.sample

class Contestant:
    "A model with its optimizer and its batches: `train` and `sample` are one step each"
    def __init__(self, name, cfg, sz, bs, sample_bs, device, bf16, compile):
        self.name,self.device,self.bf16 = name,torch.device(device),bf16
        self.model = build(name, cfg, device)
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.net = torch.compile(self.model, dynamic=False) if compile else self.model
        def batch(n):
            x = torch.randn(n, cfg['color_channels'], sz, sz, device=device)
            return x, torch.rand(n, device=device)
        (self.x,self.t),(self.sx,self.st) = batch(bs),batch(sample_bs)
        self.y = torch.randn_like(self.x)
        self.rounds = dict(train=[], sample=[])

    def amp(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def train(self):
        self.model.train()
        with self.amp(): loss = F.mse_loss(call(self.net, self.x, self.t).float(), self.y)
        loss.backward()
        self.opt.step()
        self.opt.zero_grad()

    def sample(self):
        self.model.eval()
        with torch.inference_mode(), self.amp(): call(self.net, self.sx, self.st)

    def images(self, kind): return len(self.x if kind == 'train' else self.sx)

def seconds(f, n, device):
    "Seconds that `n` calls of `f` take"
    sync = torch.cuda.synchronize if torch.device(device).type == 'cuda' else lambda: None
    sync()
    start = time.perf_counter()
    for _ in range(n): f()
    sync()
    return time.perf_counter() - start

def flops(model, cfg, sz):
    "Floating point operations of the forward pass for one image, two for each multiply-add"
    p = next(model.parameters())
    x = torch.randn(1, cfg['color_channels'], sz, sz, device=p.device)
    t = torch.rand(1, device=p.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter: call(model, x, t)
    return counter.get_total_flops()

def blocks(model):
    "Numbers of residual blocks: down, middle, up"
    def is_block(m): return isinstance(m, (ResidualBlock, ResnetBlock2D)) or (
        type(m).__name__ == 'ResnetBlock')                          # denoising-diffusion-pytorch's
    def count(part): return sum(is_block(m) for k,c in model.named_children()
                                if k.startswith(part) for m in c.modules())
    return '+'.join(str(count(o)) for o in ('down', 'mid', ('up', 'final')))

def matmul_rate(n, device, bf16, repeats=5):
    "Operations a second in a product of two `n` by `n` matrices, best of `repeats`"
    a,b = torch.randn(2, n, n, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    a@b
    return 2*n**3/min(seconds(lambda: a@b, 1, device) for _ in range(repeats))

def peak_rss():
    "Bytes of memory this process has held at most"
    # where Linux has it: `ru_maxrss` can be that of the process which started this one
    status = Path('/proc/self/status')
    if status.exists():
        return next(int(l.split()[1])*1024 for l in status.read_text().splitlines()
                    if l.startswith('VmHWM'))
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*unit

def _peak(name, args, threads):
    torch.set_num_threads(threads)
    cuda,base = torch.device(args['device']).type == 'cuda',peak_rss()
    c = Contestant(name, **args)
    for _ in range(3): c.train()
    return torch.cuda.max_memory_allocated() if cuda else peak_rss() - base

def peak_memory(name, args, threads):
    "Peak memory of three training steps, in a process of its own that begins before any computing"
    how = 'spawn' if torch.device(args['device']).type == 'cuda' else 'fork'
    with ProcessPoolExecutor(1, mp_context=get_context(how)) as ex:
        return ex.submit(_peak, name, args, threads).result()

def race(cs, kind, rounds, secs, device, after_round):
    "Let the contestants work in turn, `secs` seconds each; images a second to `c.rounds[kind]`"
    steps = {}
    for c in cs:
        f = getattr(c, kind)
        seconds(f, 2, device)            # warm up, and compile
        steps[c.name] = max(1, round(secs/seconds(f, 1, device)))
    for i in range(rounds):
        for c in cs:
            n = steps[c.name]
            c.rounds[kind].append(n*c.images(kind)/seconds(getattr(c, kind), n, device))
        after_round()
        print(f'{kind}, round {i+1} of {rounds}',
              *(f'{c.name}: {c.rounds[kind][-1]:.4g}' for c in cs), sep='  ', file=sys.stderr)

SIDES,BATCHES = (16,32,64),(8,32,128)

def costs(args, secs, sides=SIDES, batches=BATCHES):
    "Images a second in training by `TAUnet`, for each side and number of images in a batch"
    rows = []
    for sz in sides:
        speeds = []
        for bs in batches:
            c = Contestant(OURS, **dict(args, sz=sz, bs=bs))
            seconds(c.train, 2, c.device)
            n = max(2, round(secs/seconds(c.train, 1, c.device)))
            speeds.append(n*bs/seconds(c.train, n, c.device))
        rows.append([f'{sz}x{sz}', f'{flops(c.model, args["cfg"], sz)/1e9:.3g}',
                     *(f'{o:.3g}' for o in speeds)])
    return table(['side', 'GFLOP', *(f'in batches of {o}' for o in batches)], rows)

def spread(xs, scale=1): return f'{median(xs)*scale:.3g} ({min(xs)*scale:.3g}..{max(xs)*scale:.3g})'
def row(*cells): return '| ' + ' | '.join(map(str, cells)) + ' |'
def table(head, rows):
    return '\n'.join([row(*head), row('---', *['---:']*(len(head)-1)), *[row(*r) for r in rows]])

def results(cs, cfg, sz, memory, rate):
    "What was measured, as numbers"
    res = {}
    for c in cs:
        fl = flops(c.model, cfg, sz)
        res[c.name] = dict(parameters=sum(p.numel() for p in c.model.parameters()),
                           blocks=blocks(c.model), flops=fl, memory=memory[c.name],
                           **c.rounds, share=3*fl*median(c.rounds['train'])/rate)
    return res

def report(res):
    "The two tables: each contestant, and ours over each rival"
    head = ['model', 'params, M', 'blocks', 'GFLOP', 'training, images/s', 'of matmul rate',
            'sampling, images/s', 'peak, MB']
    rows = [[n, f"{r['parameters']/1e6:.2f}", r['blocks'], f"{r['flops']/1e9:.3g}",
             spread(r['train']), f"{r['share']:.0%}",
             spread([v/50 for v in r['sample']]), f"{r['memory']/1e6:.0f}"] for n,r in res.items()]
    ours = res[OURS]
    # within each round, since a machine's speed drifts
    def ratio(r, k): return spread([a/b for a,b in zip(ours[k], r[k])])
    ratios = [[f'{OURS} / {n}', f"{ours['flops']/r['flops']:.2f}", ratio(r, 'train'),
               ratio(r, 'sample'),
               f"{ours['share']/r['share']:.2f}", f"{ours['memory']/max(1, r['memory']):.2f}"]
              for n,r in res.items() if n != OURS]
    beside = ['ratio', 'GFLOP', 'training speed', 'sampling speed', 'training FLOP/s',
              'peak memory']
    return f"{table(head, rows)}\n\n{table(beside, ratios)}"

@call_parse
def main(
    device:str='cpu', # 'cpu' or 'cuda'
    rounds:int=5, # Times that each contestant gets its turn
    bs:int=64, # Images in a training batch
    sample_bs:int=8, # Images in a sampling batch
    secs:float=5., # Length of a turn in seconds, about
    bf16:bool=False, # Autocast to bfloat16
    compile:bool=False, # `torch.compile` every contestant
    threads:int=0, # Threads of the CPU; torch's choice if 0
    rivals:str='full,trimmed,single,ddp', # Which rivals, of these four
    cost:bool=False, # Only the training speed of `TAUnet` over side and batch
    small:bool=False, # A tiny configuration, to see that everything runs
    json:str=None # Write all numbers to this file
):
    "Compare `TAUnet` with the networks of diffusers and denoising-diffusion-pytorch"
    cfg,sz = (SMALL,8) if small else (FASHION,32)
    if small: bs,sample_bs,rounds,secs = 4,2,2,.02
    if wrong := set(rivals.split(',')) - set(RIVALS):
        sys.exit(f"rivals must be some of {', '.join(RIVALS)}, got {', '.join(sorted(wrong))}")
    if threads: torch.set_num_threads(threads)
    cuda = torch.device(device).type == 'cuda'
    names = [OURS, *(n + f for r in rivals.split(',') for n in RIVALS[r][:1]
                     for f in ('', ', channels_last'))]
    args = dict(cfg=cfg, sz=sz, bs=bs, sample_bs=sample_bs, device=device, bf16=bf16,
                compile=compile)
    # products in TF32, as cuDNN's convolutions are
    if cuda: torch.set_float32_matmul_precision('high')
    if cost: return print(costs(args, secs, *([(8,), (2,4)] if small else [])))
    # first, while this process is small
    memory = {n: peak_memory(n, args, torch.get_num_threads()) for n in names}
    rates,n = [],128 if small else 8192 if cuda else 2048
    def measure(): rates.append(matmul_rate(n, device, bf16))
    measure()
    cs = [Contestant(o, **args) for o in names]
    for kind in ('train', 'sample'): race(cs, kind, rounds, secs, device, measure)
    res = results(cs, cfg, sz, memory, max(rates))
    about = dict(device=torch.cuda.get_device_name() if cuda else f'CPU, {platform.machine()}',
                 threads=torch.get_num_threads(),
                 torch=torch.__version__, diffusers=diffusers.__version__,
                 precision='bf16' if bf16 else 'tf32' if cuda else 'fp32',
                 compiled=compile, bs=bs, sample_bs=sample_bs, image_size=sz, rounds=rounds,
                 secs=secs, matmul_gflops=max(rates)/1e9, **cfg)
    print(', '.join(f'{k} {v:.4g}' if isinstance(v, float) else f'{k} {v}'
                    for k,v in about.items()) + f'\n\n{report(res)}')
    if json:
        Path(json).write_text(dumps(dict(about=about, results=res), indent=2) + '\n',
                              encoding='utf-8')
