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
    kind:str                        # class, function, method, property or data
    node:ast.AST
    doc:str = ''
    args:ast.arguments|None = None
    params:list = field(default_factory=list)      # (name, type, default, comment)
    returns:str = ''                # annotation
    ret_doc:str = ''                # the comment beside it
    raises:list = field(default_factory=list)      # (exception, message)
    bases:list = field(default_factory=list)
    value:str = ''                  # of data, as the source has it
    methods:list = field(default_factory=list)
    lines:tuple = (0, 0)
    notebook:str = ''               # '00_attention.ipynb'
    lib:str = ''

    @property
    def full(self): return f'{self.lib}.{self.module}.{self.name}'

    @property
    def signature(self):
        if self.kind in ('data', 'property'): return ''
        a = [f'{n}{f": {t}" if t else ""}{(" = " if t else "=") + d if d else ""}' for n,t,d,_ in self.params]
        return f"({', '.join(a)})" + (f' -> {self.returns}' if self.returns else '')

def span(lines): return f'lines {lines[0]}–{lines[1]}' if lines[1] > lines[0] else f'line {lines[0]}'

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
            if isinstance(e, ast.IfExp): out += ' or '.join(t for o in (e.body, e.orelse) if (t := _template(o)) != '…') or '…'; continue
            if isinstance(e, ast.Call) and ast.unparse(e.func) in ('tuple', 'str', 'repr', 'list') and e.args: e = e.args[0]
            s = ast.unparse(e)
            short = isinstance(e, (ast.Name, ast.Attribute)) or isinstance(e, (ast.BinOp, ast.Subscript, ast.Call)) and len(s) < 25 and "'" not in s
            out += '{' + s.replace('self.', '') + '}' if short else '…'
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
            caught = {f'type({h.name})': [ast.unparse(e) for e in getattr(h.type, 'elts', [h.type])] for h in ast.walk(root) if isinstance(h, ast.ExceptHandler) and h.name}
            for o in ast.walk(root):
                if isinstance(o, ast.Raise) and isinstance(o.exc, ast.Call) and o.exc.args:
                    e = ast.unparse(o.exc.func)
                    out += [(e, _template(o.exc.args[0])) for e in caught.get(e, [e])]
                elif isinstance(o, ast.Call) and isinstance(o.func, ast.Name) and depth < 3: out += self._helper(o, every, depth, known)
        return out

    def _about(self, fn, cls, every):
        "The errors of a function: its own; those of its helpers, its class's methods and parents, as far as they name its parameters"
        mine,more = self._errors(fn.body, every, 3),self._errors(fn.body, every)
        for o in (o.func for o in ast.walk(fn) if cls and isinstance(o, ast.Call) and isinstance(o.func, ast.Attribute)):
            if ast.unparse(o.value) == 'self': more += [r for f in cls.body if getattr(f, 'name', '') == o.attr for r in self._errors(f.body, every, 1)]
            elif ast.unparse(o.value) == 'super()':
                for m,c in ((m, m.defs[b]) for b in map(ast.unparse, cls.bases) for m in every.values() if b in m.defs and (m is self or self._imports(b))):
                    more += [r for f in c.body if getattr(f, 'name', '') == o.attr for r in m._about(f, c, every)]
        names = {a.arg for a in [*fn.args.args, *fn.args.kwonlyargs, fn.args.kwarg] if a}
        for d in fn.decorator_list:
            if isinstance(d, ast.Call) and ast.unparse(d.func) == 'delegates': names |= {a.arg for a in self.defs[d.args[0].id].args.args}
        return mine + [(e, t) for e,t in more if re.match(r'[a-z_]\w*', t, re.I) and re.match(r'\w+', t)[0] in names]

    def _helper(self, call, every, depth, known):
        nm,consts = call.func.id,[a.value if isinstance(a, ast.Constant) else None for a in call.args]
        if nm in known: return []
        if nm in ('_count', '_real'):                                           # checks of one number: what it must be is their third argument
            name = consts[0] or ('{' + call.args[0].id + '}' if isinstance(call.args[0], ast.Name) else None)
            given = call.args[2:3] + [k.value for k in call.keywords if k.arg in ('least', 'within')]
            limit = given[0].value if given and isinstance(given[0], ast.Constant) else None if given else dict(_count=1, _real=None)[nm]
            what,value = ('a whole number', f'at least {limit}') if nm == '_count' else ('a number', f'a number in {limit}')
            return [] if name is None else [('TypeError', f'{name} must be {what}, got {{v}}')] + ([] if limit is None else [('ValueError', f'{name} must be {value}, got {{v}}')])
        for m in every.values() if nm.startswith('_') or nm in self.all else ():
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

    def _fill(self, n, fn, every, method=False, cls=None):
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
        n.raises = list(dict.fromkeys(n.raises + self._about(fn, cls, every)))
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
                    if f.name == '__init__': self._fill(n, f, every, True, o)
                    elif f.name[0] != '_' and ast.get_docstring(f):
                        kind = 'property' if any(ast.unparse(d) == 'property' for d in f.decorator_list) else 'method'
                        n.methods.append(self._fill(Name(name=f'{o.name}.{f.name}', kind=kind, **{**base, 'node': f, 'lines': self._lines(f)}), f, every, True, o))
                out.append(n)
            elif isinstance(o, ast.FunctionDef):
                if o.name in self.all: out.append(self._fill(Name(name=o.name, kind='function', **base), o, every))
                elif o.name[0] != '_' and any(ast.unparse(d).startswith('patch') for d in o.decorator_list):
                    out.append(self._fill(Name(name=f'{ast.unparse(o.args.args[0].annotation)}.{o.name}', kind='method', **base), o, every, True))
            elif isinstance(o, ast.Assign):
                for t in (t for a in o.targets for t in ([a] if isinstance(a, ast.Name) else getattr(a, 'elts', []))):
                    if isinstance(t, ast.Name) and t.id in self.all: out.append(Name(name=t.id, kind='data', doc=self.comments.get(o.end_lineno, ''), value=ast.unparse(o.value), **base))
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
