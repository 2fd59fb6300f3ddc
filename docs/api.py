"""What the modules hold, read from their text: public names, signatures, the comment beside each parameter, the errors
they raise, and where their lines are. Nothing is imported, so the site builds without torch."""
import ast, io, re, tokenize
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

@dataclass
class Name:
    "One public name, or a documented method of one"
    module:str                      # 'attention'
    name:str                        # 'AttentionBlock', or 'AttentionBlock.forward'
    kind:str                        # class, function, method or data
    node:ast.AST
    doc:str = ''
    args:ast.arguments|None = None
    params:list = field(default_factory=list)      # (name, type, default, comment)
    returns:str = ''                # annotation
    ret_doc:str = ''                # the comment beside it
    raises:list = field(default_factory=list)      # (exception, message)
    bases:list = field(default_factory=list)
    methods:list = field(default_factory=list)
    lines:tuple = (0, 0)
    notebook:str = ''               # '00_attention.ipynb'
    lib:str = ''

    @property
    def full(self): return f'{self.lib}.{self.module}.{self.name}'

    @property
    def signature(self):
        if self.kind == 'data': return ''
        a = [f'{n}{f": {t}" if t else ""}{(" = " if t else "=") + d if d else ""}' for n,t,d,_ in self.params]
        return f"({', '.join(a)})" + (f' -> {self.returns}' if self.returns else '')

def _comments(text):
    "The comment that ends each line that has one"
    return {t.start[0]: t.string.lstrip('# ').strip() for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT}

def _colon(text, node):
    "The line of the colon that ends the head of the function `node`"
    lines = text.splitlines(True)[node.lineno-1:]
    depth = 0
    for t in tokenize.generate_tokens(iter(lines).__next__):
        if t.type == tokenize.OP:
            depth += (t.string in '([{') - (t.string in ')]}')
            if t.string == ':' and not depth: return node.lineno - 1 + t.start[0]

def _template(o):
    "The message of an error as it is written, each value in it as `{name}`"
    if isinstance(o, ast.Constant) and isinstance(o.value, str): return o.value
    if isinstance(o, ast.BinOp) and isinstance(o.op, ast.Add): return _template(o.left) + _template(o.right)
    if not isinstance(o, ast.JoinedStr): return '…'
    out = ''
    for v in o.values:
        if isinstance(v, ast.Constant): out += v.value
        else:
            e = v.value
            if isinstance(e, ast.Call) and ast.unparse(e.func) in ('tuple', 'str', 'repr', 'list') and e.args: e = e.args[0]
            short = isinstance(e, (ast.Name, ast.Attribute)) or isinstance(e, (ast.BinOp, ast.Subscript, ast.Call)) and len(ast.unparse(e)) < 25
            out += '{' + ast.unparse(e).replace('self.', '') + '}' if short else '…'
    return out

class Module:
    "A module of the package, read from its text"
    def __init__(self, file):
        self.file,self.name,self.text = file,file.stem,file.read_text(encoding='utf-8')
        self.tree,self.comments = ast.parse(self.text),_comments(self.text)
        self.doc = ast.get_docstring(self.tree) or ''
        m = re.search(r'File to edit: (?:\.\./)*nbs/(\S+\.ipynb)', self.text)
        self.notebook = m[1] if m else ''
        self.defs = {o.name: o for o in self.tree.body if isinstance(o, (ast.FunctionDef, ast.ClassDef))}

    @cached_property
    def all(self):
        for o in self.tree.body:
            if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '') == '__all__': return ast.literal_eval(o.value)
        return []

    def source(self, first, last): return '\n'.join(self.text.splitlines()[first-1:last])

    def _params(self, fn, method):
        a,out = fn.args,[]
        pos = a.posonlyargs + a.args
        defaults = [None]*(len(pos) - len(a.defaults)) + a.defaults
        every = list(zip(pos, defaults)) + ([(a.vararg, None)] if a.vararg else []) + list(zip(a.kwonlyargs, a.kw_defaults)) + ([(a.kwarg, None)] if a.kwarg else [])
        if method and every: every = every[1:]
        taken = set()
        for o,d in every:
            stars = '*' if o is a.vararg else '**' if o is a.kwarg else ''
            line = (d or o).end_lineno
            taken.add(line)
            out.append((stars + o.arg, ast.unparse(o.annotation) if o.annotation else '', ast.unparse(d) if d is not None else '', self.comments.get(line, '')))
        return out,taken

    def _errors(self, nodes, every, depth=0, known=()):
        "The errors raised in `nodes`, those of the private helpers they call with the names that are handed over"
        out = []
        for root in nodes:
            for o in ast.walk(root):
                if isinstance(o, ast.Raise) and isinstance(o.exc, ast.Call) and o.exc.args:
                    out.append((ast.unparse(o.exc.func), _template(o.exc.args[0])))
                elif isinstance(o, ast.Call) and isinstance(o.func, ast.Name) and o.func.id.startswith('_') and depth < 3:
                    out += self._helper(o, every, depth, known)
        return out

    def _helper(self, call, every, depth, known):
        nm,consts = call.func.id,[a.value if isinstance(a, ast.Constant) else None for a in call.args]
        if nm in known: return []
        if nm == '_count' and consts[:1] != [None]:
            least = next((k.value.value for k in call.keywords if k.arg == 'least'), consts[2] if len(consts) > 2 and consts[2] is not None else 1)
            return [('TypeError', f'{consts[0]} must be a whole number, got {{v}}'), ('ValueError', f'{consts[0]} must be at least {least}, got {{v}}')]
        if nm == '_real' and consts[:1] != [None]:
            within = next((k.value.value for k in call.keywords if k.arg == 'within'), consts[2] if len(consts) > 2 else None)
            return [('TypeError', f'{consts[0]} must be a number, got {{v}}')] + ([('ValueError', f'{consts[0]} must be a number in {within}, got {{v}}')] if within else [])
        for m in every.values():
            if nm in m.defs and isinstance(m.defs[nm], ast.FunctionDef) and (m is self or self._imports(nm)):
                fn = m.defs[nm]
                names = [a.arg for a in fn.args.args]
                given = {n: c for n,c in zip(names, consts) if c is not None}
                given |= {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
                kw = [k.arg for k in call.keywords if k.arg and fn.args.kwarg]
                res = [(e, re.sub(r'\{(\w+)\}', lambda x: str(given[x[1]]) if isinstance(given.get(x[1]), str) else x[0], t)) for e,t in m._errors(fn.body, every, depth+1, (*known, nm))]
                return [(e, t.replace('{k}', k)) for k in kw for e,t in res] if kw else res
        return []

    def _imports(self, nm):
        return any(isinstance(o, ast.ImportFrom) and any(a.name == nm for a in o.names) for o in self.tree.body)

    def _fill(self, n, fn, every, method=False):
        n.params,taken = self._params(fn, method)
        n.args,n.doc = fn.args,ast.get_docstring(fn) or n.doc
        for d in fn.decorator_list:                                             # fastcore's `delegates(f)`: `**kwargs` are those of `f`
            if isinstance(d, ast.Call) and ast.unparse(d.func) == 'delegates' and d.args and getattr(d.args[0], 'id', '') in self.defs:
                f,mine = self.defs[d.args[0].id],{p[0] for p in n.params}
                if isinstance(f, ast.FunctionDef):
                    n.params = [p for p in n.params if not p[0].startswith('**')] + [p for p in self._params(f, False)[0] if p[2] and p[0] not in mine]
        if n.kind != 'class':
            n.returns = ast.unparse(fn.returns) if fn.returns else ''
            line = _colon(self.text, fn)
            if line not in taken and fn.body[0].lineno > line: n.ret_doc = self.comments.get(line, '')
        n.raises = list(dict.fromkeys(n.raises + self._errors(fn.body, every)))
        return n

    def _lines(self, o): return min([o.lineno, *(d.lineno for d in getattr(o, 'decorator_list', []))]),o.end_lineno

    def names(self, every):
        "Its public names in the order of the text, methods added with `@patch` included"
        out = []
        for o in self.tree.body:
            base = dict(module=self.name, node=o, lines=self._lines(o), notebook=self.notebook, lib=self.file.parent.name)
            if isinstance(o, ast.ClassDef) and o.name in self.all:
                n = Name(name=o.name, kind='class', doc=ast.get_docstring(o) or '', bases=[ast.unparse(b) for b in o.bases], **base)
                for f in o.body:
                    if not isinstance(f, ast.FunctionDef): continue
                    if f.name == '__init__': self._fill(n, f, every, True)
                    elif f.name[0] != '_' and ast.get_docstring(f):
                        n.methods.append(self._fill(Name(name=f'{o.name}.{f.name}', kind='method', **{**base, 'node': f, 'lines': self._lines(f)}), f, every, True))
                out.append(n)
            elif isinstance(o, ast.FunctionDef):
                if o.name in self.all: out.append(self._fill(Name(name=o.name, kind='function', **base), o, every))
                elif o.name[0] != '_' and any(ast.unparse(d).startswith('patch') for d in o.decorator_list):
                    out.append(self._fill(Name(name=f'{ast.unparse(o.args.args[0].annotation)}.{o.name}', kind='method', **base), o, every, True))
            elif isinstance(o, ast.Assign):
                for t in (t for a in o.targets for t in ([a] if isinstance(a, ast.Name) else getattr(a, 'elts', []))):
                    if isinstance(t, ast.Name) and t.id in self.all: out.append(Name(name=t.id, kind='data', doc=self.comments.get(o.end_lineno, ''), **base))
        return out

class Package:
    "Every module of the package, in the order of `all.py`"
    def __init__(self, folder):
        folder = Path(folder)
        order = re.findall(rf'^from {folder.name}\.(\w+) import', (folder/'all.py').read_text(encoding='utf-8'), re.M)
        self.modules = {o: Module(folder/f'{o}.py') for o in order}
        self.names = {m: mod.names(self.modules) for m,mod in self.modules.items()}
        self.flat = {n.name: n for ns in self.names.values() for o in ns for n in (o, *o.methods)}

    def find(self, dotted):
        "The module and the lines of `module.name` or `module.Class.method`, private ones too"
        mod,*path = dotted.split('.')
        if mod not in self.modules: raise KeyError(f'{dotted}: there is no module {mod}')
        m,body,node = self.modules[mod],self.modules[mod].tree.body,None
        for p in path:
            node = next((o for o in body if getattr(o, 'name', None) == p), None)
            if node is None: raise KeyError(f'{dotted}: {mod}.py does not define {p}')
            body = node.body
        return m, *m._lines(node)
