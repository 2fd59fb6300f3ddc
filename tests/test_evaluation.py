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
    "One subset, by loops"
    x,y = a[:40].double(), b[:40].double()
    k = lambda u, v: (float(u @ v)/6 + 1)**3
    n = range(40)
    inner = sum(k(x[i], x[j]) + k(y[i], y[j]) for i in n for j in n if i != j)/(40*39)
    want = inner - 2*sum(k(x[i], y[j]) for i in n for j in n)/40**2
    assert abs(kid(x, y, size=40)[0] - want) < 1e-6*abs(want)

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
WRONG = [
    ('a must have at least 2 rows', lambda: fid(a[:1], b)),
    ('a must be finite', lambda: fid(a*float('nan'), b)),
    ('b must be (m, 6)', lambda: kid(a, b[:, :3])),
    ('b must have at least 4 rows', lambda: precision_recall(a, b[:3])),
    ('c must be (20,)', lambda: class_consistency(judge, x.x, x.y[:, None])),
    ('bs must be at least 1', lambda: class_consistency(judge, x.x, x.y, bs=0)),
    ('train must be two images or more', lambda: memorised(x.x, x.x[:1], x.x)),
    ('x must be (n, c, h, w)', lambda: ImageEval(x.x, x.x, judge.features).embed(x.x[0])),
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
    ('name must be one of', lambda: Process().loss_weight('snr', torch.rand(3)))]

@pytest.mark.parametrize('what,f', WRONG, ids=[o for o,_ in WRONG])
def test_wrong_argument(what, f):
    with pytest.raises((ValueError, TypeError)) as e: f()
    assert str(e.value).startswith(what), e.value

def test_not_finite():
    "A sampler names the step"
    bad = Denoiser(lambda x, t: x/(t[0] > .5), 'v')
    with pytest.raises(FloatingPointError, match='by step 4 of 5'):
        ddim(bad, (1, 1, 4, 4), n_steps=5, progress=False)

def test_features_of_any_network():
    "Inception, say: any function of the images"
    net = nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, 5))
    score = ImageEval(shapes(60, seed=1).x, shapes(60, seed=2).x, net)
    with torch.no_grad(): res = score(shapes(30, seed=3).x, torch.zeros(30).long())
    assert 'class_consistency' not in res and res['fid'].value >= 0
