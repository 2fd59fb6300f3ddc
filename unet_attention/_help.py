"What `help(f)`, `f?` and Shift-Tab say of arguments: the comments beside them. Hand-written"

# Nothing is read when a module is imported: its docstrings become strings of a kind that looks for
# the comments when `inspect.getdoc` asks for the text.
import inspect
from importlib.machinery import FileFinder, SourceFileLoader

class Doc(str):
    "The docstring of `of`, to which the comments beside its parameters are added when it is shown"
    def expandtabs(self, tabsize=8):      # `inspect.cleandoc` calls it first, for all who show docs
        self.of.__doc__ = plain = str(self)              # `docments` asks for the docstring as well
        try: return (plain + _arguments(self.of)).expandtabs(tabsize)
        except (OSError, TypeError): return plain        # the source is not there
        finally: self.of.__doc__ = self

def _arguments(f):
    "A line for each parameter that has a comment, and one for what is returned"
    from fastcore.docments import docments
    found = docments(f, returns=not inspect.isclass(f))
    found = {k: ' '.join(v.split()) for k,v in found.items() if v}
    returns = found.pop('return', None)
    lines = [f'    {k}: {v}' for k,v in found.items()]
    if lines: lines.insert(0, '\n\nArguments:')
    if returns: lines.append(f'{"" if lines else chr(10)*2}Returns: {returns}')
    return '\n'.join(lines)

def _explain(o, module):
    "Give `o` such a docstring if it is of `module`, and so the methods that `module` gives a class"
    o = getattr(o, '__func__', o)                              # of a class method
    if not (inspect.isfunction(o) or inspect.isclass(o)): return
    own = o.__module__ == module
    if own and o.__doc__:
        o.__doc__ = Doc(o.__doc__)
        o.__doc__.of = o
    if inspect.isclass(o) and o.__module__.startswith(f'{__package__}.'):
        for m in [getattr(o, k, None) for k in [*vars(o)]]:
            if own or not inspect.isclass(m): _explain(m, module)

class Loader(SourceFileLoader):
    "Loads a module, then lets its docstrings name the arguments"
    def exec_module(self, module):
        super().exec_module(module)
        for o in [*vars(module).values()]: _explain(o, module.__name__)

def finder(folder): return FileFinder(folder, (Loader, ['.py']))
