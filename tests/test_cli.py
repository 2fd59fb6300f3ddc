"The two commands as a shell runs them: a whole small run, Ctrl-C in the middle of one, and one line for bad input"
import os, shutil, signal, subprocess, sys, time
from pathlib import Path
import pytest

env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
bins = Path(sys.executable).parent
small = ['--nfs', '8,16', '--attention-heads', '0,2', '--n-blocks', '1,1', '--n', '1', '--steps', '2']
files = {'config.json', 'model.safetensors', 'samples.png', 'denoising.gif', 'losses.png', 'history.csv'}

def command(name): return shutil.which(name, path=str(bins)) or pytest.fail(f'{name} is not installed')
def run(name, *args, cwd): return subprocess.run([command(name), *map(str, args)], cwd=cwd, env=env, text=True, capture_output=True, timeout=300)

def test_train_then_sample(tmp_path):
    r = run('unet_attention_train', '--n-train', 64, '--epochs', 1, *small, cwd=tmp_path)
    assert r.returncode == 0, r.stderr
    out = tmp_path/'runs'/'shapes'
    assert {o.name for o in out.iterdir() if o.is_file()} == files
    r = run('unet_attention_sample', out, '--classes', 'red circle,11', '--n', 2, '--steps', 2, '--out', 'more.png', cwd=tmp_path)
    assert r.returncode == 0, r.stderr
    assert (tmp_path/'more.png').stat().st_size > 1000

def test_ctrl_c_leaves_a_usable_folder(tmp_path):
    with open(tmp_path/'log', 'w') as log:
        p = subprocess.Popen([command('unet_attention_train'), '--out', 'run', '--epochs', '1000', *small], cwd=tmp_path, env=env, stdout=log, stderr=subprocess.STDOUT)
        for _ in range(120):
            time.sleep(1)
            if (tmp_path/'run'/'history.csv').exists(): break
        time.sleep(2)
        p.send_signal(signal.SIGINT)
        code = p.wait(timeout=120)
    said = (tmp_path/'log').read_text()
    assert code == 0 and 'Stopped early' in said, said[-2000:]
    assert {o.name for o in (tmp_path/'run').iterdir() if o.is_file()} == files
    assert run('unet_attention_sample', 'run', '--n', 1, '--steps', 1, cwd=tmp_path).returncode == 0

@pytest.mark.parametrize('args, why', [(['--bogus', '1'], '--bogus'), (['--epochs', '0'], 'epochs'), (['--lr', 'x'], 'lr'), (['--data', 'no/such/folder'], 'no/such/folder')])
def test_bad_options_get_one_line(tmp_path, args, why):
    r = run('unet_attention_train', *args, cwd=tmp_path)
    assert r.returncode == 2 and why in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr

def test_help(tmp_path):
    for name in ('unet_attention_train', 'unet_attention_sample'):
        r = run(name, '--help', cwd=tmp_path)
        assert r.returncode == 0 and '--steps' in r.stdout
