"The scripts in `benchmarks/` run, tiny; how fast, no test can say"
import gzip, json, os, subprocess, sys
from importlib.util import find_spec
from pathlib import Path
import numpy as np, pytest

root = Path(__file__).resolve().parent.parent

def run(script, *args):
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(root)}
    r = subprocess.run([sys.executable, root/'benchmarks'/script, *map(str, args)], capture_output=True, text=True, env=env)
    return r.returncode, r.stdout, r.stderr

@pytest.mark.skipif(not find_spec('diffusers'), reason="diffusers is not installed: pip install -e '.[bench]'")
def test_unet_speed(tmp_path):
    rc, out, err = run('unet_speed.py', '--small', '--json', tmp_path/'speed.json')
    assert rc == 0, err
    rivals = [n + f for n in ('UNet2DModel', 'UNet2DModel trimmed', 'UNet2DModel 1 layer') for f in ('', ', channels_last')]
    rows = [[c.strip() for c in l.strip('|').split('|')] for l in out.splitlines() if l.startswith('|')]
    assert [r[0] for r in rows] == ['model', '---', 'TAUnet', *rivals, 'ratio', '---', *(f'TAUnet / {n}' for n in rivals)]
    assert all(len(r) == 8 for r in rows[:9]) and all(len(r) == 6 for r in rows[9:]) and all(c for r in rows for c in r)
    d = json.loads((tmp_path/'speed.json').read_text())
    for n,r in d['results'].items():
        assert len(r['train']) == len(r['sample']) == d['about']['rounds'] and min(r['train'] + r['sample'] + [r['memory'], r['share']]) > 0, n
    res = d['results']
    assert [res[n]['blocks'] for n in ('TAUnet', *rivals[::2])] == ['3+1+3', '3+2+5', '3+1+3', '2+2+4']
    assert all(res[n]['flops'] == res[f'{n}, channels_last']['flops'] > 0 for n in rivals[::2])
    assert res['UNet2DModel trimmed']['flops'] < res['UNet2DModel']['flops']

@pytest.mark.skipif(not find_spec('diffusers'), reason="diffusers is not installed: pip install -e '.[bench]'")
def test_high_rate():
    rc, out, err = run('high_rate.py', '--small', '--bs', 4, '--steps', 20, '--of', 40, '--lrs', '1e-3,1e-2')
    assert rc == 0, err
    rows = [[c.strip() for c in l.strip('|').split('|')] for l in out.splitlines() if l.startswith('|')]
    assert [r[:2] for r in rows[2:]] == [[n, lr] for n in ('TAUnet', 'UNet2DModel, channels_last') for lr in ('1e-3', '1e-2')]
    assert all(len(r) == 12 and 0 < float(v) < 5 for r in rows[2:] for v in r[2:])
    low,high = rows[2][2:],rows[3][2:]
    assert low != high and float(high[-1]) < float(high[0])        # the rate arrives, and the network learns
    rc, out, err = run('high_rate.py', '--small', '--contestants', 'nobody')
    assert rc == 1 and 'contestants must be among TAUnet' in err

def write_idx(file, a):
    file.write_bytes(gzip.compress(bytes((0, 0, 8, a.ndim)) + np.array(a.shape, '>u4').tobytes() + a.astype('u1').tobytes()))

@pytest.fixture
def fashion(tmp_path):
    "A folder like Fashion-MNIST's, of noise"
    rng = np.random.default_rng(0)
    for part,n in (('train', 40), ('t10k', 20)):
        write_idx(tmp_path/f'{part}-images-idx3-ubyte.gz', rng.integers(0, 256, (n, 28, 28)))
        write_idx(tmp_path/f'{part}-labels-idx1-ubyte.gz', rng.integers(0, 10, n))
    return tmp_path

def test_full_scale(fashion):
    "A rehearsal: all four runs, six steps asked for, two epochs of two steps each made of them in the end"
    from unet_attention.unet import load_unet
    out = fashion/'out'
    rc, log, err = run('full_scale.py', '--small', '--data', fashion, '--device', 'cpu', '--out', out, '--bs', 8, '--n-train', 16,
                       '--epochs', 2, '--n-steps', 6, '--sample-steps', 3)
    assert rc == 0, log + err
    for c,target,lims in (('original', 'eps', [-.5,.5]), ('ours', 'v', [-1,1])):
        for k,name in (('unconditional', 'TAUnet'), ('conditional', 'ConditionalTAUnet')):
            d = out/f'{c}-{k}'
            t = json.loads((d/'timing.json').read_text())
            assert (t['steps'], t['epochs'], t['target'], t['lims']) == (4, 2, target, lims), t
            assert min(t['train_seconds'], t['train_images_s'], t['sampling_steps_s'], t['valid_loss']) > 0
            assert len((d/'history.csv').read_text().splitlines()) == 1 + t['epochs']
            assert all((d/f).stat().st_size > 2000 for f in ('losses.png', 'samples.png'))
            model = load_unet(d/'model')
            assert type(model).__name__ == name and model.target == target and model.extra['lims'] == lims
            if k == 'conditional': assert model.config['p_uncond'] == (0 if c == 'original' else .1)

def test_full_scale_refuses():
    for args,says in ((('--precision', 'bf16', '--device', 'cpu'), 'bf16 needs device cuda'), (('--kinds', 'both'), 'kinds must be')):
        rc, _, err = run('full_scale.py', *args)
        assert rc and says in err, err
