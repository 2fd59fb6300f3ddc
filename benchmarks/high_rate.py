"""The start of training at several learning rates: does `TAUnet` survive it, and does diffusers'
`UNet2DModel`?

    python benchmarks/high_rate.py --data /usr/share/datasets/fashion-mnist

README.md beside this file says what is compared."""
import sys, torch, torch.nn.functional as F
from functools import partial
from itertools import islice, product
from fastcore.script import call_parse
from unet_speed import CONTESTANTS, FASHION, OURS, SMALL
from unet_attention.diffusion import noisify, to_target
from unet_attention.shapes import get_shapes_dls
from unet_attention.sources import get_fashion_dls

def chained(dl):
    "The batches of epoch after epoch"
    while True: yield from dl

def losses(name, cfg, get_dls, lr, steps, of=300, device='cpu', seed=0):
    "The losses of the first `steps` steps of a cycle of `of`, a quarter of it warm-up, in v"
    torch.manual_seed(seed)
    model = CONTESTANTS[name](**cfg).to(device).train()
    opt = torch.optim.AdamW(model.parameters(), lr=lr, betas=(.9, .99), weight_decay=.01)
    sched,res = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=of, pct_start=.25),[]
    # the same batches and the same noise for everybody
    torch.manual_seed(seed)
    for x_0,_ in islice(chained(get_dls().train), steps):
        x_t,t,eps = noisify(x_0)
        # diffusers counts time in thousandths
        pred = model(x_t, t) if name == OURS else model(x_t, 1000*t, return_dict=False)[0]
        loss = F.mse_loss(pred, to_target(x_0, eps, t))
        loss.backward()
        opt.step()
        opt.zero_grad()
        sched.step()
        res.append(loss.item())
    return res

def by_tens(losses): return [sum(losses[i:i+10])/10 for i in range(0, len(losses), 10)]

@call_parse
def main(
    data:str=None, # Folder of Fashion-MNIST's files; FASHION_MNIST_PATH, or the hub, if not given
    lrs:str='1e-3,4e-3', # Highest learning rates of the cycle
    contestants:str=f'{OURS};UNet2DModel, channels_last', # Of unet_speed.py, with ';' between
    steps:int=100, # Steps to take
    of:int=300, # Steps of the whole cycle, whose first quarter is the warm-up
    bs:int=32, # Images in a batch
    device:str='cpu', # 'cuda' or 'cpu'
    seeds:str='0', # Of the weights, the order and the noise; a row each
    small:bool=False # A tiny configuration on the shapes, to see that everything runs
):
    "Train the first steps of a cycle, and print the mean loss of every tenth of them"
    if wrong := set(contestants.split(';')) - set(CONTESTANTS):
        sys.exit(
            f"contestants must be among {'; '.join(CONTESTANTS)}, got {'; '.join(sorted(wrong))}")
    if not 10 <= steps <= of:
        sys.exit(f'steps must lie in 10..{of}, the length of the cycle, got {steps}')
    cfg = dict(SMALL, color_channels=3) if small else FASHION
    if small:
        get_dls = partial(get_shapes_dls, bs=bs, n_train=4*bs, n_valid=bs, sz=16, device=device)
    else: get_dls = partial(get_fashion_dls, bs=bs, path=data, device=device)
    n = steps//10
    ends = list(range(n, steps+1, n))
    print(f'| model | rate | seed | {" | ".join(f"to {e}" for e in ends)} |')
    print(f'| --- | ---: | ---: {"| ---: "*len(ends)}|')
    for name in contestants.split(';'):
        for lr,seed in product(lrs.split(','), seeds.split(',')):
            l = losses(name, cfg, get_dls, float(lr), steps, of, device, int(seed))
            means = [sum(l[e-n:e])/n for e in ends]
            print(f'| {name} | {lr} | {seed} | {" | ".join(f"{o:.3f}" for o in means)} |',
                  flush=True)
