"""Two discs far apart that must be of one colour: which network gets it right?

    python benchmarks/agree.py --out agree.jsonl
    python benchmarks/agree.py --table --out agree.jsonl

README.md beside this file says what is compared and how."""
import json, math, sys, torch
from pathlib import Path
from fastcore.script import call_parse
from PIL import Image
from torch import Tensor, nn
import equal
from unet_attention.images import image_grid
from unet_attention.sampling import generate
from unet_attention.unet import ConditionalTAUnet

SIDE,RADIUS = 64,8
GAPS = 18,32,46                                    # pixels from centre to centre: the three classes
HUES = torch.tensor([[1,-1,-1], [-1,1,-1], [-1,-1,1], [1,1,-1], [1,-1,1], [-1,1,1]]).float()

# --- the images, and their reader

def discs(x, hue): # each (n,) -> (n, 3, SIDE, SIDE)
    "A soft disc on black in each image, half way up"
    p = torch.arange(SIDE) + .5
    r = ((p[:, None] - SIDE/2)**2 + (p - x[:, None, None])**2).sqrt()           # (n, h, w)
    return (RADIUS + .5 - r).clamp(0, 1)[:, None]*(HUES[hue][..., None, None] + 1)

def pairs(n, g, c=None):
    "`n` images of two discs of one colour; `c` says how far apart"
    if c is None: c = torch.randint(0, len(GAPS), (n,), generator=g)
    hue = torch.randint(0, len(HUES), (n,), generator=g)
    d = torch.tensor(GAPS)[c]/2
    return (discs(SIDE/2 - d, hue) + discs(SIDE/2 + d, hue)).clamp(0, 2) - 1, c

def read(x): # (n, 3, SIDE, SIDE) in [-1, 1]
    "Of each half: is there one disc's worth of light, and of which colour?"
    res = []
    for half in x.split(SIDE//2, -1):
        light = ((half + 1)/2).amax(1).clamp(0, 1)                              # (n, h, w/2)
        light = light*(light > .3)
        area = light.sum((1,2))
        colour = (half*light[:, None]).sum((2,3))/area.clamp(min=1)[:, None]    # (n, 3)
        right = math.pi*RADIUS**2
        there = (area > .6*right) & (area < 1.6*right)
        res.append((there, torch.cdist(colour, HUES).argmin(1)))
    return res

def agreement(x, c):
    "For each gap: the share with two discs, and of those the share of one colour"
    (a,h_a),(b,h_b) = read(x)
    two = a & b
    def share(what, of): return (what & of).sum().item()/max(1, of.sum().item())
    return {gap: dict(two=share(two, c == i), colour=share(h_a == h_b, two & (c == i)))
            for i,gap in enumerate(GAPS)}

# --- the networks

class PixelNorm(nn.GroupNorm):
    "The same, but of each pixel's channels alone, so that it knows nothing of the other pixels"
    def forward(self, x:Tensor) -> Tensor:
        b,c,h,w = x.shape
        each = super().forward(x.permute(0, 2, 3, 1).reshape(-1, c))            # (b*h*w, c)
        return each.view(b, h, w, c).permute(0, 3, 1, 2)

def local(model):
    for m in model.modules():
        if isinstance(m, nn.GroupNorm): m.__class__ = PixelNorm
    return model

HEADS = {'none': (0,0,0,0), 'middle': (0,0,0,4), '16x16 and middle': (0,0,4,4)}
NETS = {f'{k}{", pixel norm" if f else ""}': (h, f) for f in (None, local)
        for k,h in HEADS.items()}

def build(name, nfs=(16,32,64), target='v'):
    heads,change = NETS[name]
    model = ConditionalTAUnet(len(GAPS), nfs, heads, (1,)*4, color_channels=3, target=target,
                              p_uncond=0.)
    return change(model) if change else model

def reach(model):
    "How far to the right a pixel of the left edge sees, in pixels, by the gradient of its value"
    torch.manual_seed(0)
    for p in model.parameters():
        if not p.any(): nn.init.normal_(p, std=.02)
    x = torch.randn(1, 3, SIDE, SIDE, requires_grad=True)
    model(x, torch.tensor([.5]), torch.tensor([0]))[0, :, SIDE//2, 0].sum().backward()
    seen = x.grad[0].abs().sum(0).max(0).values > 0                             # (w,)
    return seen.nonzero().max().item()

# --- a run

def run(name, seed, images, bs, lr, target, n_samples, device):
    torch.manual_seed(seed)
    loop = equal.Loop(build(name, target=target).to(device), images//bs, lr, target, opt='muon')
    g = torch.Generator().manual_seed(1000 + seed)
    batches = (tuple(o.to(device) for o in pairs(bs, g)) for _ in range(images//bs))
    losses,secs = equal.seconds(lambda: loop.train(batches).tolist(), device)
    c = torch.arange(n_samples) % len(GAPS)
    with loop.averaged():
        x = generate(loop.model, n_samples, (3,SIDE,SIDE), c=c, bs=25, seed=seed, clip=1.,
                     device=device, progress=False)
    return dict(agreement=agreement(x/127.5 - 1, c), seconds=secs,
                losses=[round(o, 4) for o in losses]), x

def save_sheet(x, file):
    "Samples as a picture, a row for each gap"
    file.parent.mkdir(parents=True, exist_ok=True)
    by_gap = torch.cat([x[i::len(GAPS)] for i in range(len(GAPS))])
    Image.fromarray(image_grid(by_gap, len(x)//len(GAPS)).numpy()).save(file)

HEAD = ['attention', 'distance', 'two discs', 'one colour', 'seeds']

def print_table(out):
    rows = equal.alike(equal.records(out), 'name')
    lines = [HEAD, ['---', *['---:']*4]]
    for (name,),ds in rows:
        for gap in map(str, GAPS):
            each = [equal.spread([d['agreement'][gap][k] for d in ds], '.2f')
                    for k in ('two', 'colour')]
            lines.append([name, gap, *each, len(ds)])
    print('\n'.join('| ' + ' | '.join(map(str, l)) + ' |' for l in lines))

@call_parse
def main(
    out:str='agree.jsonl', # A line a run; runs that it holds are not repeated
    only:str=None, # Names of networks, with ';' between them; all of them if not given
    seeds:str='0,1,2', # Of the weights, the images and the noise
    n:int=15_000, # Training images
    bs:int=16, # Images in a batch
    lr:float=5e-3, # Highest rate of the cycle, of Muon
    target:str='flow', # What the networks predict
    n_samples:int=300, # Samples, a third for each gap
    sheets:str=None, # Folder for a sheet of each run's first samples, if wanted
    device:str='cpu', # 'cuda' or 'cpu'
    table:bool=False # Print the table of `out` and do nothing else
):
    "Train each network on the pairs and count the samples that agree"
    if table: return print_table(out)
    names = only.split(';') if only else list(NETS)
    if wrong := set(names) - set(NETS): sys.exit(f'only must be among {list(NETS)}, got {wrong}')
    for seed in map(int, seeds.split(',')):
        for name in names:
            d = dict(name=name, seed=seed, images=n, bs=bs, lr=lr, target=target,
                     n_samples=n_samples)
            done = equal.records(out)
            if any(d.items() <= o.items() for o in done): continue
            res,x = run(name, seed, n, bs, lr, target, n_samples, device)
            d |= res
            if sheets: save_sheet(x[:24], Path(sheets)/f'{name}, seed {seed}.png')
            with open(out, 'a') as f: f.write(json.dumps(d) + '\n')
            print(f'{name:26} seed {seed}: {d["agreement"]}, {d["seconds"]:.0f} s', flush=True)
