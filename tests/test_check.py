"`tools/check` must fail on all it is there to catch: a toy project, broken in one way at a time"
import json, os, shutil, subprocess, sys
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
env = {**os.environ, 'WORKERS': '2'}
env.pop('IN_TEST', None)

def code(src, *outputs):
    return dict(cell_type='code', id=f'c{abs(hash(src))%10**6}', metadata={},
                source=src.splitlines(True), execution_count=None, outputs=list(outputs))
def stream(s): return dict(output_type='stream', name='stdout', text=[s])
def write(f, *cells):
    meta = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
    nb = dict(cells=list(cells), metadata=meta, nbformat=4, nbformat_minor=5)
    f.write_text(json.dumps(nb, indent=1, sort_keys=True) + '\n')

toy = [code('#| default_exp toy'), code('#| export\ndef double(x): return 2*x'),
       code('print(double(2))', stream('4\n'))]

@pytest.fixture
def proj(tmp_path):
    "A project of one clean, exported notebook"
    for d in ('nbs/tutorials', 'unet_attention', 'tools'): (tmp_path/d).mkdir(parents=True)
    for f in ('pyproject.toml', 'settings.ini', 'tools/check'): shutil.copy(root/f, tmp_path/f)
    (tmp_path/'unet_attention/__init__.py').touch()
    write(tmp_path/'nbs/00_toy.ipynb', *toy)
    export = Path(sys.executable).parent/'nbdev-export'
    subprocess.run([export], cwd=tmp_path, env=env, check=True, capture_output=True)
    return tmp_path

def check(proj, part):
    cmd = [sys.executable, proj/'tools/check', part]
    r = subprocess.run(cmd, env=env, capture_output=True, text=True)
    return r.returncode, r.stdout + r.stderr

def test_good(proj):
    rc, out = check(proj, 'export')
    assert rc == 0 and out.splitlines()[-1].startswith('check: passed'), out
    rc, out = check(proj, 'notebooks')
    assert rc == 0 and 'notebooks: 1 passed, 0 failed' in out, out

def edit_module(p): f = p/'unet_attention/toy.py'; f.write_text(f.read_text().replace('2*x', '3*x'))
def edit_notebook(p): f = p/'nbs/00_toy.ipynb'; f.write_text(f.read_text().replace('2*x', '3*x'))
def rm_notebook(p): (p/'nbs/00_toy.ipynb').unlink()
def rm_module(p): (p/'unet_attention/toy.py').unlink()
def unclean(p):
    f = p/'nbs/00_toy.ipynb'
    f.write_text(f.read_text().replace('"execution_count": null', '"execution_count": 7', 1))
def no_outputs(p): write(p/'nbs/tutorials/a.ipynb', code('1+1'))
def error(p):
    out = dict(output_type='error', ename='ZeroDivisionError', evalue='', traceback=[])
    write(p/'nbs/tutorials/a.ipynb', code('1/0', out))
def broken(p): (p/'nbs/00_toy.ipynb').write_text('{')

@pytest.mark.parametrize('breakage,says', [
    (edit_module, ('unet_attention/toy.py differs: run nbdev-export', '3*x')),
    (edit_notebook, ('toy.py differs', '3*x')),
    (rm_notebook, ('toy.py comes from no notebook: delete it',)),
    (rm_module, ('toy.py is missing: run nbdev-export',)),
    (unclean, ('nbs/00_toy.ipynb differs: run nbdev-clean', '"execution_count": 7')),
    (no_outputs, ('nbs/tutorials/a.ipynb has no saved outputs',)),
    (error, ('a.ipynb has saved errors (ZeroDivisionError)',)),
    (broken, ('nbs/00_toy.ipynb is not a notebook',))], ids=lambda o: getattr(o, '__name__', ''))
def test_export(proj, breakage, says):
    breakage(proj)
    rc, out = check(proj, 'export')
    assert rc == 1 and out.splitlines()[-1].startswith('check: FAILED: export'), out
    for s in says: assert s in out, out

def test_failing_cell(proj):
    wrong = code('from unet_attention.toy import double\nassert double(2) == 5')
    write(proj/'nbs/tutorials/a.ipynb', code('#| slow\n1/0'), wrong)
    rc, out = check(proj, 'notebooks')
    assert rc == 1 and 'notebooks: 1 passed, 1 failed' in out, out
    assert out.splitlines()[-1].startswith('check: FAILED: notebooks'), out
    assert 'AssertionError' in out and 'double(2) == 5' in out, out
    assert 'ZeroDivisionError' not in out, out
