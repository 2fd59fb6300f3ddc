"Blocks and samplers against those of torch and diffusers: same weights, same noise, equal to 1e-5"
import pytest, torch
from torch import nn
diffusers = pytest.importorskip('diffusers')
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.schedulers import (
    DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler, HeunDiscreteScheduler)
from unet_attention.attention import AttentionBlock, CrossAttentionBlock, MultiheadSelfAttention1D
from unet_attention.blocks import ResBlock, ResidualBlock
from unet_attention.diffusion import Denoiser, Process
from unet_attention.sampling import TIMES, ddim, ddpm, dpm_solver, even_logsnr, heun, karras

@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(42)
    with torch.no_grad(): yield

def awake(m):
    "Random weights everywhere, also where a fresh block has zeros"
    for p in m.parameters(): nn.init.normal_(p, std=.2)
    return m

def agree(a, b, eps=1e-5):
    assert a.shape == b.shape
    assert (a - b).abs().max() < eps*max(1, b.abs().max()), (a - b).abs().max()

def copy(theirs, **ours):
    "Load `ours`, pairs of weight and bias by name, into `theirs`; every parameter must be given"
    theirs.load_state_dict({f'{k}.{n}': getattr(m, n) if isinstance(m, nn.Module) else m[i]
                            for k,m in ours.items() for i,n in enumerate(('weight', 'bias'))})

@pytest.mark.parametrize('nc,nh', [(32, 1), (32, 4), (48, 8)])
def test_self_attention_torch(nc, nh):
    ours,x = awake(MultiheadSelfAttention1D(nc, nh)),torch.randn(2, nc, 6, 5)
    theirs = nn.MultiheadAttention(nc, nh, batch_first=True)
    theirs.load_state_dict({'in_proj_weight': ours.qkv.weight, 'in_proj_bias': ours.qkv.bias,
                            'out_proj.weight': ours.proj.weight, 'out_proj.bias': ours.proj.bias})
    row = x.flatten(2).mT
    agree(ours(x).flatten(2).mT, theirs(row, row, row)[0])

@pytest.mark.parametrize('channels,heads', [(32, 4), (64, 8)])
def test_attention_block_diffusers(channels, heads):
    ours,x = awake(AttentionBlock(channels, heads)),torch.randn(2, channels, 8, 8)
    theirs = Attention(
        channels, heads=heads, dim_head=channels//heads, norm_num_groups=ours.norm.num_groups,
        eps=ours.norm.eps, bias=True, residual_connection=True, _from_deprecated_attn_block=True)
    a = ours.attn; w,b = a.qkv.weight.chunk(3),a.qkv.bias.chunk(3)
    qkv = {f'to_{n}': (w[i], b[i]) for i,n in enumerate('qkv')}
    copy(theirs, group_norm=ours.norm, **qkv, **{'to_out.0': a.proj})
    agree(ours(x), theirs(x))

@pytest.mark.parametrize('cls,mode', [(ResidualBlock, 'scale_shift'), (ResBlock, 'default')])
@pytest.mark.parametrize('c_in,c_out', [(32, 32), (32, 64)])
def test_residual_diffusers(cls, mode, c_in, c_out):
    "Equal but for one thing: a shortcut with a convolution sees the normalised input here"
    ours,x,emb = awake(cls(c_in, c_out, 40)),torch.randn(2, c_in, 9, 8),torch.randn(2, 40)
    theirs = ResnetBlock2D(
        in_channels=c_in, out_channels=c_out, temb_channels=40, groups=ours.norm1.num_groups,
        groups_out=ours.norm2.num_groups, eps=ours.norm1.eps, time_embedding_norm=mode)
    parts = {o: getattr(ours, o) for o in ('norm1', 'conv1', 'norm2', 'conv2')}
    parts['time_emb_proj'] = ours.time
    if c_in != c_out: parts['conv_shortcut'] = ours.shortcut
    copy(theirs, **parts)
    want = theirs(x, emb)
    if c_in != c_out: want = want - ours.shortcut(x) + ours.shortcut(ours.norm1(x))
    agree(ours(x, emb), want)

def cross():
    ours = awake(CrossAttentionBlock(32, 24, 4))
    x,context = torch.randn(2, 32, 6, 6),torch.randn(2, 5, 24)
    mask = torch.tensor([[1,1,1,1,1], [1,1,0,0,0]]).bool()
    return ours,x,context,mask,ours.norm(x).flatten(2).mT

def test_cross_attention_torch():
    ours,x,context,mask,row = cross()
    theirs = nn.MultiheadAttention(32, 4, kdim=24, vdim=24, batch_first=True)
    (wk,wv),b = ours.kv.weight.chunk(2),torch.cat([ours.q.bias, ours.kv.bias])
    theirs.load_state_dict({'q_proj_weight': ours.q.weight, 'k_proj_weight': wk,
                            'v_proj_weight': wv, 'in_proj_bias': b,
                            'out_proj.weight': ours.proj.weight, 'out_proj.bias': ours.proj.bias})
    want = theirs(row, context, context, key_padding_mask=~mask)[0]
    agree(ours(x, context, mask), x + want.mT.view_as(x))

def test_cross_attention_diffusers():
    ours,x,context,mask,row = cross()
    theirs = Attention(32, cross_attention_dim=24, heads=4, dim_head=8, bias=True)
    (wk,wv),(bk,bv) = ours.kv.weight.chunk(2),ours.kv.bias.chunk(2)
    copy(theirs, to_q=ours.q, to_k=(wk, bk), to_v=(wv, bv), **{'to_out.0': ours.proj})
    hide = torch.zeros(2, 1, 5).masked_fill(~mask[:, None], -1e9)
    want = theirs(row, encoder_hidden_states=context, attention_mask=hide)
    agree(ours(x, context, mask), x + want.mT.view_as(x))

NAMES = dict(eps='epsilon', v='v_prediction', x_0='sample')        # what diffusers calls them

def scheduler(cls, process, n, target, **kw):
    "diffusers' scheduler of `n` steps over the times of our samplers"
    t = torch.linspace(.99, 0, n+1, dtype=torch.double).flip(0)
    abar = process.alpha(t)**2
    betas = (1 - abar[1:]/abar[:-1]).tolist()
    res = cls(n, trained_betas=betas, prediction_type=NAMES[target], **kw)
    res.set_timesteps(n)
    return res

class Net(nn.Module):
    "A network that looks at the time"
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
    def forward(self, x, t): return self.conv(x)*(1 + t.view(-1, 1, 1, 1))

sz,n = (2, 1, 6, 6),8

def follow(sampler, target, schedule, theirs, times='uniform', n=n, eps=1e-5, step=None, **kw):
    """Every `x_t` of `sampler`, and its end, against those of the scheduler `theirs(process, t)`:
    the same network, times, start, and noise on the way. `step`: called in place of its own"""
    model,x_T,x_ts = Denoiser(Net(), target, schedule),torch.randn(sz),[]
    t = TIMES[times](model.process, n)
    a,b = (torch.Generator().manual_seed(1) for _ in range(2))
    ours,_ = sampler(model, sz, n_steps=n, times=times, x_T=x_T, x_ts=x_ts, generator=a,
                     progress=False, **kw)
    their,xs = theirs(model.process, t),[]
    twice = isinstance(their, HeunDiscreteScheduler)        # in each step but the last
    scaled = isinstance(their, (HeunDiscreteScheduler, EulerDiscreteScheduler))   # x_t/alpha
    at = torch.cat([t[:1], t[1:-1].repeat_interleave(2)]) if twice else t[:-1]
    x = x_T*(their.sigmas[0]**2 + 1)**.5 if scaled else x_T
    assert len(their.timesteps) == len(at)
    for i,(s,now) in enumerate(zip(at, their.timesteps)):
        inp = their.scale_model_input(x, now) if scaled else x
        if not twice or i % 2 == 0: xs.append(inp)
        out = model(inp, s.float().expand(sz[0]))
        x = step(their, out, now, x, b) if step else their.step(out, now, x).prev_sample
    assert len(x_ts) == len(xs) == n
    for o,w in zip([*x_ts, ours], [*xs, x]): agree(o, w, eps)

spaced = pytest.mark.parametrize('times', ['uniform', 'karras', 'logsnr'])
def formulated(f):
    f = pytest.mark.parametrize('schedule', ['cosine', 'linear'])(f)
    return pytest.mark.parametrize('target', NAMES)(f)

@pytest.mark.parametrize('eta', [0., .5, 1.])
@formulated
def test_ddim_diffusers(target, schedule, eta):
    "Step by step with the same network and the same noise; `eta=1` is the ancestral sampler"
    def theirs(process, t): return scheduler(DDIMScheduler, process, n, target, clip_sample=False)
    def step(their, out, t, x, g):
        noise = torch.randn(sz, generator=g) if t else torch.zeros(sz)
        return their.step(out, t, x, eta=eta, variance_noise=noise).prev_sample
    follow(ddim, target, schedule, theirs, step=step, eta=eta)

@pytest.mark.parametrize('variance', ['small', 'large'])
@formulated
def test_ddpm_diffusers(target, schedule, variance):
    def theirs(process, t): return scheduler(DDPMScheduler, process, n, target, clip_sample=False,
                                             variance_type=f'fixed_{variance}')
    def step(their, out, t, x, g): return their.step(out, t, x, generator=g).prev_sample
    follow(ddpm, target, schedule, theirs, step=step, variance=variance)

def sigmas(process, t):
    "What a scheduler that counts in sigma/alpha keeps for our times"
    return torch.cat([(process.sigma(t)/process.alpha(t)).float()[:-1], torch.zeros(1)])

@spaced
@formulated
def test_heun_diffusers(target, schedule, times):
    def theirs(process, t):
        res = HeunDiscreteScheduler(1000, prediction_type=NAMES[target])
        res.set_timesteps(len(t) - 1)
        s = sigmas(process, t)
        res.sigmas = torch.cat([s[:1], s[1:-1].repeat_interleave(2), s[-1:]])  # as it keeps them
        return res
    # in fewer steps, ours takes Euler's where one is too large
    follow(heun, target, schedule, theirs, times, n=20, eps=1e-4)

def noisy(their, out, t, x, g):
    return their.step(out, t, x, variance_noise=torch.randn(sz, generator=g)).prev_sample

kinds = pytest.mark.parametrize('eta,kind', [(0., 'dpmsolver++'), (1., 'sde-dpmsolver++')])

@kinds
@spaced
@formulated
def test_dpm_solver_diffusers(target, schedule, times, eta, kind):
    def theirs(process, t):
        res = DPMSolverMultistepScheduler(1000, prediction_type=NAMES[target], algorithm_type=kind)
        res.set_timesteps(n)
        res.sigmas = sigmas(process, t)
        return res
    follow(dpm_solver, target, schedule, theirs, times, eps=1e-4, step=noisy, eta=eta)

@kinds
@spaced
def test_dpm_solver_flow_diffusers(times, eta, kind):
    def theirs(process, t):
        res = DPMSolverMultistepScheduler(1000, prediction_type='flow_prediction',
                                          use_flow_sigmas=True, algorithm_type=kind)
        res.set_timesteps(n)
        res.sigmas = process.sigma(t).float()
        return res
    follow(dpm_solver, 'flow', 'flow', theirs, times, eps=1e-4, step=noisy, eta=eta)

@pytest.mark.parametrize('times', ['uniform', 'trailing', 'karras'])
def test_flow_diffusers(times):
    "In the schedule of flow matching `ddim` is Euler's method"
    def theirs(process, t):
        res = FlowMatchEulerDiscreteScheduler(1000)
        res.set_timesteps(n)
        res.sigmas = process.sigma(t).float()
        return res
    follow(ddim, 'flow', 'flow', theirs, times)

@spaced
@formulated
def test_euler_diffusers(target, schedule, times):
    "`ddim` without noise is Euler's method in `sigma/alpha`"
    def theirs(process, t):
        res = EulerDiscreteScheduler(1000, prediction_type=NAMES[target])
        res.set_timesteps(n)
        res.sigmas = sigmas(process, t)
        return res
    follow(ddim, target, schedule, theirs, times, eps=1e-4)

@formulated
def test_clip_diffusers(target, schedule):
    "Clipping the predicted `x_0` changes the noise that goes with it"
    def theirs(process, t): return scheduler(DDIMScheduler, process, n, target, clip_sample=True,
                                             clip_sample_range=.5)
    def step(their, out, t, x, g):
        return their.step(out, t, x, use_clipped_model_output=True).prev_sample
    follow(ddim, target, schedule, theirs, step=step, clip=.5)

@pytest.mark.parametrize('spacing,option', [(karras, 'use_karras_sigmas'),
                                            (even_logsnr, 'use_lu_lambdas')])
def test_spacing_diffusers(spacing, option):
    "Our spacings are theirs, between the same ends"
    theirs = DPMSolverMultistepScheduler(1000, **{option: True})
    theirs.set_timesteps(n)
    hi,lo = theirs.sigmas[0].item(),theirs.sigmas[-2].item()
    process = Process('v', 'cosine')
    agree(sigmas(process, spacing(process, n, r_max=hi, r_min=lo)), theirs.sigmas, 1e-4)

def test_agree_can_fail():
    with pytest.raises(AssertionError): agree(torch.zeros(2), torch.full((2,), 1e-4))

def test_layout_unet2d():
    "What 03's table says of diffusers' network: one block more a level in the decoder, the middle"
    kinds = dict(down_block_types=('DownBlock2D', 'AttnDownBlock2D'),
                 up_block_types=('AttnUpBlock2D', 'UpBlock2D'))
    m = diffusers.UNet2DModel(block_out_channels=(32, 64), layers_per_block=2, **kinds)
    assert [len(o.resnets) for o in m.down_blocks] == [2, 2]
    assert [len(o.resnets) for o in m.up_blocks] == [3, 3]
    assert (len(m.mid_block.resnets), len(m.mid_block.attentions)) == (2, 1)
    assert m.config.resnet_time_scale_shift == 'default' and m.config.norm_num_groups == 32

@pytest.mark.parametrize('name,schedule,most', [('squaredcos_cap_v2', 'cosine', .0075),
                                                ('linear', 'linear', .001)])
def test_index_of_time(name, schedule, most):
    "What 04 says of diffusers' index i: it is about our time (i+1)/1000"
    theirs = DDPMScheduler(beta_schedule=name).alphas_cumprod
    ours = Process('eps', schedule).alpha((torch.arange(1000) + 1.)/1000)**2
    assert (theirs - ours).abs().max() < most
    shifted = Process('eps', schedule).alpha(torch.arange(1000)/1000)**2
    assert (theirs - ours).abs().mean() < (theirs - shifted).abs().mean()

@pytest.mark.parametrize('ours,theirs,most', [
    ('cosine', 'squaredcos_cap_v2', .009), ('linear', 'linear', .002)])
def test_schedules_of_the_dictionary(ours, theirs, most):
    "`abar` at time k/999 beside their `alphas_cumprod` at step k: as far apart as the pages say"
    k = torch.arange(1000, dtype=torch.double)
    there = DDPMScheduler(1000, beta_schedule=theirs).alphas_cumprod
    apart = (there - Process('eps', ours).alpha(k/999)**2).abs().max()
    assert most/3 < apart < most


@pytest.mark.parametrize('dtype, eps', [(torch.double, 1e-4), (torch.bfloat16, .1)])
def test_a_network_in_another_type(dtype, eps):
    "diffusers' network in double or bfloat16 samples as in float32, into float32"
    net = diffusers.UNet2DModel(8, 1, 1, block_out_channels=(32, 32), layers_per_block=1,
        down_block_types=['DownBlock2D']*2, up_block_types=['UpBlock2D']*2).eval()
    x_T,kw = torch.randn(2, 1, 8, 8),dict(n_steps=4, progress=False)
    def x_0(): return ddim(Denoiser(net, 'v', time_scale=999), x_T.shape, x_T=x_T, **kw)[0]
    plain = x_0()
    net.to(dtype)
    assert x_0().dtype == torch.float32
    agree(x_0(), plain, eps)
