"`%load_ext unet_attention.slow`: Run All must not start slow cells, nor lose what they showed"
import os, subprocess, sys
from pathlib import Path
import nbformat, pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from unet_attention.slow import NOTE

code,out = nbformat.v4.new_code_cell,nbformat.v4.new_output
saved = [out('stream', name='stdout', text='lost 0.1\n'),
         out('display_data', {'image/png': 'iVBORw0KGgo=', 'text/plain': '<Figure>'})]
def notebook(*first):
    cells = [code('%load_ext unet_attention.slow'), *map(code, first),
             code("#| slow\n#| fig-alt: a loss\nopen('ran', 'w'), print('trained')", outputs=saved),
             code('1 + 1')]
    return nbformat.v4.new_notebook(cells=cells)

def run_all(nb, folder):
    nbformat.write(nb, folder/'a.ipynb')
    resources = dict(metadata=dict(path=str(folder)))
    NotebookClient(nb, timeout=60, kernel_name='python3', resources=resources).execute()
    return nb.cells[-2].outputs, (folder/'ran').exists()

def shown(outs): return [o.get('text') or o['data'] for o in outs]

def test_skipped_and_shown_again(tmp_path):
    outs,ran = run_all(notebook(), tmp_path)
    assert not ran and shown(outs) == [*shown(saved), {'text/plain': NOTE}]
    again = notebook()
    again.cells[-2].outputs = outs
    outs,ran = run_all(again, tmp_path)
    assert not ran and shown(outs) == [*shown(saved), {'text/plain': NOTE}]       # not piled up

@pytest.mark.parametrize('first,runs', [(['%slow on'], True), (['%slow on', '%slow off'], False)])
def test_magic(tmp_path, first, runs): assert run_all(notebook(*first), tmp_path)[1] == runs

def test_environment(tmp_path, monkeypatch):
    monkeypatch.setenv('UNET_ATTENTION_SLOW', '1')
    outs,ran = run_all(notebook(), tmp_path)
    assert ran and outs[0].text == 'trained\n'

def test_elsewhere(tmp_path):
    nb = notebook()
    nb.cells[0].source = f"import os\nos.chdir('{tmp_path.parent}')\n%load_ext unet_attention.slow"
    outs,ran = run_all(nb, tmp_path)
    assert not ran and shown(outs) == [{'text/plain': NOTE}]    # nothing saved is found

@pytest.mark.parametrize('check,says', [
    ('assert n*2 > 7', "{'n * 2': 6}"), ('assert n > 1 and [n] == [4]', "{'[n]': [3], '[4]': [4]}"),
    ('assert 1 < n < 3', "{'n': 3}"), ("assert n < 3, 'mine'", 'mine')])
def test_failed_checks_show_values(tmp_path, check, says):
    nb = notebook(f'n = 3\n{check}')
    with pytest.raises(CellExecutionError) as e: run_all(nb, tmp_path)
    assert e.value.evalue == says

def test_right_checks_pass(tmp_path):
    run_all(notebook('assert 1 < 2 and (3 == 3 or 1/0)'), tmp_path)

@pytest.mark.parametrize('flags,runs', [([], False), (['--flags', 'slow'], True)])
def test_nbdev_decides(tmp_path, flags, runs):
    "The flags of nbdev's tests work as without the extension"
    root = Path(__file__).resolve().parent.parent
    for f in ('pyproject.toml', 'settings.ini'): (tmp_path/f).write_text((root/f).read_text())
    (tmp_path/'nbs').mkdir()
    nbformat.write(notebook(), tmp_path/'nbs/a.ipynb')
    cmd = [Path(sys.executable).parent/'nbdev-test', 'nbs/a.ipynb', *flags]
    env = {**os.environ, 'PYTHONPATH': str(root)}
    r = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert r.returncode == 0, r.stderr
    assert any(o.exists() for o in (tmp_path/'nbs/ran', tmp_path/'ran')) == runs, r.stderr
