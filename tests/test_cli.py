"The two commands as a shell runs them: a run, signals, resuming, a closed pipe, wrong options"
import json, os, resource, shutil, signal, subprocess, sys, time
from importlib.metadata import version
from pathlib import Path
import pytest

env = {k: v for k,v in os.environ.items() if k != 'PYTHONWARNINGS'} | {'OMP_NUM_THREADS': '1'}
bins = Path(sys.executable).parent
small = '--nfs 8,16 --attention-heads 0,2 --n-blocks 1,1 --n 1 --steps 2'.split()
files = {'config.json', 'model.safetensors', 'samples.png', 'denoising.gif', 'losses.png',
         'history.csv'}

def command(name):
    return shutil.which(name, path=str(bins)) or pytest.fail(f'{name} is not installed')
def run(name, *args, cwd):
    kw = dict(cwd=cwd, env=env, text=True, capture_output=True, timeout=300)
    return subprocess.run([command(name), *map(str, args)], **kw)
def names(folder): return {o.name for o in folder.iterdir() if o.is_file()}

def train_until(there, cwd, *args):
    "A run of 1000 epochs in the folder `run`, just after the file `there` appeared, and its log"
    with open(cwd/'log', 'w') as log:
        cmd = [command('unet_attention_train'), '--out', 'run', '--epochs', '1000', *args]
        p = subprocess.Popen(cmd, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT)
    for _ in range(3000):
        time.sleep(.1)
        if (cwd/'run'/there).exists() or p.poll() is not None: return p, cwd/'log'
    p.kill()
    pytest.fail(f'{there} did not appear: {(cwd/"log").read_text()[-2000:]}')

def usable(cwd):
    return run('unet_attention_sample', 'run', '--n', 1, '--steps', 1, cwd=cwd).returncode == 0

def test_sample_without_arguments(tmp_path):
    "Clothes of all ten classes by the model of the package: the picture that README.md shows"
    import numpy as np
    from PIL import Image
    r = run('unet_attention_sample', cwd=tmp_path)
    assert (r.returncode, r.stderr) == (0, '')
    assert names(tmp_path) == {'generated.png'}
    files = tmp_path/'generated.png',Path(__file__).parents[1]/'nbs/images/clothes.png'
    drawn,shown = (np.asarray(Image.open(f).convert('L')).astype(int) for f in files)
    assert drawn.shape == shown.shape
    assert abs(drawn - shown).mean() < 2 and shown.std() > 50      # of 255; processors differ a bit

def test_train_then_sample(tmp_path):
    r = run('unet_attention_train', '--n-train', 64, '--epochs', 1, *small, cwd=tmp_path)
    assert r.returncode == 0, r.stderr
    plan = [l.split() for l in r.stdout.splitlines()[:4]]
    assert plan == [o.split() for o in (
        'level side channels blocks heads', '0 32 8 1 0', '1 16 16 1 2', 'middle 16 16 1 2')]
    out = tmp_path/'runs'/'shapes'
    assert names(out) == files
    for name in ('more.png', 'more.GIF'):
        args = ['--classes', 'Red Circle,11', '--n', 2, '--steps', 2, '--out', name]
        r = run('unet_attention_sample', out, *args, cwd=tmp_path)
        assert (r.returncode, r.stdout, r.stderr) == (0, f'Wrote {name}\n', '')
        assert (tmp_path/name).stat().st_size > 1000

@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_usable_folder(tmp_path, sign):
    p,log = train_until('history.csv', tmp_path, *small)
    time.sleep(2)
    p.send_signal(sign)
    assert p.wait(timeout=300) == 0 and 'Stopped early' in log.read_text(), log.read_text()[-2000:]
    assert names(tmp_path/'run') == files and usable(tmp_path)

def test_second_ctrl_c_leaves_the_model(tmp_path):
    args = '--bs 512 --n 1 --steps 2'.split()                               # a batch takes seconds
    p,log = train_until('history.csv', tmp_path, *args)
    p.send_signal(signal.SIGINT)
    for _ in range(600):
        time.sleep(.1)
        if 'Ctrl-C again' in log.read_text(): break
    p.send_signal(signal.SIGINT)
    assert p.wait(timeout=300) == 130, log.read_text()[-2000:]
    assert log.read_text().splitlines()[-1] == 'unet_attention_train: stopped'
    assert names(tmp_path/'run') == {'config.json', 'model.safetensors', 'history.csv'}
    assert usable(tmp_path)

def test_a_killed_run_leaves_the_last_epoch(tmp_path):
    p,log = train_until('model.safetensors', tmp_path, '--n-train', '64', '--sz', '16', *small)
    p.kill()
    assert p.wait(timeout=60) != 0 and 'Wrote' not in log.read_text()
    assert usable(tmp_path)

def test_stopped_and_resumed(tmp_path):
    """A run that SIGTERM stops and another line resumes ends with the model, byte for byte, and the
    table of one that was left alone; meanwhile nobody else may use its folder"""
    line = ['--n-train', 64, '--n-valid', 16, '--epochs', 20, '--sz', 16, *small]
    whole = run('unet_attention_train', '--out', 'whole', *line, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    said = [o for o in whole.stdout.splitlines() if o.startswith('epoch')]
    assert len(said) == 20 and all('valid_loss' in o for o in said) and '\r' not in whole.stdout
    p,log = train_until('model.safetensors', tmp_path, *map(str, line), '--epochs', '20')
    r = run('unet_attention_train', '--out', 'run', '--resume', cwd=tmp_path)
    assert r.returncode == 2 and f'to which process {p.pid} does' in r.stderr, (r.stderr, log)
    p.send_signal(signal.SIGTERM)
    assert p.wait(timeout=60) == 0 and 'Stopped early' in log.read_text(), log.read_text()
    r = run('unet_attention_train', *line, '--out', 'run', cwd=tmp_path)
    assert r.returncode == 2 and '--resume' in r.stderr and '--out run-2' in r.stderr
    last = '--resume --n 1 --steps 2'.split()
    r = run('unet_attention_train', '--out', 'run', *last, cwd=tmp_path)
    assert r.returncode == 0 and r.stdout.count('valid_loss') < 20, r.stderr
    def table(o): return [l.split(',')[:-1] for l in (o/'history.csv').read_text().splitlines()]
    for f in ('model.safetensors', 'config.json'):
        assert (tmp_path/'run'/f).read_bytes() == (tmp_path/'whole'/f).read_bytes()
    assert table(tmp_path/'run') == table(tmp_path/'whole')

def test_a_closed_pipe_ends_nothing(tmp_path):
    "What reads the log goes away, before the first line is written: the run ends as it should"
    line = ['--out', 'run', '--n-train', '32', '--epochs', '2', *small]
    kw = dict(cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    p = subprocess.Popen([command('unet_attention_train'), *line], **kw)
    p.stdout.close()
    assert p.wait(timeout=300) == 0 and names(tmp_path/'run') == files

def test_ctrl_c_while_importing(tmp_path):
    p = subprocess.Popen([command('unet_attention_train')], cwd=tmp_path, env=env, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.5)
    p.send_signal(signal.SIGINT)
    out,err = p.communicate(timeout=60)
    assert p.returncode == 130 and err == 'unet_attention_train: stopped\n' and not out

def test_answers_at_once(tmp_path):
    "`--help` and a wrong option are answered before torch is imported, which takes seconds"
    def seconds():
        r = resource.getrusage(resource.RUSAGE_CHILDREN)
        return r.ru_utime + r.ru_stime
    for args in (['--help'], ['--bogus'], ['--lr', 'fast'], ['--n-train', '0'], ['--data', '']):
        before = seconds()
        run('unet_attention_train', *args, cwd=tmp_path)
        assert seconds() - before < .8, args

@pytest.mark.parametrize('args, why', [
    (['--bogus', '1'], '--bogus'), (['--lr', 'inf'], '--lr must be a number in (0, inf)'),
    (['--data', 'no/such/folder'], 'no/such/folder'), (['--data', '..'], 'out must be'),
    (['--path', 'x'], '--path must be'),
    (['--lr', '1e6', '--n-train', '64', *small], '--lr must be smaller')])
def test_wrong_options_get_one_line(tmp_path, args, why):
    r = run('unet_attention_train', *args, cwd=tmp_path)
    assert r.returncode == 2 and why in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr

def test_help(tmp_path):
    for name in ('unet_attention_train', 'unet_attention_sample'):
        r = run(name, '--help', cwd=tmp_path)
        assert r.returncode == 0 and '--steps' in r.stdout and r.stderr == ''
        r = run(name, '--version', cwd=tmp_path)
        assert r.returncode == 0 and r.stdout == f'{name} {version("unet_attention")}\n'

def test_resume_from_elsewhere(tmp_path, monkeypatch):
    "A run goes on with its own images, wherever it is typed, and with its own batch"
    from PIL import Image
    from unet_attention.cli import train_model
    for where,colour in (('a', 'red'), ('b', 'blue')):
        for k in ('x', 'y'):
            (tmp_path/where/'imgs'/k).mkdir(parents=True)
            for i in range(8): Image.new('RGB', (16, 16), colour).save(
                tmp_path/where/'imgs'/k/f'{i}.png')
    run = dict(out=str(tmp_path/'run'), sz=16, nfs='8,16', attention_heads='0,2', n_blocks='1,1',
               epochs=1, bs=4, n=1, steps=2)
    monkeypatch.chdir(tmp_path/'a')
    train_model('imgs', **run)
    file = tmp_path/'run'/'checkpoints'/'options.json'
    kept = json.loads(file.read_text())
    assert kept['data'] == str(tmp_path/'a'/'imgs') and kept['processes'] == 1
    monkeypatch.chdir(tmp_path/'b')
    with pytest.raises(ValueError, match='data must be .*a/imgs'):
        train_model('imgs', out=run['out'], resume=True)
    train_model(out=run['out'], resume=True, n=1, steps=2)
    file.write_text(json.dumps(kept | dict(processes=2)))          # as if two had begun it
    with pytest.raises(ValueError, match='bs must be 8, with which'):
        train_model(out=run['out'], resume=True, bs=4)
