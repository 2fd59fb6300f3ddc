"""The operators of one training step: how many run, which of them only move or convert data, and
their time on the CPU.

    python benchmarks/operators.py

README.md beside this file has the table."""
import torch, torch.nn.functional as F
from collections import Counter
from contextlib import nullcontext
from fastcore.script import call_parse
from torch.profiler import ProfilerActivity, profile
from unet_attention.unet import TAUnet

FASHION = dict(nfs=(32,64,128,256,384), n_blocks=(3,2,1,1,1,1), attention_heads=(0,8,8,8,8,8),
               color_channels=1)
KINDS = {'convolutions': ('mkldnn_convolution', 'convolution_backward', 'cudnn_convolution'),
         'matrix products': ('mm', 'addmm', 'bmm', 'baddbmm'),
         'attention': ('flash_attention', 'efficient_attention'),
         'norms': ('native_group_norm', 'native_batch_norm'),
         'copies': ('copy_', 'clone', 'contiguous', '_to_copy', 'cat'),
         'elementwise': ('silu', 'add', 'mul', 'addcmul', 'sum', 'div', 'fill_', 'zero_', 'expand',
                         'sub', 'neg')}

def kind(name):
    "The first kind with a name in `name`, backward passes included"
    name = name.removeprefix('aten::')
    for k,names in KINDS.items():
        inside = k == 'attention' and any(n in name for n in names)
        if inside or any(name in (n, f'{n}_backward') for n in names): return k
    return 'other'

def step(model, x, t, precision):
    with precision: loss = F.mse_loss(model(x, t).float(), x)
    loss.backward()
    model.zero_grad()

@call_parse
def main(
    bs:int=16, # Images in the batch
    device:str='cpu', # 'cuda' or 'cpu'
    bf16:bool=False, # Forward pass in bfloat16
    small:bool=False # A tiny configuration, to see that everything runs
):
    "Print a table of the operators of a forward and a backward pass at full size"
    torch.manual_seed(0)
    tiny = dict(nfs=(8,16), n_blocks=(1,1), attention_heads=(0,2), color_channels=1)
    cfg = tiny if small else FASHION
    model = TAUnet(**cfg).to(device)
    for p in model.parameters():
        if not p.any(): torch.nn.init.normal_(p, std=.02)
    x,t = torch.randn(bs, 1, 32, 32, device=device),torch.rand(bs, device=device)
    precision = torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()
    step(model, x, t, precision)
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as p:
        step(model, x, t, precision)
    calls,ms = Counter(),Counter()
    for e in p.key_averages():
        # views cost next to nothing
        if not e.key.startswith('aten::') or e.self_cpu_time_total < e.count*.5: continue
        calls[kind(e.key)] += e.count
        ms[kind(e.key)] += e.self_cpu_time_total/1e3
    print('| operators | calls | ms |\n| --- | ---: | ---: |')
    for k in [*KINDS, 'other']: print(f'| {k} | {calls[k]} | {ms[k]:.0f} |')
    print(f'| all | {sum(calls.values())} | {sum(ms.values()):.0f} |')
