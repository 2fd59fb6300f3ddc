"""The network of the course lesson that this library grew from, and how that lesson samples.

Notebook 28 of jeremyadamsfisher/SlowAI, written anew from a description in words. Its lists are
read in pairs: level i goes from `nfs[i]` to `nfs[i+1]` channels, one level fewer than entries;
entries of the other lists beyond the last level are not read.

The description left open whether the last level is downsampled, where the decoder narrows, and the
number of blocks of the network of about 1.03 M parameters. In this reading the last level keeps its
resolution, the first block of a decoder's level takes `nfs[i+1]` channels to `nfs[i]`, and
`nfs=(16,32,64,96), n_blocks=(3,2,1), attention_heads=(0,4,4)` with ten classes has 1.025 M."""
import math, torch
from torch import Tensor, nn
from torch.nn import functional as F
from unet_attention.diffusion import Process, denoisify, noisify

RECIPE = dict(value_range=(-.5,.5), target='eps', ema=None, p_uncond=0., adam_eps=1e-5, opt='adamw')

def norm_conv(c_in, c_out):
    "BatchNorm, ReLU, convolution without bias"
    conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(c_in), nn.ReLU(), conv)

class Res(nn.Module):
    "Two of `norm_conv`, time as scale and shift between them; a projection of the raw input beside"
    def __init__(self, te, c_in, c_out):
        super().__init__()
        self.conv1,self.conv2 = norm_conv(c_in, c_out),norm_conv(c_out, c_out)
        self.time = nn.Linear(te, 2*c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x, emb):
        scale,shift = self.time(emb)[:, :, None, None].chunk(2, 1)          # two of (b, c, 1, 1)
        h = self.conv1(x)*(1 + scale) + shift                               # (b, c_out, h, w)
        return self.conv2(h) + self.shortcut(x)

class Attention(nn.Module):
    "Self-attention over the pixels, BatchNorm before it, added to its input"
    def __init__(self, nc, nh):
        super().__init__()
        self.nh,self.norm = nh,nn.BatchNorm2d(nc)
        self.qkv,self.proj = nn.Linear(nc, 3*nc),nn.Linear(nc, nc)

    def forward(self, x):
        qkv = self.qkv(self.norm(x).flatten(2).mT)                          # (b, h*w, 3*nc)
        qkv = qkv.unflatten(2, (3, self.nh, -1)).permute(2, 0, 3, 1, 4)     # (3, b, nh, h*w, d)
        o = F.scaled_dot_product_attention(*qkv)                            # (b, nh, h*w, d)
        return x + self.proj(o.transpose(1, 2).flatten(2)).mT.unflatten(2, x.shape[2:])

class Baseline(nn.Module):
    "The lesson's U-Net: `model(x_t, t)` or `model(x_t, t, c)`; the class misses the encoder"
    def __init__(self,
        nfs:tuple=(32,64,128,256,384), # Channels; level i goes from `nfs[i]` to `nfs[i+1]`
        n_blocks:tuple=(3,2,1,1,1,1), # Residual blocks of each level
        attention_heads:tuple=(0,8,8,8,8,8), # Heads of each level, in the encoder alone; 0 for none
        color_channels:int=1, # Channels of the images
        n_classes:int|None=None, # Number of classes; `None` for an unconditional network
        target:str='eps' # What it predicts, for the library's training and samplers
    ):
        super().__init__()
        self.process = Process(target)
        levels,te = list(zip(nfs[:-1], nfs[1:], n_blocks, attention_heads)),4*nfs[0]
        mlp = nn.Linear(nfs[0], te),nn.ReLU(),nn.Linear(te, te)
        self.dim,self.time = nfs[0],nn.Sequential(nn.BatchNorm1d(nfs[0]), *mlp)
        if n_classes: self.n_classes,self.classes = n_classes,nn.Embedding(n_classes, te)
        self.conv_in = nn.Conv2d(color_channels, nfs[0], 3, padding=1)
        def row(c_ins, c_out): return nn.ModuleList(Res(te, c, c_out) for c in c_ins)
        def attend(c, n, nh):
            return nn.ModuleList(Attention(c, nh) if nh else nn.Identity() for _ in range(n))
        def resize(f, *cs): return nn.ModuleList([f(c) for c in cs])
        self.downs = nn.ModuleList(row([a, *[b]*(n-1)], b) for a,b,n,_ in levels)
        self.attns = nn.ModuleList(attend(b, n, nh) for _,b,n,nh in levels)
        self.shrink = resize(lambda c: nn.Conv2d(c, c, 3, stride=2, padding=1), *nfs[1:-1])
        self.mid = Res(te, nfs[-1], nfs[-1])
        self.ups = nn.ModuleList(row([2*b, *[a+b]*(n-1)], a) for a,b,n,_ in reversed(levels))
        def up(c): return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(c, c, 3, padding=1))
        self.grow = resize(up, *nfs[-2:0:-1])
        self.out = norm_conv(nfs[0], color_channels)
        self.to(memory_format=torch.channels_last)

    def embed(self, t): # (b,) -> (b, 4*nfs[0])
        "Sinusoids of the time as it is, in [0, 1], through the small network"
        freqs = torch.exp(-math.log(10000)*torch.arange(self.dim//2, device=t.device)/(self.dim//2))
        angles = t.float()[:, None]*freqs                                   # (b, dim/2)
        return self.time(torch.cat([angles.sin(), angles.cos()], 1))

    def forward(self,
        x:Tensor, # Noisy images, `(b, color_channels, h, w)`
        t:Tensor, # Times, `(b,)`, in [0, 1]
        c:Tensor|None=None # Labels, `(b,)`; `None` for no class
    ) -> Tensor: # The prediction, shape of `x`
        "Encoder, bottleneck, decoder"
        emb,h,skips = self.embed(t),self.conv_in(x),[]
        for i,(blocks,attns) in enumerate(zip(self.downs, self.attns)):
            if i: h = self.shrink[i-1](h)
            for block,attn in zip(blocks, attns):
                h = attn(block(h, emb))
                skips.append(h)
        if c is not None: emb = emb + self.classes(c)
        h = self.mid(h, emb)
        for i,blocks in enumerate(self.ups):
            if i: h = self.grow[i-1](h)
            for block in blocks: h = block(torch.cat([h, skips.pop()], 1), emb)
        return self.out(h).to(x.dtype)

@torch.no_grad()
def renoise(model, sz, device='cpu', n_steps=100, c=None, generator=None, progress=None):
    "Predict `x_0`, add fresh noise for the next time: `(x_0, x_0s)` as from the library's samplers"
    times,x_0s = torch.linspace(.99, 0, n_steps+1, device=device),[]
    x = torch.randn(sz, generator=generator, device=device)
    model.eval()
    for t,s in zip(times[:-1], times[1:]):
        eps = model(x, t.expand(sz[0]), *([] if c is None else [c]))
        x_0s.append(denoisify(x, eps.float(), t))
        x = noisify(x_0s[-1], s, generator=generator)[0]
    return x, x_0s
