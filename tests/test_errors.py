"""Wrong arguments: each row is a call, the error that it must raise, and what the error must say.

A notebook shows one such case for each public class; the others are here, one section a module."""
import math, re
import pytest, torch
from torch import nn
from unet_attention.attention import AttentionBlock, CrossAttentionBlock, MultiheadSelfAttention1D
from unet_attention.averages import PowerEMA, power_of
from unet_attention.diffusion import Denoiser
from unet_attention.editing import inpaint, sdedit
from unet_attention.embeddings import ClassEmbedding, ConditionEmbedding
from unet_attention.embeddings import TimestepEmbedding, TokenEmbedding
from unet_attention.sampling import as_sampler, noise_source

T,V = TypeError,ValueError

# --- attention
attention = [
    (lambda: MultiheadSelfAttention1D(32, 5), V, 'nh must divide nc: nc=32 is not a multiple of'),
    (lambda: MultiheadSelfAttention1D(32, 0), V, 'nh must be at least 1, got 0'),
    (lambda: MultiheadSelfAttention1D(-8, 2), V, 'nc must be at least 1, got -8'),
    (lambda: MultiheadSelfAttention1D(32., 4), T, 'nc must be a whole number, got 32.0'),
    (lambda: MultiheadSelfAttention1D(32, True), T, 'nh must be a whole number, got True'),
    (lambda: AttentionBlock(48, 5), V, 'num_heads must divide channels: channels=48 is not'),
    (lambda: AttentionBlock(0), V, 'channels must be at least 1, got 0'),
    (lambda: AttentionBlock('48'), T, "channels must be a whole number, got '48'"),
    (lambda: CrossAttentionBlock(32, 24, 5), V, 'num_heads must divide channels: channels=32'),
    (lambda: CrossAttentionBlock(32, 0), V, 'context_dim must be at least 1, got 0'),
    (lambda: CrossAttentionBlock(32, None), T, 'context_dim must be a whole number, got None'),
]

# --- embeddings
labels = ClassEmbedding(10, 4)
vectors = ConditionEmbedding(nn.Linear(2, 4), 4)
captions = TokenEmbedding(9, 4, max_len=6)
tokens = torch.tensor([[1, 5, 3, 0], [2, 5, 0, 0]])
wide = ConditionEmbedding(nn.Linear(2, 5), 4)
flat = ConditionEmbedding(nn.Flatten(0), 2)
meta = torch.empty(2, device='meta')                         # its values cannot be looked at

embeddings = [
    (lambda: TimestepEmbedding(5), V, 'dim must be even, got 5'),
    (lambda: TimestepEmbedding(0), V, 'dim must be at least 1, got 0'),
    (lambda: TimestepEmbedding(64, 0), V, 't_embed must be at least 1, got 0'),
    (lambda: TimestepEmbedding(64, scale=math.nan), V, 'scale must be a number in (-inf, inf)'),
    (lambda: ClassEmbedding(0, 4), V, 'n_classes must be at least 1, got 0'),
    (lambda: ClassEmbedding(10, 4.), T, 'dim must be a whole number, got 4.0'),
    (lambda: ClassEmbedding(10, 4, p_uncond=1.), V, 'p_uncond must be a number in [0, 1), got 1.0'),
    (lambda: labels.check(torch.tensor([10])), V, 'c must lie in [0, 9], got 10..10'),
    (lambda: labels.check(torch.tensor([3, -1])), V, 'c must lie in [0, 9], got -1..3'),
    (lambda: labels.check(torch.tensor([1, 2]), 3), V, 'c must be (3,), got (2,)'),
    (lambda: labels.check(torch.tensor([[1]])), V, 'c must be (b,), got (1, 1)'),
    (lambda: labels.check(torch.tensor([1.])), T, 'c must be whole numbers, got torch.float32'),
    (lambda: labels.check(torch.tensor([True])), T, 'c must be whole numbers, got torch.bool'),
    (lambda: labels.check([1]), T, 'c must be a tensor, (b,), got list'),
    (lambda: labels.check(meta), T, 'c must be whole numbers, got torch.float32'),
    (lambda: labels.check(meta.long(), 3), V, 'c must be (3,), got (2,)'),
    (lambda: ConditionEmbedding(len, 4), T, 'module must be an nn.Module, got <built-in'),
    (lambda: ConditionEmbedding(nn.Identity(), 0), V, 'dim must be at least 1, got 0'),
    (lambda: ConditionEmbedding(nn.Flatten(), 4, -.1), V, 'p_uncond must be a number in [0, 1)'),
    (lambda: vectors.check(torch.rand(5, 2), 3), V, 'c must be (3, ...), got (5, 2)'),
    (lambda: vectors.check(torch.tensor(1.), 3), V, 'c must be (3, ...), got ()'),
    (lambda: vectors.check(.5, 3), T, 'c must be a tensor, (3, ...), got float'),
    (lambda: wide(torch.rand(3, 2), 3), V, 'module(c) must be (3, 4), got (3, 5)'),
    (lambda: flat(torch.rand(1, 2), 1), V, 'module(c) must be (1, 2), got (2,)'),
    (lambda: TokenEmbedding(1, 4), V, 'n_tokens must be at least 2, got 1'),
    (lambda: TokenEmbedding(9, 0), V, 'dim must be at least 1, got 0'),
    (lambda: TokenEmbedding(9, 4, max_len=0), V, 'max_len must be at least 1, got 0'),
    (lambda: TokenEmbedding(9, 4, p_uncond='0'), T, "p_uncond must be a number, got '0'"),
    (lambda: captions.check(tokens + 9), V, 'c must lie in [0, 8], got 9..14'),
    (lambda: captions.check(tokens - 1), V, 'c must lie in [0, 8], got -1..4'),
    (lambda: captions.check(tokens*0), V, 'c must have a token other than 0 in each caption'),
    (lambda: captions.check(tokens[0]), V, 'c must be (b, m), got (4,)'),
    (lambda: captions.check(tokens, 3), V, 'c must be (3, m), got (2, 4)'),
    (lambda: captions.check(tokens.float()), T, 'c must be whole numbers, got torch.float32'),
    (lambda: captions.check(tokens.repeat(1, 2)), V, 'c must have 1 to 6 tokens a caption, got 8'),
    (lambda: captions.check(tokens[:, :0]), V, 'c must have 1 to 6 tokens a caption, got 0'),
    (lambda: captions.check('a red circle'), T, 'c must be a tensor, (b, m), got str'),
]

# --- averages
w = torch.zeros(2)
averages = [
    (lambda: power_of(0), V, 'sigma must be a number in (0, 0.28], got 0'),
    (lambda: PowerEMA([]), V, 'weights must be a list of parameters, got []'),
    (lambda: PowerEMA([w, w.long()]), T, 'weights[1] must be floating point, got torch.int64'),
    (lambda: PowerEMA(nn.Linear(2, 2).state_dict()), T, 'weights[0] must be a tensor, got str'),
    (lambda: PowerEMA([w], .1), T, 'sigmas must be a list of lengths, got 0.1'),
    (lambda: PowerEMA([w], ()), T, 'sigmas must be a list of lengths, got ()'),
    (lambda: PowerEMA([w]).keep(), V, 'step must be 1 or more: call update() first'),
    (lambda: PowerEMA([w]).average(.1), V, 'PowerEMA must have copies: call keep() first'),
]

# --- what samplers and editing share
zero = Denoiser(lambda x, t: 0*x, 'v')
x = torch.zeros(2, 1, 8, 8)
sampling = [
    (lambda: as_sampler('x'), V, "sampler must be one of 'ddpm', 'ddim', 'heun', 'dpm_solver'"),
    (lambda: as_sampler(3), T, 'sampler must be a function or a name in SAMPLERS, got 3'),
    (lambda: sdedit(zero, x, sampler=None), T, 'sampler must be a function or a name'),
    (lambda: sdedit(zero, x[0]), V, 'x must be (b, c, h, w), got (1, 8, 8)'),
    (lambda: noise_source((2, -1)), V, 'sz[1] must be at least 0, got -1'),
    (lambda: noise_source(None), T, 'sz must be a list or tuple of whole numbers, got None'),
    (lambda: noise_source((2, 3), generator=3), T, 'generator must be a torch.Generator or a list'),
    (lambda: inpaint(zero, x, torch.ones(3, *x.shape).bool()), V, 'known must be broadcastable to'),
]

rows = dict(attention=attention, embeddings=embeddings, averages=averages, sampling=sampling)

@pytest.mark.parametrize('call,error,says', [
    pytest.param(*row, id=f'{module}: {row[2]}') for module,table in rows.items() for row in table])
def test_error(call, error, says):
    with pytest.raises(error, match=re.escape(says)): call()
