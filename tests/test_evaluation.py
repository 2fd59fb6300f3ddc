"Scores against independent implementations, the classifiers, and wrong arguments"
import os
import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from unet_attention.diffusion import Denoiser, Process
from unet_attention.evaluation import (ImageEval, class_consistency, copy_limit, fid, kid,
                                       load_classifier, memorised, precision_recall)
from unet_attention.sampling import ddim, generate
from unet_attention.shapes import shapes
from unet_attention.sources import get_fashion_dls
from unet_attention.unet import ConditionalTAUnet

torch.manual_seed(0)
a = torch.randn(300, 6) @ torch.randn(6, 6)
b = torch.randn(250, 6) + .3

def test_fid_is_the_formula():
    x,y = a.double().numpy(), b.double().numpy()
    s,u = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(s @ u).real
    want = ((x.mean(0) - y.mean(0))**2).sum() + np.trace(s + u - 2*root)
    assert abs(fid(a, b) - want) < 1e-6*want
    assert fid(a, a) < 1e-9 and fid(a[:4], a[4:8]) >= 0          # fewer images than features

def test_kid_is_the_formula():
    "By loops over all pairs; the standard error by leaving each image out in turn"
    def by_loops(x, y):
        k = lambda u, v: (float(u @ v)/6 + 1)**3
        def inner(o): return sum(k(u, v) for u in o for v in o if u is not v)/len(o)/(len(o) - 1)
        return inner([*x]) + inner([*y]) - 2*sum(k(u, v) for u in x for v in y)/len(x)/len(y)
    x,y = a[:20].double(), b[:15].double()
    without = lambda o: [torch.cat([o[:i], o[i+1:]]) for i in range(len(o))]
    each = [by_loops(o, y) for o in without(x)],[by_loops(x, o) for o in without(y)]
    se = sum((len(o) - 1)**2/len(o)*np.var(o, ddof=1) for o in each)**.5
    assert kid(x, y) == pytest.approx((by_loops(x, y), se), rel=1e-6)
    assert kid(x.flip(0), y) == pytest.approx(kid(x, y))             # the order does not matter

@pytest.mark.parametrize('shift', (0, .3))
def test_kid_knows_its_error(shift):
    "Its standard error is that of many draws; of equal distributions it may be half too large"
    g = torch.Generator().manual_seed(1)
    draw = lambda n, m=0.: torch.randn(n, 8, generator=g) + m
    value,se = np.array([kid(draw(100, shift), draw(150)) for _ in range(200)]).T
    assert .8 < se.mean()/value.std() < (1.25 if shift else 1.6)
    assert shift or abs(value.mean()) < 4*value.std()/200**.5         # no bias

def test_precision_recall_by_loops():
    def inside(x, y, k=3):
        d = lambda u, v: float((u - v).norm())
        r = [sorted(d(u, v) for v in y)[k] for u in y]
        return sum(any(d(u, v) <= q for v,q in zip(y, r)) for u in x)/len(x)
    x,y = a[:60].double(), b[:50].double()
    assert precision_recall(x, y) == pytest.approx((inside(x, y), inside(y, x)), abs=1e-6)

def test_copies_held_twice():
    "A copy is found although the training set holds its original twice"
    train,unseen = shapes(300, seed=1).x, shapes(200, seed=2).x
    twice = torch.cat([train, train[:50]])
    assert memorised(train[:50], twice, unseen) == 1
    assert memorised(unseen, twice, unseen, limit=copy_limit(twice, unseen)) < .05

def test_shapes_classifier():
    unseen = shapes(500, seed=9)
    assert class_consistency(load_classifier('shapes'), unseen.x, unseen.y) > .99

@pytest.mark.skipif(not os.environ.get('FASHION_MNIST_PATH'), reason='needs FASHION_MNIST_PATH')
def test_fashion_classifier():
    test = get_fashion_dls(bs=8).valid.dataset
    assert class_consistency(load_classifier('fashion'), test.x, test.y) > .93

x = shapes(20, seed=1)
judge = load_classifier('shapes')
eps = Denoiser(lambda x, t: x, 'eps')
holed = x.x/127.5 - 1
holed[7, 0, 3, 3] = float('nan')
def scorer(): return ImageEval(x.x, x.x, judge.features)
WRONG = [
    ('a must have at least 2 rows', lambda: fid(a[:1], b)),
    ('a must be finite', lambda: fid(a*float('nan'), b)),
    ('b must be (m, 6)', lambda: kid(a, b[:, :3])),
    ('b must have at least 4 rows', lambda: precision_recall(a, b[:3])),
    ('c must be (20,)', lambda: class_consistency(judge, x.x, x.y[:, None])),
    ('bs must be at least 1', lambda: class_consistency(judge, x.x, x.y, bs=0)),
    ('train must have at least 2 images', lambda: memorised(x.x, x.x[:1], x.x)),
    ('x must be (n, 3, 32, 32)', lambda: ImageEval(x.x, x.x, judge.features).embed(x.x[0])),
    ("name must be one of 'fashion', 'shapes'", lambda: load_classifier('inception')),
    ('times must begin below 1', lambda: ddim(eps, (1, 1, 4, 4), times='trailing')),
    ('times must be one of', lambda: ddim(eps, (1, 1, 4, 4), times='even')),
    ('times must be n_steps + 1 = 3 numbers',
     lambda: ddim(eps, (1, 1, 4, 4), n_steps=2, times=[.9, .95, 0.])),
    ('interval must be two numbers', lambda: ddim(eps, (1, 1, 4, 4), interval=None)),
    ('interval must be two numbers', lambda: ddim(eps, (1, 1, 4, 4), interval=(.9, .1))),
    ('model(x_t, t) must be (1, 1, 4, 4)',
     lambda: ddim(Denoiser(lambda x, t: x[None], 'v'), (1, 1, 4, 4))),
    ('value_range must be', lambda: generate(eps, 2, (1, 4, 4), value_range=(1, -1))),
    ('sampler must be one of', lambda: generate(eps, 2, (1, 4, 4), sampler='euler')),
    ('c must be (3, ...)', lambda: generate(eps, 3, (1, 4, 4), c=torch.zeros(2))),
    ('name must be one of', lambda: Process().loss_weight('snr', torch.rand(3))),
    ('held_out must lie in [-16, 16], got nan', lambda: memorised(x.x, x.x, holed)),
    ('x must lie in [-16, 16], got nan', lambda: memorised(holed, x.x, x.x)),
    ('train must lie in [-16, 16], got nan', lambda: copy_limit(holed, x.x)),
    ('limit must be a number in [0, 1]', lambda: memorised(x.x, x.x, x.x, limit=float('nan'))),
    ('most must be at least 1', lambda: memorised(x.x, x.x, x.x, most=-5, limit=.1)),
    ('x must be uint8 or floating point', lambda: class_consistency(judge, x.x.long(), x.y)),
    ('x must be uint8 or floating point', lambda: memorised(x.x.int(), x.x, x.x)),
    ('x must lie in [-16, 16], got 0..255', lambda: class_consistency(judge, x.x.float(), x.y)),
    ('x must have at least 1 image', lambda: class_consistency(judge, x.x[:0], x.y[:0])),
    ('c must lie in [0, 11]', lambda: class_consistency(judge, x.x, x.y + 99)),
    ('classifier(x) must be (20, n)', lambda: class_consistency(lambda x: x[:1, 0, 0], x.x, x.y)),
    ('labels must be (20,)', lambda: ImageEval(x.x, x.x, judge.features, judge, x.y[:5])),
    ('held_out must be (n, 3, 32, 32)', lambda: ImageEval(x.x, x.x[..., :28], judge.features)),
    ('features(x) must be (20, d)', lambda: ImageEval(x.x, x.x, lambda x: x)),
    ('x must be sets of 9 images', lambda: scorer()([x.x[:9], x.x[:8]])),
    ('x must be images, or a list', lambda: scorer()([])),
    ('x must have at least 4 images', lambda: scorer()(x.x[:3])),
    ('sampler must return the images and a list',
     lambda: generate(eps, 2, (1, 4, 4), sampler=lambda model, sz, device, **kw: torch.zeros(sz))),
    ('what sampler returns must be (2, 1, 4, 4)',
     lambda: generate(eps, 2, (1, 4, 4), sampler=lambda *a, **kw: (torch.zeros(7, 1, 4, 4), []))),
    ('seed must be a number in [0, 4294967295]', lambda: generate(eps, 2, (1, 4, 4), seed=2**32)),
    ('negative must be None without c', lambda: ddim(eps, (1, 1, 4, 4), negative=x.y[:1]))]

@pytest.mark.parametrize('what,f', WRONG, ids=[o for o,_ in WRONG])
def test_wrong_argument(what, f):
    with pytest.raises((ValueError, TypeError)) as e: f()
    assert str(e.value).startswith(what), e.value

def test_all_labels_before_the_first_step():
    "`generate` evaluates nothing if the last label is wrong"
    asked,net = [],ConditionalTAUnet(4, nfs=(8,16), attention_heads=(0,2), n_blocks=(1,1))
    net.register_forward_hook(lambda *a: asked.append(1))
    with pytest.raises(ValueError, match='c must lie in'):
        generate(net, 3, (3, 8, 8), c=torch.tensor([0, 1, 9]), bs=1, n_steps=2, progress=False)
    assert not asked

def test_network_that_writes_into_its_input():
    nets = [Denoiser(nn.Sequential(nn.LeakyReLU(.1, inplace=i), nn.Conv2d(1, 1, 1)), 'eps')
            for i in (True, False)]
    nets[1].load_state_dict(nets[0].state_dict())
    each = [Denoiser(lambda x, t, m=m: m.model(x), 'eps') for m in nets]
    one,two = (generate(m, 3, (1, 4, 4), n_steps=5, progress=False) for m in each)
    assert torch.equal(one, two)

def test_precision_far_from_zero():
    "What all features have in common makes no difference"
    x,y = a[:200], torch.cat([b, b])[:200]*1.3
    assert precision_recall(x + 1e4, y + 1e4) == pytest.approx(precision_recall(x, y), abs=.01)

def test_not_finite():
    "A sampler names the step"
    bad = Denoiser(lambda x, t: x/(t[0] > .5), 'v')
    with pytest.raises(FloatingPointError, match='by step 4 of 5'):
        ddim(bad, (1, 1, 4, 4), n_steps=5, progress=False)

def of_class(k, n): return torch.full((n, 1, 8, 8), 25*k) + torch.randint(0, 10, (n, 1, 8, 8))

def test_floor_of_sorted_images():
    "Held-out images that are sorted by class, and fewer than samples: the floor is theirs"
    torch.manual_seed(0)
    train,held = (torch.cat([of_class(k, n) for k in range(10)]).byte() for n in (100, 50))
    features = lambda x: x.flatten(1)[:, :4]
    score = ImageEval(train, held, features)
    assert score(train[::20])['fid'].floor < .5 and 'real images' in str(score(train[::20]))
    assert '500 real' in str(score(train))
    few = ImageEval(train, held, features, lambda x: x.flatten(1)[:, :4], torch.arange(500)//250)
    with pytest.raises(ValueError, match='held_out must have at least 4 images of the classes c'):
        few(train[:20], torch.full((20,), 2))

def test_logits_that_are_no_numbers():
    with pytest.raises(ValueError, match=r'classifier\(x\) must be finite numbers'):
        class_consistency(lambda x: torch.full((len(x), 4), torch.nan), x.x[:4], x.y[:4])

def test_features_of_any_network():
    "Inception, say: any function of the images"
    net = nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, 5))
    score = ImageEval(shapes(60, seed=1).x, shapes(60, seed=2).x, net)
    with torch.no_grad(): res = score(shapes(30, seed=3).x, torch.zeros(30).long())
    assert 'class_consistency' not in res and res['fid'].value >= 0
