"The page of faults: each row names a test, which is there"
import ast, re
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
rows = [[o.strip() for o in l.strip().strip('|').split(' | ')]
        for l in (root/'docs/faults.md').read_text(encoding='utf-8').splitlines()
        if l.startswith('| ') and not re.match(r'\| (---|fault \|)', l)]

@pytest.mark.parametrize('fault, happens, test', rows, ids=[o[0] for o in rows])
def test_fault(fault, happens, test):
    "The file has the test, and the words of its case"
    named = re.fullmatch(r'`(test_\w+)` `(test_\w+)`(?: \(“(.+)”\))?', test)
    assert named and happens.endswith('.'), test
    file,name,case = named.groups()
    text = (root/f'tests/{file}.py').read_text(encoding='utf-8')
    functions = [o.name for o in ast.parse(text).body if isinstance(o, ast.FunctionDef)]
    assert name in functions and functions.count(name) == 1
    assert case is None or case in text, case

def test_there_are_rows(): assert len(rows) > 30
