"Networks and samplers are plain tensor programs: one graph, few calls, no waiting for a device"
import sys
from pathlib import Path
import pytest, torch, torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from unet_attention.diffusion import noisify, to_target
from unet_attention.sampling import ddim, ddpm
from unet_attention.training import Muon, orthogonalise
from unet_attention.unet import ConditionalTAUnet, ContextTAUnet, TAUnet, UNet

small = dict(nfs=(8,16), attention_heads=(0,2), n_blocks=(1,1), color_channels=1)
tokens = torch.tensor([[1,2], [3,0], [8,8]])
networks = {'UNet': (lambda: UNet((8,16), 1, 32, 2), None),
            'TAUnet': (lambda: TAUnet(**small), None),
            'ConditionalTAUnet': (lambda: ConditionalTAUnet(4, **small), torch.tensor([0, 1, 3])),
            'ContextTAUnet': (lambda: ContextTAUnet(9, **small), tokens)}

@pytest.fixture(params=networks)
def net(request):
    torch.manual_seed(0)
    make,c = networks[request.param]
    model = make()
    for p in model.parameters():
        if not p.any(): torch.nn.init.normal_(p, std=.1)
    return model, () if c is None else (c,)

def step(model, x_0, t, eps, *c):
    x_t,_,_ = noisify(x_0, t, eps)
    return F.mse_loss(model(x_t, t, *c), to_target(x_0, eps, t))

@pytest.mark.filterwarnings('error:Dynamo')
def test_one_graph(net):
    "A training step compiles without a break or a warning: loss and gradients of an eager one"
    model,c = net
    model.eval()                                        # nothing dropped at random
    args = torch.randn(3, 1, 8, 8), torch.rand(3), torch.randn(3, 1, 8, 8), *c
    torch._dynamo.reset()
    losses,grads = [],[]
    for f in (step, torch.compile(step, fullgraph=True, backend='aot_eager')):
        model.zero_grad()
        loss = f(model, *args)
        loss.backward()
        losses.append(loss.item())
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for a,b in zip(*grads, strict=True): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)

def test_training_mode_compiles(net):
    "Conditions that are dropped at random, too, are part of the graph"
    model,c = net
    torch._dynamo.reset()
    f = torch.compile(step, fullgraph=True, backend='aot_eager')
    x,t,eps = torch.randn(3, 1, 8, 8),torch.rand(3),torch.randn(3, 1, 8, 8)
    assert f(model.train(), x, t, eps, *c).isfinite()

def test_free_batch_size(net):
    "An exported network takes batches of any size"
    model,c = net
    model.eval()
    b = torch.export.Dim('b', min=2, max=64)
    args = torch.randn(3, 1, 8, 8), torch.rand(3), *c
    free = tuple({0: b} for _ in args)
    program = torch.export.export(model, args, dynamic_shapes=free, strict=False)
    five = [o.repeat(2, *[1]*(o.ndim-1))[:5] for o in args]
    torch.testing.assert_close(program.module()(*five), model(*five), rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize('sampler', (ddpm, ddim))
def test_sampling_waits_for_nothing(net, sampler):
    "On torch's 'meta' device tensors have no values: whatever looked at one would fail"
    model,c = net
    model.to('meta')
    kw = dict(c=c[0].to('meta'), guidance=2.) if c else {}
    x_0,x_0s = sampler(model, (3, 1, 8, 8), 'meta', n_steps=3, progress=False, **kw)
    assert x_0.is_meta and len(x_0s) == 3

def test_training_step_waits_for_nothing(net):
    model,c = net
    model.to('meta')
    meta = lambda *s: torch.empty(*s, device='meta')
    c = [o.to('meta') for o in c]
    loss = step(model.train(), meta(3, 1, 8, 8), meta(3), meta(3, 1, 8, 8), *c)
    loss.backward()
    assert all(p.grad is None or p.grad.is_meta for p in model.parameters())

class Calls(TorchDispatchMode):
    "Counts what torch is asked to compute, views left out"
    n = 0
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        self.n += not f.is_view
        return f(*args, **(kwargs or {}))

def test_optimiser_waits_for_nothing_and_calls_little():
    "A step on the device of no values; its calls grow with the sizes of squares, not with weights"
    calls = {}
    for n in 1,4:
        model = TAUnet(nfs=(16,32), attention_heads=(0,2), n_blocks=(n,n), color_channels=1)
        model.to('meta')
        for p in model.parameters(): p.grad = torch.empty_like(p)
        opt = Muon(model.parameters())
        opt.step()
        with Calls() as c: opt.step()
        calls[n] = c.n,len(list(model.parameters()))
    more = [a - b for a,b in zip(calls[4], calls[1])]
    assert more[0] < 1.6*more[1] and calls[1][0] < 320, calls

def test_optimiser_is_one_weight_at_a_time():
    "Lists of several types, weights without gradients: as if each had an optimiser"
    torch.manual_seed(0)
    shapes = [(20,16), (16,40,3,3), (16,20), (5,), (3,3), (16,20)]
    types = [torch.float32]*4 + [torch.bfloat16, torch.float64]
    ws = [[torch.nn.Parameter(torch.randn(s).to(d)) for s,d in zip(shapes, types)] for _ in '12']
    for a,b in zip(*ws): b.data = a.data.clone()
    opts = [Muon(ws[0], tables=[ws[0][2]])], [Muon([p], tables=[ws[1][2]]) for p in ws[1]]
    for i in range(4):
        for j,(a,b) in enumerate(zip(*ws)):
            a.grad = None if i == 1 and j in (0, 3) else torch.randn_like(a)
            b.grad = None if a.grad is None else a.grad.clone()
        for o in (*opts[0], *opts[1]): o.step()
    for a,b in zip(*ws): torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert 'step' in opts[0][0].state[ws[0][2]] and orthogonalise([]) == []

def test_decay_of_bfloat16():
    "A step too small for the type leaves the weight alone, as with torch's own optimisers"
    p = torch.nn.Parameter(torch.full((3,), .75).bfloat16())
    opt = Muon([p], lr=5e-3, weight_decay=.25, eps=1e30)
    for _ in range(10):
        p.grad = torch.zeros_like(p)
        opt.step()
    assert (p == .75).all()

def test_orthogonalise_is_one_graph():
    ms = [torch.randn(16, 24), torch.randn(40, 16), torch.randn(16, 24)]
    one = torch.compile(orthogonalise, fullgraph=True, dynamic=False, backend='aot_eager')
    for a,b in zip(one(ms), orthogonalise(ms)): torch.testing.assert_close(a, b)

def test_per_sample_gradients():
    "`vmap` over a function of the network"
    from torch.func import functional_call, grad, vmap
    model = TAUnet(**small)
    params = {k: v.detach() for k,v in model.named_parameters()}
    def loss(params, x, t, y):
        return (functional_call(model, params, (x[None], t[None]))[0] - y).pow(2).mean()
    x,t,y = torch.randn(3, 1, 8, 8), torch.rand(3), torch.randn(3, 1, 8, 8)
    each = vmap(grad(loss), (None, 0, 0, 0))(params, x, t, y)
    whole = grad(lambda p: (functional_call(model, p, (x, t)) - y).pow(2).mean())(params)
    for k in params: torch.testing.assert_close(each[k].mean(0), whole[k], rtol=1e-3, atol=1e-5)

def test_few_python_calls():
    "A forward pass of three levels enters at most 53 functions of the package, checks included"
    model = TAUnet(nfs=(32,64,128), attention_heads=(0,0,4), n_blocks=(1,1,1)).eval()
    args,entered = (torch.randn(2, 3, 32, 32), torch.rand(2)),[]
    def note(frame, event, arg):
        ours = Path(frame.f_code.co_filename).parent.name == 'unet_attention'
        if event == 'call' and ours: entered.append(frame.f_code.co_name)
    model(*args)
    sys.setprofile(note)
    try: model(*args)
    finally: sys.setprofile(None)
    assert 0 < len(entered) <= 53, sorted(entered)
