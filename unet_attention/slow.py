"For readers of the notebooks: slow cells wait until asked for, and a failed `assert` shows values"

# `%load_ext unet_attention.slow` in a notebook's first cell: from there on a cell that begins with
# `#| slow` is not run, and its saved output is shown again (Jupyter clears the output of any cell
# before the kernel sees it). `%slow on` runs slow cells from then on, `%slow off` no longer; the
# environment variable UNET_ATTENTION_SLOW=1 turns them on from outside. nbdev's tests decide by
# their own flags which cells they run. An IPython extension, written by hand.
import ast, json, os, re, sys
from pathlib import Path

NOTE = 'A slow cell, not run: this is its saved output. `%slow on` runs slow cells.'
_state = dict(on=False, saved={})

def _is_slow(source): return re.match(r'(#\|.*\n)*#\| *slow *(\n|$)', source)

def _runs(): return _state['on'] or bool({'IN_TEST', 'UNET_ATTENTION_SLOW'} & os.environ.keys())

def _joined(o): return ''.join(o) if isinstance(o, list) else o

def _saved_in(folder):
    "The outputs of the slow cells in all notebooks of a folder, by the cells' source"
    saved = {}
    for file in Path(folder).glob('*.ipynb'):
        try: cells = json.loads(file.read_text(encoding='utf-8'))['cells']
        except (OSError, ValueError, KeyError): continue
        for c in cells:
            source = _joined(c['source']).strip()
            if c['cell_type'] == 'code' and _is_slow(source): saved[source] = c['outputs']
    return saved

def _show(outputs):
    from IPython.display import display
    for o in outputs:
        data = {k: _joined(v) for k,v in o.get('data', {}).items()}
        if 'text' in o: print(_joined(o['text']), end='', file=getattr(sys, o['name']))
        elif data and data.get('text/plain') != NOTE:
            display(data, metadata=o.get('metadata'), raw=True)
    display({'text/plain': NOTE}, raw=True)

def _guard(lines):
    "An input transformer: the line `%%slow` goes before a slow cell that is not to be run"
    return ['%%slow\n', *lines] if _is_slow(''.join(lines)) and not _runs() else lines

def slow(line, cell=None):
    "`%slow on` and `%slow off`: run slow cells, or show their saved outputs"
    if cell is not None: return _show(_state['saved'].get(cell.strip(), []))
    line = line.strip()
    if line not in ('on', 'off'): raise ValueError(f"slow must be 'on' or 'off', got {line!r}")
    _state['on'] = line == 'on'

class _Values(ast.NodeTransformer):
    "A failed `assert a < b` says what `a` and `b` were; `and` is several of them"
    def visit_Assert(self, node):
        test = node.test
        if node.msg: return node
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            return [self.visit_Assert(ast.copy_location(ast.Assert(o), node)) for o in test.values]
        if isinstance(test, ast.Compare):
            sides = [o for o in (test.left, *test.comparators) if not isinstance(o, ast.Constant)]
            node.msg = ast.Dict([ast.Constant(ast.unparse(o)) for o in sides], sides)
        return ast.fix_missing_locations(node)

_values = _Values()

def load_ipython_extension(shell):
    _state['saved'] = _saved_in('.')       # now, before Jupyter saves cells that it has cleared
    shell.register_magic_function(slow, 'line_cell')
    shell.input_transformers_cleanup.append(_guard)
    shell.ast_transformers.append(_values)

def unload_ipython_extension(shell):
    shell.input_transformers_cleanup.remove(_guard)
    shell.ast_transformers.remove(_values)
