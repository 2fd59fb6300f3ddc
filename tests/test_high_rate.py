"""The network at full size keeps what it learns at high learning rates: 90 steps on real images,
three seeds (seven minutes on two cores)"""
import os, sys, pytest
from functools import partial
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'benchmarks'))
images = os.environ.get('FASHION_MNIST_PATH')

@pytest.mark.skipif(not images, reason='the real images are not there: set FASHION_MNIST_PATH')
@pytest.mark.skipif(not find_spec('diffusers'), reason="no diffusers: pip install -e '.[bench]'")
@pytest.mark.parametrize('seed', (0, 1, 2))
@pytest.mark.parametrize('lr', (4e-3, 1e-2))
def test_high_rate(lr, seed):
    import torch
    from high_rate import FASHION, OURS, by_tens, losses
    from unet_attention.sources import get_fashion_dls
    torch.set_num_threads(os.cpu_count())               # the longest test of all
    dls = partial(get_fashion_dls, bs=32, path=images)
    means = by_tens(losses(OURS, FASHION, dls, lr, 90, seed=seed))
    assert means[-1] < .25, means
    assert all(b < 1.2*a for a,b in zip(means[4:], means[5:])), means     # from step 50 on, no jump
