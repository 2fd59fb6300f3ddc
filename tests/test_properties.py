"""Networks drawn at random: the right shape and finite numbers, or one error that names an argument

Whatever the lists, channels, sides, batch and type: a network is made, called, differentiated,
saved, loaded and sampled from, or refused."""
import re, tempfile, torch
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from unet_attention.sampling import SAMPLERS
from unet_attention.saving import load_unet, save_unet
from unet_attention.unet import ConditionalTAUnet, ContextTAUnet, TAUnet, UNet

draw = settings(max_examples=300, deadline=None, derandomize=True, database=None,
                suppress_health_check=list(HealthCheck), phases=[Phase.generate])

widths = st.lists(st.sampled_from([0, 1, 2, 3, 4, 6, 8, 12]), min_size=0, max_size=4)
numbers = st.lists(st.sampled_from([-1, 0, 1, 1, 2, 3]), min_size=0, max_size=5)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])
sides = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16])
names = dict(nfs=widths, attention_heads=numbers, n_blocks=numbers,
             color_channels=st.sampled_from([0, 1, 2, 3]),
             t_embed=st.sampled_from([None, 0, 1, 2, 5, 8]),
             target=st.sampled_from(['eps', 'v', 'x_0', 'flow']),
             schedule=st.sampled_from(['cosine', 'linear', 'flow']))

def matching(d):
    "Make the three lists of most cases fit, so that most are networks"
    n = len(d['nfs'])
    if d.pop('fit'):
        for k in ('attention_heads', 'n_blocks'):
            d[k] = (list(map(abs, d[k])) + [1]*n)[:n]
        d['n_blocks'] = [max(1, o) for o in d['n_blocks']]
        d['nfs'] = [max(1, o) for o in d['nfs']] or [4]
        d['attention_heads'] = [min(1, o) for o in d['attention_heads']]
        d['n_blocks'] = d['n_blocks'] or [1]
        d['attention_heads'] = d['attention_heads'] or [1]
        d['color_channels'] = max(1, d['color_channels'])
        d['t_embed'] = d['t_embed'] or None
    return d
configs = st.fixed_dictionaries({**names, 'fit': st.sampled_from([True]*4 + [False])}).map(matching)

def refused(f, *args, **kw):
    "The result of `f`, or `None` if it is refused with an error of one line that names an argument"
    try: return f(*args, **kw)
    except (ValueError, TypeError) as e:
        said = str(e)
        assert '\n' not in said and len(said) < 400, said
        known = [*names, 'num_heads', 'n_classes', 'n_tokens', 'x', 't', 'c', 'sz']
        assert re.match(rf"({'|'.join(known)})(\[\d\])? must ", said), said

def check(model, c, shape, dtype):
    "Call, differentiate, save, load and sample"
    b = shape[0]
    model.to(dtype)
    for p in model.parameters(): torch.nn.init.normal_(p, std=.2)
    x,t = torch.randn(shape, dtype=dtype),torch.rand(b)
    args = () if c is None else (c,)
    y = refused(model, x, t, *args)
    if y is None: return False
    assert y.shape == x.shape and y.dtype == dtype and y.isfinite().all()
    y.float().pow(2).mean().backward() if b else y.sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads)
    with tempfile.TemporaryDirectory() as d: twin = load_unet(save_unet(model, d))
    model.eval()
    assert torch.equal(model(x, t, *args), twin(x, t, *args))
    if b:
        kw = dict(n_steps=2, progress=False, **({} if c is None else dict(c=c, guidance=2.)))
        x_0,_ = SAMPLERS['dpm_solver'](model.float(), shape, **kw)
        assert x_0.shape == shape and x_0.isfinite().all()
    return True

case = dict(config=configs, b=st.sampled_from([0, 1, 1, 2, 3]), h=sides, w=sides, dtype=dtypes,
            whole=st.sampled_from([True]*4 + [False]))
counted = dict(made=0, refused=0)

def one(kind, first, config, b, h, w, dtype, whole, c):
    torch.manual_seed(0)
    model = refused(kind, *first, **config)
    if model is not None and whole:                           # sides that the levels divide
        h,w = (model.factor*max(1, o//model.factor) for o in (h, w))
    ok = model is not None and check(model, c, (b, max(1, config['color_channels']), h, w), dtype)
    counted['made' if ok else 'refused'] += 1

@draw
@given(**case)
def test_plain(config, b, h, w, dtype, whole):
    one(TAUnet, (), config, b, h, w, dtype, whole, None)

@draw
@given(**case)
def test_simple(config, b, h, w, dtype, whole):
    config = {k: config[k] for k in ('nfs', 'color_channels', 'target', 'schedule')}
    one(UNet, (), dict(config, t_embed=8, num_heads=2), b, h, w, dtype, whole, None)

@draw
@given(**case, n=st.sampled_from([0, 1, 3, 3]))
def test_classes(config, b, h, w, dtype, whole, n):
    c = torch.zeros(b, dtype=torch.long)
    one(ConditionalTAUnet, (n,), config, b, h, w, dtype, whole, c)

@draw
@given(**case)
def test_tokens(config, b, h, w, dtype, whole):
    c = torch.randint(0, 5, (b, 3))
    one(ContextTAUnet, (5,), dict(config, context_dim=4), b, h, w, dtype, whole, c)

def test_counts():
    "Of the 1,200 cases a good part are networks, and a good part are refused"
    assert counted['made'] + counted['refused'] == 1200
    assert min(counted.values()) > 250, counted
