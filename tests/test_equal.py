"Blocks and samplers against those of torch and diffusers: same weights, same noise, equal to 1e-5"
import pytest, torch
from torch import nn
diffusers = pytest.importorskip('diffusers')
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.schedulers import (DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler,
                                  FlowMatchEulerDiscreteScheduler, HeunDiscreteScheduler)
from unet_attention.attention import AttentionBlock, CrossAttentionBlock, MultiheadSelfAttention1D
from unet_attention.blocks import ResBlock, ResidualBlock
from unet_attention.diffusion import Denoiser, Process
from unet_attention.sampling import TIMES, ddim, ddpm, dpm_solver, heun

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

def follow(sampler, theirs, model, f, sz, n, **kw):
    "`sampler` and their scheduler from the same noise, with the same noise on the way"
    x_T = torch.randn(sz)
    a,b = torch.Generator().manual_seed(1),torch.Generator().manual_seed(1)
    ours,_ = sampler(model, sz, n_steps=n, x_T=x_T, generator=a, progress=False, **kw)
    x = x_T*getattr(theirs, 'init_noise_sigma', 1.)
    for t in theirs.timesteps: x = theirs.step(f(theirs.scale_model_input(x, t), t), t, x, b)
    return ours,x

sz,n = (2, 1, 6, 6),8

@pytest.mark.parametrize('eta', [0., .5, 1.])
@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
@pytest.mark.parametrize('target', NAMES)
def test_ddim_diffusers(target, schedule, eta):
    "Step by step with the same network and the same noise; `eta=1` is the ancestral sampler"
    f = nn.Conv2d(1, 1, 3, padding=1)
    model = Denoiser(lambda x,t: f(x), target, schedule)
    theirs = scheduler(DDIMScheduler, model.process, n, target, clip_sample=False)
    step = theirs.step
    def noisy(out, t, x, g):
        noise = torch.randn(sz, generator=g) if t else torch.zeros(sz)
        return step(out, t, x, eta=eta, variance_noise=noise).prev_sample
    theirs.step = noisy
    agree(*follow(ddim, theirs, model, lambda x,t: f(x), sz, n, eta=eta))

@pytest.mark.parametrize('variance', ['small', 'large'])
@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
@pytest.mark.parametrize('target', NAMES)
def test_ddpm_diffusers(target, schedule, variance):
    f = nn.Conv2d(1, 1, 3, padding=1)
    model = Denoiser(lambda x,t: f(x), target, schedule)
    theirs = scheduler(DDPMScheduler, model.process, n, target, clip_sample=False,
                       variance_type=f'fixed_{variance}')
    step = theirs.step
    theirs.step = lambda out, t, x, g: step(out, t, x, generator=g).prev_sample
    agree(*follow(ddpm, theirs, model, lambda x,t: f(x), sz, n, variance=variance))

def sigmas(theirs, times, process):
    "Give a scheduler that counts in sigma/alpha the times of ours"
    t = torch.as_tensor(times, dtype=torch.double)
    r = (process.sigma(t)/process.alpha(t)).float()
    return torch.cat([r[:-1], torch.zeros(1)])

@pytest.mark.parametrize('times', ['uniform', 'karras', 'logsnr'])
@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
@pytest.mark.parametrize('target', NAMES)
def test_heun_diffusers(target, schedule, times):
    n = 20         # with fewer, ours takes Euler's step where a step is too large
    f,process = nn.Conv2d(1, 1, 3, padding=1),Process(target, schedule)
    model = Denoiser(lambda x,t: f(x), target, schedule)
    theirs = HeunDiscreteScheduler(1000, prediction_type=NAMES[target])
    theirs.set_timesteps(n)
    s = sigmas(theirs, TIMES[times](process, n), process)
    theirs.sigmas = torch.cat([s[:1], s[1:-1].repeat_interleave(2), s[-1:]])     # as it keeps them
    x_T = torch.randn(sz)
    ours,_ = heun(model, sz, n_steps=n, x_T=x_T, times=times, progress=False)
    x = x_T*(s[0]**2 + 1)**.5
    for t in theirs.timesteps: x = theirs.step(f(theirs.scale_model_input(x, t)), t, x).prev_sample
    agree(ours, x, 1e-4)

@pytest.mark.parametrize('eta,kind', [(0., 'dpmsolver++'), (1., 'sde-dpmsolver++')])
@pytest.mark.parametrize('times', ['uniform', 'karras', 'logsnr'])
@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
@pytest.mark.parametrize('target', NAMES)
def test_dpm_solver_diffusers(target, schedule, times, eta, kind):
    f,process = nn.Conv2d(1, 1, 3, padding=1),Process(target, schedule)
    model = Denoiser(lambda x,t: f(x), target, schedule)
    theirs = DPMSolverMultistepScheduler(1000, prediction_type=NAMES[target], algorithm_type=kind)
    theirs.set_timesteps(n)
    theirs.sigmas = sigmas(theirs, TIMES[times](process, n), process)
    step = theirs.step
    theirs.step = lambda out, t, x, g: step(
        out, t, x, variance_noise=torch.randn(sz, generator=g)).prev_sample
    agree(*follow(dpm_solver, theirs, model, lambda x,t: f(x), sz, n, times=times, eta=eta), 1e-4)

def test_flow_diffusers():
    "In the schedule of flow matching `ddim` is Euler's method"
    f,model = nn.Conv2d(1, 1, 3, padding=1),None
    model = Denoiser(lambda x,t: f(x), 'flow', 'flow')
    theirs = FlowMatchEulerDiscreteScheduler(1000)
    theirs.set_timesteps(n)
    theirs.sigmas = TIMES['trailing'](model.process, n).float()
    x = x_T = torch.randn(sz)
    ours,_ = ddim(model, sz, n_steps=n, x_T=x_T, times='trailing', progress=False)
    for t in theirs.timesteps: x = theirs.step(f(x), t, x).prev_sample
    agree(ours, x)

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
