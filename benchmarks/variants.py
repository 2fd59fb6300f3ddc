"""One change at a time: what does each variant of the network or of the recipe give after the same
images?

    python benchmarks/variants.py --data /usr/share/datasets/fashion-mnist --out variants.jsonl
    python benchmarks/variants.py --table-only --out variants.jsonl

README.md beside this file says what is compared."""
import json, math, sys, time, types, torch, torch.nn.functional as F
from contextlib import nullcontext
from fastcore.script import call_parse
from torch import nn
from equal import flops, records, spread
from unet_attention.attention import AttentionBlock, MultiheadSelfAttention1D, attend, group_norm
from unet_attention.blocks import ResidualBlock, TAResBlock
from unet_attention.diffusion import abar, noisify, to_target
from unet_attention.shapes import get_shapes_dls
from unet_attention.sources import get_fashion_dls
from unet_attention.training import Muon, stratified_times
from unet_attention.unet import ConditionalTAUnet

NFS = dict(tutorial=(32,64,128), double=(64,128,256), small=(8,16))

def modules(model, cls): return [m for m in model.modules() if isinstance(m, cls)]

def method(cls, name, f):
    "A change that gives every module of the class `cls` the method `f`"
    def change(model):
        for m in modules(model, cls): setattr(m, name, types.MethodType(f, m))
    return change

# --- changes to the network: each is a function of the model

def raw_shortcut(self, x, emb):
    h = self.condition(self.conv1(F.silu(self.norm1(x))), self.time(F.silu(emb))[:, :, None, None])
    return self.conv2(F.silu(h)) + (self.shortcut(x) if self.shortcut else x)

def silu_shortcut(self, x, emb):
    n = F.silu(self.norm1(x))
    h = self.condition(self.conv1(n), self.time(F.silu(emb))[:, :, None, None])
    return self.conv2(F.silu(h)) + (self.shortcut(n) if self.shortcut else x)

def time_before_norm(self, h, e):
    scale,shift = e.chunk(2, 1)
    return self.norm2(h*(1 + scale) + shift)

def scaled_residual(model):
    "Each residual sum divided by the square root of two, so that the variance stays one"
    for m in modules(model, (ResidualBlock, AttentionBlock)):
        m.register_forward_hook(lambda m, args, out: out*2**-.5)

def qk_norm(self, x):
    "Queries and keys of length sqrt(d) before their products, times a learned factor"
    # (b, n, nh, d)
    q,k,v = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(-1, (3, self.nh, -1)).unbind(2)
    q,k = F.rms_norm(q, q.shape[-1:])*self.q_gain,F.rms_norm(k, k.shape[-1:])
    o = attend(*(o.flatten(2) for o in (q, k, v)), self.nh)
    return self.proj(o).transpose(1, 2).unflatten(2, x.shape[2:])

def with_qk_norm(model):
    for m in modules(model, MultiheadSelfAttention1D):
        m.q_gain = nn.Parameter(torch.ones(m.nc//m.nh))
    method(MultiheadSelfAttention1D, 'forward', qk_norm)(model)

def dropout(p):
    def change(model):
        for m in modules(model, ResidualBlock): m.conv2 = nn.Sequential(nn.Dropout(p), m.conv2)
    return change

def res_attn_res(model):
    "The middle of Ho et al.: a second residual block, without attention, after the one that has it"
    te,c = model.config['t_embed'],model.config['nfs'][-1]
    model.mid.append(TAResBlock(te, c, c, stride=1))

class Last(nn.Module):
    "The last level of the decoder, with one block more, for the output of the first convolution"
    def __init__(self, up, te, c):
        super().__init__()
        self.up,self.block,self.first = up,TAResBlock(te, 2*c, c, stride=1),None
    def forward(self, x, skips, emb, *context):
        x = self.up(x, skips, emb, *context)
        return self.block(torch.cat([x, self.first], 1), emb)

def first_skip(model):
    last = model.ups[-1] = Last(model.ups[-1], model.config['t_embed'], model.config['nfs'][0])
    model.conv_in.register_forward_hook(lambda m, args, out: setattr(last, 'first', out))

def log_nsr(t):
    "A quarter of `log(sigma/alpha)`, which EDM embeds (Karras et al. 2022), in [-1.73, 1.73]"
    a = abar(t.double()).clamp(1e-6, 1 - 1e-6)
    return (((1 - a)/a).log()/8).float()

class Fourier(nn.Module):
    "Random Fourier features (Tancik et al. 2020) of a number that is made of the time"
    def __init__(self, time, of):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.mlp,self.of = time.mlp,of
        self.register_buffer('freqs', 2*math.pi*torch.randn(time.dim, generator=g))
        self.register_buffer('phases', 2*math.pi*torch.rand(time.dim, generator=g))
    def forward(self, t):
        return self.mlp(2**.5*torch.cos(self.of(t)[:, None]*self.freqs + self.phases))

def fourier(of):
    def change(model): model.time = Fourier(model.time, of)
    return change

def sinusoids_of(of):
    "The library's sinusoids, of another number in [0, 1]"
    def change(model): model.time.register_forward_pre_hook(lambda m, args: (of(args[0]),))
    return change

def slower(model): model.time.scale = 100.

def last_block(model):
    "A block more at the end of the decoder, as `first_skip` has, without the skip"
    te,c = model.config['t_embed'],model.config['nfs'][0]
    model.ups[-1].blocks.append(TAResBlock(te, c, c, stride=1))
    up = model.ups[-1]
    def forward(self, x, skips, emb, *context):
        x,(*blocks,last) = self.up(x),self.blocks
        for block,skip in zip(blocks, reversed(skips), strict=True):
            x = block(torch.cat([x, skip], 1), emb, *context)
        return last(x, emb)
    up.forward = types.MethodType(forward, up)

class Out(nn.Module):
    "Norm, SiLU and the last convolution, of the decoder's output beside the first convolution's"
    def __init__(self, out, c, conv_in):
        super().__init__()
        conv = nn.Conv2d(2*c, out.out_channels, 3, padding=1)
        nn.init.zeros_(conv.weight), nn.init.zeros_(conv.bias)
        self.out = nn.Sequential(group_norm(2*c), nn.SiLU(), conv)
        conv_in.register_forward_hook(lambda m, args, out: setattr(self, 'first', out))
    def forward(self, x): return self.out(torch.cat([x, self.first], 1))

def first_out(model): model.out = Out(model.out[-1], model.config['nfs'][0], model.conv_in)

def groups(rule):
    "Another number of groups, `rule(channels)`, in every norm"
    def change(model):
        for parent in list(model.modules()):
            for name,m in list(parent.named_children()):
                if isinstance(m, nn.GroupNorm):
                    setattr(parent, name, nn.GroupNorm(rule(m.num_channels), m.num_channels))
    return change

def batchnorm(model):
    for parent in list(model.modules()):
        for name,m in list(parent.named_children()):
            if isinstance(m, nn.GroupNorm): setattr(parent, name, nn.BatchNorm2d(m.num_channels))

def bilinear(model):
    for m in modules(model, nn.Upsample): m.mode = 'bilinear'

def time_twice(model):
    "Scale and shift after the first norm, too"
    for m in modules(model, ResidualBlock):
        m.time1 = nn.Linear(m.time.in_features, 2*m.norm1.num_channels)
        nn.init.zeros_(m.time1.weight), nn.init.zeros_(m.time1.bias)
        def pre(m, args):
            m.e1 = m.time1(F.silu(args[1]))[:, :, None, None].chunk(2, 1)
        m.register_forward_pre_hook(pre)
        m.norm1.register_forward_hook(lambda n, args, out, m=m: out*(1 + m.e1[0]) + m.e1[1])

def zero_time(model):
    "Scale and shift start at nothing"
    for m in modules(model, ResidualBlock):
        nn.init.zeros_(m.time.weight), nn.init.zeros_(m.time.bias)

# --- changes to the recipe

def held(model):
    """After each step every weight of a convolution or a linear map goes back to the length it
    began with (Karras et al. 2024, forced weight normalisation)"""
    ws = [m.weight for m in modules(model, (nn.Conv2d, nn.Linear))
          if m.weight.detach().abs().max() > 0]
    norms = [w.detach().flatten(1).norm(dim=1).clone() for w in ws]
    @torch.no_grad()
    def after():
        for w,n in zip(ws, norms): w.mul_((n/w.flatten(1).norm(dim=1)).view(-1, *[1]*(w.ndim-1)))
    return after

def same(o): return {}

V = {'as it is': {}}
RATES = '3e-3','5e-3','8e-3'
adamw = torch.optim.AdamW
V |= {f'rate {lr}': dict(lr=float(lr)) for lr in ('3e-3','8e-3','1.2e-2')}
V |= {f'AdamW, rate {lr}': dict(lr=float(lr), opt=adamw) for lr in (*RATES,'1.2e-2','2e-2')}
old = method(ResidualBlock, 'forward', raw_shortcut)
V |= {f'shortcut of x, AdamW, rate {lr}': dict(net=old, lr=float(lr), opt=adamw) for lr in RATES}
V |= {'shortcut of silu(norm1(x))': dict(net=method(ResidualBlock, 'forward', silu_shortcut)),
      'time before the norm': dict(net=method(ResidualBlock, 'condition', time_before_norm)),
      'time after both norms': dict(net=time_twice), 'time starts at zero': dict(net=zero_time),
      'residual sums / sqrt(2)': dict(net=scaled_residual),
      'residual sums / sqrt(2), weights held': dict(net=scaled_residual, hold=True),
      'QK norm': dict(net=with_qk_norm), 'dropout .1': dict(net=dropout(.1)),
      'middle Res-Attn-Res': dict(net=res_attn_res), 'skip from conv_in': dict(net=first_skip),
      'block at the end': dict(net=last_block), 'conv_in beside the output': dict(net=first_out),
      'two blocks in the first level': dict(cfg=lambda c: dict(n_blocks=(2, *c['n_blocks'][1:]))),
      'an eighth wider': dict(cfg=lambda c: dict(nfs=tuple(9*n//8 for n in c['nfs']))),
      'Fourier features': dict(net=fourier(log_nsr)),
      'Fourier features of t': dict(net=fourier(lambda t: 1.73*(2*t - 1))),
      'sinusoids of log SNR': dict(net=sinusoids_of(lambda t: .5 + log_nsr(t)/3.46)),
      'sinusoids of 100 t': dict(net=slower),
      '8 channels a group': dict(net=groups(lambda c: max(1, min(32, c//8)))),
      '16 channels a group': dict(net=groups(lambda c: max(1, min(32, c//16)))),
      '8 groups': dict(net=groups(lambda c: min(c, 8))), 'one group': dict(net=groups(lambda c: 1)),
      '2 channels a group': dict(net=groups(lambda c: max(1, c//2))),
      'BatchNorm': dict(net=batchnorm), 'bilinear upsampling': dict(net=bilinear),
      'betas .9, .999': dict(betas=(.9,.999)), 'betas .9, .95': dict(betas=(.9,.95)),
      'betas .95, .99': dict(betas=(.95,.99)),
      "AdamW's eps 1e-5": dict(eps=1e-5), 'weight decay 0': dict(weight_decay=0.),
      'weight decay .1': dict(weight_decay=.1),
      'warm-up .02': dict(pct=.02), 'warm-up .25': dict(pct=.25), 'weights held': dict(hold=True),
      'flat rate': dict(flat=1), 'AdamW, flat rate': dict(flat=1, opt=adamw),
      'flat rate, falls from .75': dict(flat=.75)}
EMAS = (.99, .995, .998)

def rate(i, n, pct, flat=0):
    "fastai's one cycle, as a share of the highest rate; `flat`: the way down begins there"
    cos = lambda a, b, p: a + (1 - math.cos(math.pi*p))*(b - a)/2
    p = i/n
    if p < pct: return cos(1/25, 1, p/pct)
    top = max(pct, flat)
    return 1. if p < top else cos(1, 1e-5, (p - top)/(1 - top))

@torch.no_grad()
def eps_losses(model, weights, dl, precision, device):
    "The mean squared error of the predicted noise with each list of weights, on the same noise"
    res,raw = [],[p.data for p in model.parameters()]
    model.eval()
    for w in weights:
        for p,o in zip(model.parameters(), w): p.data = o
        g,total,n = torch.Generator(device).manual_seed(42),0.,0
        for x_0,c in dl:
            x_t,t,eps = noisify(x_0, generator=g)
            with precision(): pred = model(x_t, t, c)
            each = (pred.float() - to_target(x_0, eps, t)).pow(2).mean((1,2,3))
            total += (each*abar(t)).sum().item()
            n += len(x_0)
        res.append(total/n)
    for p,o in zip(model.parameters(), raw): p.data = o
    model.train()
    return res

def run(dls, cfg, seed, compiled, precision, device, net=None, lr=5e-3, opt=Muon,
        pct=.1, hold=False, flat=0, **kw):
    """Train once over the images; the losses of the steps, and `eps_loss` with the last weights and
    with each average"""
    torch.manual_seed(seed)
    model = ConditionalTAUnet(10 if cfg['color_channels'] == 1 else 12, **cfg).to(device)
    if net: net(model)
    model.to(memory_format=torch.channels_last).to(device).train()
    opt = opt(model.parameters(), lr, **{**dict(betas=(.9, .99), weight_decay=.01), **kw})
    after,f = held(model) if hold else None,torch.compile(model) if compiled else model
    losses,n = [],len(dls.train)
    emas = [d for d in EMAS if d == EMAS[0] or d < (1+n)/(10+n)]    # short runs have one average
    avgs = [[p.detach().clone() for p in model.parameters()] for _ in emas]
    torch.manual_seed(1000 + seed)
    for i,(x_0,c) in enumerate(dls.train):
        for g in opt.param_groups: g['lr'] = lr*rate(i, n, pct, flat)
        x_t,t,noise = noisify(x_0, stratified_times(len(x_0), device))
        with precision(): pred = f(x_t, t, c)
        error = (pred.float() - to_target(x_0, noise, t)).pow(2).mean((1,2,3))
        loss = (error*(abar(t) + .05)).mean()
        loss.backward()
        opt.step()
        opt.zero_grad()
        if after: after()
        raw = [p.data for p in model.parameters()]
        for avg,d in zip(avgs, emas): torch._foreach_lerp_(avg, raw, 1 - min(d, (1+i)/(10+i)))
        losses.append(loss.item())
    return losses, eps_losses(model, [raw, *avgs], dls.valid, precision, device)

def table(file):
    "Mean and standard deviation over the seeds; per cents are of `as it is` with the same seed"
    rows = {}
    for d in records(file):
        net = f"{d['net']}{', bfloat16'*d['bf16']}, {d['n']:,} images"
        rows.setdefault((net, d['name']), {})[d['seed']] = min(d['eps_loss'][1:]),d['eps_loss'][0]
    print('| network | variant | runs | eps_loss, averages | more than as it is, % '
          '| eps_loss, last weights |\n| --- | --- | ---: | ---: | ---: | ---: |')
    for (net,name),runs in rows.items():
        ref = rows.get((net, 'as it is'), {})
        more = [100*(v/ref[s][0] - 1) for s,(v,_) in runs.items()
                if s in ref and name != 'as it is']
        avg,last = map(spread, zip(*runs.values()))
        print(f"| {net} | {name} | {len(runs)} | {avg} | {spread(more, '+.1f') if more else ''} "
              f'| {last} |')

def costs(cfg):
    "Operations and parameters of the network, and of each variant that has others"
    print('| variant | MFLOP an image | parameters, M |\n| --- | ---: | ---: |')
    plain = None
    for name,change in V.items():
        this_cfg = cfg | change.get('cfg', same)(cfg) | dict(color_channels=1)
        model = ConditionalTAUnet(10, **this_cfg)
        change.get('net', same)(model)
        cost = flops(model),sum(p.numel() for p in model.parameters())
        if cost != plain: print(f'| {name} | {cost[0]/1e6:.0f} | {cost[1]/1e6:.2f} |')
        plain = plain or cost

@call_parse
def main(
    data:str=None, # Folder of Fashion-MNIST's files; FASHION_MNIST_PATH, or the hub, if not given
    out:str='variants.jsonl', # A line a run; runs that it holds are not repeated
    net:str='tutorial', # 'tutorial', 'double' or 'small'
    only:str=None, # Names of variants, with ';' between them; all if not given
    seeds:str='0,1,2', # Of the weights, the order and the noise
    n:int=9600, # Training images, each seen once
    bs:int=32, # Images in a batch
    lr:float=5e-3, # Highest rate of variants that do not say another
    device:str='cpu', # 'cuda' or 'cpu'
    bf16:bool=False, # Forward pass in bfloat16
    compile:bool=False, # `torch.compile` the model
    table_only:bool=False, # Print the table of `out` and do nothing else
    cost:bool=False # Print what each variant of the network costs and do nothing else
):
    "Train each variant and append what came out to a file"
    if table_only: return table(out)
    names = only.split(';') if only else list(V)
    if wrong := set(names) - set(V):
        sys.exit(f"only must be among {'; '.join(V)}, got {'; '.join(sorted(wrong))}")
    heads = 1 if net == 'small' else 4
    cfg = dict(nfs=NFS[net], attention_heads=(0,)*(len(NFS[net])-1) + (heads,),
               n_blocks=(1,)*len(NFS[net]), color_channels=3 if net == 'small' else 1)
    if cost: return costs(cfg)
    precision = (lambda: torch.autocast(device, torch.bfloat16)) if bf16 else nullcontext
    for name in names:
        for seed in map(int, seeds.split(',')):
            this = dict(net=net, name=name, seed=seed, n=n, bf16=bf16)
            if any(this.items() <= d.items() for d in records(out)): continue
            torch.manual_seed(seed)
            dls = (get_shapes_dls(bs=bs, n_train=n, n_valid=2*bs, sz=16, device=device)
                   if net == 'small' else
                   get_fashion_dls(bs=bs, path=data, n_train=n, n_valid=2000, device=device))
            start = time.time()
            change = dict(V[name])
            this_cfg = cfg | change.pop('cfg', same)(cfg)
            losses,eps = run(dls, this_cfg, seed, compile, precision, device,
                             **{'lr': lr, **change})
            d = dict(**this, eps_loss=eps, seconds=time.time() - start,
                     losses=[round(o, 4) for o in losses])
            with open(out, 'a') as f: f.write(json.dumps(d) + '\n')
            print(f'{name:32} seed {seed}  '
                  + ' '.join(f'{o:.4f}' for o in eps) + f"   {d['seconds']:.0f} s", flush=True)
