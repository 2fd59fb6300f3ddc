"The tools that look after requirements: the lowest versions, known vulnerabilities, imports"
import json, os, subprocess, sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
import pytest
from packaging.requirements import Requirement

root = Path(__file__).resolve().parent.parent

def tool(name):
    "A tool, as a module"
    loader = SourceFileLoader(name, str(root/'tools'/name))
    mod = module_from_spec(spec_from_loader(name, loader))
    loader.exec_module(mod)
    return mod

def run(name, *args, **kw):
    cmd = [sys.executable, root/'tools'/name, *args]
    r = subprocess.run(cmd, text=True, capture_output=True, **kw)
    return r.returncode, r.stdout + r.stderr

# ---- the lowest versions -------------------------------------------------------------------------
def stated():
    "The requirements as `setup.py` reads them: the package's own, and all of its extras"
    from configparser import ConfigParser
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(root/'settings.ini', encoding='utf-8')
    keys = ['requirements', *(f'{o}_requirements' for o in 'dev docs bench onnx multi'.split())]
    each = [[Requirement(o) for o in ini['DEFAULT'][k].splitlines() if o.strip()] for k in keys]
    return each[0], sum(each, [])

def bounds(r): return [s.version for s in r.specifier if s.operator in ('>=', '==', '~=')]

def test_lowest():
    "A line for each requirement with a lower bound, that version, within the other bounds"
    code,out = run('lowest')
    pins = {r.name: r for r in map(Requirement, out.split())}
    own,every = stated()
    assert code == 0 and len(pins) == len(out.split())
    assert {k: [s.version for s in r.specifier] for k,r in pins.items()} \
        == {r.name: bounds(r) for r in every if bounds(r)}
    for r in every:
        if r.name in pins:
            pin, = pins[r.name].specifier
            assert pin.operator == '==' and r.specifier.contains(pin.version), r
    assert [r.name for r in own if not bounds(r)] == [], 'a requirement without a lower bound'

def test_lowest_reads_bounds(tmp_path):
    lowest = tool('lowest')
    said = {'': None, '>=2.4': '2.4', '>=3.3.26,<4': '3.3.26', '<4,>=3': '3', '<5': None,
            '~=1.2': '1.2', '==7': '7', '!=8': None}
    assert {k: lowest.lowest(k) for k in said} == said
    (tmp_path/'settings.ini').write_text('[DEFAULT]\ndev_requirements =\n    b\n    c-d>=2\n'
                                         'requirements =\n    a>=1.0,<2\n')
    assert lowest.requirements(tmp_path/'settings.ini') \
        == [('a', '>=1.0,<2'), ('b', ''), ('c-d', '>=2')]
    with pytest.raises(FileNotFoundError): lowest.requirements(tmp_path/'nothing.ini')

# ---- known vulnerabilities -----------------------------------------------------------------------
def package(name, **kw): return dict(name=name, version='1.0', **kw)
def report(*packages): return json.dumps(dict(dependencies=[*packages], fixes=[]))

fine,skipped = package('a', vulns=[]),dict(name='b-c', skip_reason='not found on PyPI')
bad = package('d', vulns=[dict(id='PYSEC-1', fix_versions=['1.1', '2.0'], aliases=['CVE-1'])])
hopeless = package('e', vulns=[dict(id='CVE-2', fix_versions=[])])

@pytest.mark.parametrize('text, code, says', [
    (report(fine), 0, 'audit: 1 packages, none with a known vulnerability'),
    (report(fine, skipped), 1, 'b-c: not found on PyPI'),
    (report(skipped), 1, 'the service answered about none of the packages'),
    (report(), 1, 'there is no package to ask about'),
    (report(fine, bad), 1, 'd 1.0: PYSEC-1, mended in 1.1, 2.0'),
    (report(bad, hopeless), 1, 'e 1.0: CVE-2, mended in no version'),
    ('', 1, 'the report cannot be read'), ('{"dependencies"', 1, 'the report cannot be read'),
    ('[]', 1, 'the report cannot be read'), ('{}', 1, 'the report cannot be read')])
def test_audit_judges(text, code, says):
    "Clean alone is right: what was skipped, or not asked about, is not clean"
    got,out = run('audit', '--report', '-', input=text)
    assert got == code and says in out and ('FAILED' in out) == bool(code), out

def test_audit_wants_every_package():
    audit = tool('audit')
    assert audit.judge(report(fine), {'a'}) == []
    assert audit.judge(report(fine), {'a', 'f'}) == ['f: not asked about']
    assert audit.judge(report(package('B_c', vulns=[])), {'b-c'}) == []
    for name in ('PYSEC-1', 'CVE-1'): assert audit.judge(report(bad), {'d'}, [name]) == []
    assert len(audit.judge(report(bad, hopeless), {'d', 'e'}, ['CVE-1'])) == 1

def test_audit_asks_about_what_is_installed():
    "The requirements and theirs, with the versions that are installed, without a local part"
    from importlib.metadata import version
    found = tool('audit').installed('unet_attention')
    own,_ = stated()
    names = {tool('audit').plain(r.name) for r in own}
    assert names < set(found) and 'pandas' in found                    # which fastai requires
    assert found['torch'] == version('torch').split('+')[0]
    assert 'pytest' not in found and 'pytest' in tool('audit').installed('unet_attention', ['dev'])

@pytest.mark.parametrize('says', ['no route to the service', ''])
def test_audit_without_a_service(tmp_path, says):
    "pip-audit ends without a report: said, and failed"
    (tmp_path/'pip_audit').mkdir()
    (tmp_path/'pip_audit/__init__.py').touch()
    (tmp_path/'pip_audit/__main__.py').write_text(f'import sys; sys.exit({says!r} or 1)')
    code,out = run('audit', env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert code == 1 and f'pip-audit made no report: {says or "silent"}' in out, out

# ---- imports -------------------------------------------------------------------------------------
def test_imports():
    "A line for torch, and one for each module: milliseconds, and modules that it loads"
    code,out = run('imports', 'arguments', 'unet', '--times', '1')
    rows = {l.split()[0]: [int(o) for o in l.split()[1:]] for l in out.splitlines()[1:]}
    assert code == 0 and list(rows) == ['torch', 'unet_attention.arguments', 'unet_attention.unet']
    assert all(ms >= 0 and n > 0 for ms,n in rows.values())
    torch,light,unet = (n for _,n in rows.values())
    assert light < torch/5 and torch < unet < torch + 30
    code,out = run('imports', 'bogus')
    assert code == 2 and 'no module called bogus' in out
