"""What the modules hold, read from their text: public names, signatures, the comment beside each parameter, what a check
declares of it, and where their lines are. Nothing is imported, so the site builds without torch."""
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
    params:list = field(default_factory=list)      # (name, type, default, comment)
    returns:str = ''                # annotation
    ret_doc:str = ''                # the comment beside it
    checks:dict = field(default_factory=dict)      # what each parameter must be, where a check says so
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
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0]: t.string.lstrip('# ').strip() for t in tokens if t.type == tokenize.COMMENT}

def _colon(text, node):
    "The line of the colon that ends the head of the function `node`"
    lines = text.splitlines(True)[node.lineno-1:]
    depth = 0
    for t in tokenize.generate_tokens(iter(lines).__next__):
        if t.type == tokenize.OP:
            depth += (t.string in '([{') - (t.string in ')]}')
            if t.string == ':' and not depth: return node.lineno - 1 + t.start[0]

def _said(o):
    "An expression as a reader should see it: a string without quotes, values in it by their names"
    if isinstance(o, ast.Constant): return str(o.value)
    if isinstance(o, ast.JoinedStr): return ''.join(_said(v) for v in o.values)
    if isinstance(o, ast.FormattedValue): return _said(o.value)
    if isinstance(o, ast.Tuple): return f"({', '.join(map(_said, o.elts))}{',' if len(o.elts) == 1 else ''})"
    if isinstance(o, ast.IfExp): return _said(o.orelse)                     # the size, if it is known
    if isinstance(o, ast.Starred): return '…'
    if isinstance(o, ast.Call) and ast.unparse(o.func) == 'tuple': return _said(o.args[0])
    return ast.unparse(o).replace('self.', '')

class Module:
    "A module of the package, read from its text"
    def __init__(self, file):
        self.file,self.name,self.text = file,file.stem,file.read_text(encoding='utf-8')
        self.tree,self.comments = ast.parse(self.text),_comments(self.text)
        self.doc = ast.get_docstring(self.tree) or ''
        m = re.search(r'File to edit: (?:\.\./)*nbs/(\S+\.ipynb)', self.text)
        self.notebook = m[1] if m else ''
        self.defs = {o.name: o for o in self.tree.body if isinstance(o, (ast.FunctionDef, ast.ClassDef))}
        self.values = {o.targets[0].id: o.value for o in self.tree.body
                       if isinstance(o, ast.Assign) and isinstance(o.targets[0], ast.Name)}
        self.froms = {a.asname or a.name: (o.module, a.name) for o in self.tree.body
                      if isinstance(o, ast.ImportFrom) and o.level and o.module for a in o.names}

    @cached_property
    def all(self): return ast.literal_eval(self.values['__all__']) if '__all__' in self.values else []

    def source(self, first, last): return '\n'.join(self.text.splitlines()[first-1:last])

    def origin(self, name, every):
        "The module that defines a name used here, and its name there; nothing if it is not of this package"
        if name in self.defs or name in self.values: return self,name
        mod,there = self.froms.get(name, ('', ''))
        return every[mod].origin(there, every) if mod in every else None

    # ---- signatures ---------------------------------------------------------------------------------------------------
    def _own_params(self, fn, method):
        "Parameters as they are written, and the lines whose comments are theirs"
        a,out,taken = fn.args,[],set()
        pos = a.posonlyargs + a.args
        every = list(zip(pos, [None]*(len(pos) - len(a.defaults)) + a.defaults))
        if a.vararg: every.append((a.vararg, None))
        every += zip(a.kwonlyargs, a.kw_defaults)
        if a.kwarg: every.append((a.kwarg, None))
        for o,d in every[method:]:
            stars = '*' if o is a.vararg else '**' if o is a.kwarg else ''
            line = (d or o).end_lineno
            taken.add(line)
            out.append((stars + o.arg, ast.unparse(o.annotation) if o.annotation else '',
                        ast.unparse(d) if d is not None else '', self.comments.get(line, '')))
        return out,taken

    def _params(self, fn, method, every):
        "Parameters, those of the function that `delegates` names in place of `**kwargs`"
        out,taken = self._own_params(fn, method)
        for m,f,but in self._delegates(fn, every):
            have = {p[0] for p in out} | but
            out = [p for p in out if not p[0].startswith('**')]
            out += [p for p in m._params(f, False, every)[0] if p[2] and p[0] not in have]
        return out,taken

    def _delegates(self, fn, every):
        "Module and function that `@delegates(function, but='names')` names, and the names left out"
        for d in fn.decorator_list:
            if isinstance(d, ast.Call) and ast.unparse(d.func) == 'delegates' and isinstance(d.args[0], ast.Name):
                but = [k.value.value for k in d.keywords if k.arg == 'but'] + [a.value for a in d.args[1:]]
                if at := self.origin(d.args[0].id, every): yield at[0],at[0].defs[at[1]],{*' '.join(but).split()}

    # ---- what checks declare ------------------------------------------------------------------------------------------
    def _keys(self, o, every):
        "The words in an expression: a list, the keys of a dictionary, a name for one of these"
        if isinstance(o, ast.Name) and (at := self.origin(o.id, every)):
            return at[0]._keys(at[0].values[at[1]], every) if at[1] in at[0].values else []
        if isinstance(o, ast.Call): return [k.arg for k in o.keywords]
        parts = o.keys if isinstance(o, ast.Dict) else getattr(o, 'elts', [])
        return [k for e in parts for k in (self._keys(e.value, every) if isinstance(e, ast.Starred) else [_said(e)])]

    def _one_of(self, o, every): return 'one of ' + (', '.join(map(repr, self._keys(o, every))) or _said(o))

    def _must(self, check, call, every, env):
        "What a call of `check` declares: pairs of a name and what it must be; names in `‹›` are parameters too"
        args = [env.get(a.id, a) if isinstance(a, ast.Name) else a for a in call.args]
        named = {k.arg: k.value for k in call.keywords if k.arg}
        first = call.args[0].id if call.args and isinstance(call.args[0], ast.Name) else ''
        if check in ('count', 'counts'):
            least = _said(named.pop('least', args[0] if args else ast.Constant(1)))
            what = f"{'a whole number' if check == 'count' else 'a list of whole numbers'} of at least {least}"
        elif check == 'real':
            interval = _said(args[0]) if args else '(-inf, inf)'
            what = 'a finite number' if interval == '(-inf, inf)' else f'a number in {interval}'
        elif check == 'one_of': what = self._one_of(args[0], every)
        elif check == 'within': what = f'in {_said(args[0])}'
        elif check == 'tensor':
            shape = '' if _said(args[0]) == 'Ellipsis' else f' of shape {_said(args[0])}'
            kind = _said(args[1]) if args[1:] else 'floating point'
            what = f'a tensor{shape}' + ('' if kind == 'None' else f', {kind}')
        elif check == 'multiple': return [([*named][1], f'a divisor of ‹{[*named][0]}›')] if len(named) == 2 else []
        else:
            what = dict(times='a tensor of shape (b,), floating point, in [0, 1]', device='a device that torch can use here',
                        images='a tensor of shape (b, channels, h, w), floating point').get(check)
            return [(first, what)] if what else []
        return [(k, what) for k in named]

    def _tables(self, every):
        "The same from tables of a module that declare options by name: `_WHOLE`, `_REAL`, `_CHOICE`"
        def rows(name): return [(k.arg, k.value) for k in getattr(self.values.get(name), 'keywords', [])]
        return ([(k, f'a whole number of at least {_said(v)}') for k,v in rows('_WHOLE')]
                + [(k, f'a number in {_said(v)}') for k,v in rows('_REAL')] + [(k, self._one_of(v, every)) for k,v in rows('_CHOICE')])

    def _called(self, call, cls, every):
        "The functions of this package that a call may run: module, function, its class"
        f = call.func
        if isinstance(f, ast.Attribute) and cls:
            owners = [(self, cls)] if ast.unparse(f.value) == 'self' else []
            if ast.unparse(f.value) == 'super()':
                bases = [at for b in cls.bases if isinstance(b, ast.Name) and (at := self.origin(b.id, every))]
                owners = [(m, m.defs[name]) for m,name in bases]
            for m,c in owners: yield from ((m, o, c) for o in c.body if getattr(o, 'name', '') == f.attr)
        for o in (f.body, f.orelse) if isinstance(f, ast.IfExp) else (f,):
            at = self.origin(o.id, every) if isinstance(o, ast.Name) else None
            d = at[0].defs.get(at[1]) if at else None
            if isinstance(d, ast.FunctionDef): yield at[0],d,None
            elif d: yield from ((at[0], o, d) for o in d.body if getattr(o, 'name', '') == '__init__')

    def _given(self, fn, call, method):
        "What a call gives to the parameters of `fn`, or what they are otherwise"
        names = [a.arg for a in fn.args.args][bool(method):]
        stars = [i for i,a in enumerate(call.args) if isinstance(a, ast.Starred)] + [len(call.args)]
        given = dict(zip(names[::-1], fn.args.defaults[::-1])) | dict(zip(names, call.args[:stars[0]]))
        return given | {k.arg: k.value for k in call.keywords if k.arg}

    def checks_of(self, fn, cls, every, env={}, depth=0):
        "What checks in a function, and in those of this package that it calls, declare of its parameters"
        out = {}
        def add(k, what):                                    # what a function says itself comes before what it calls says
            if not any(o.split()[:3] == what.split()[:3] for o in out.setdefault(k, [])): out[k].append(what)
        for call in (o for s in fn.body for o in ast.walk(s) if isinstance(o, ast.Call)):
            at = self.origin(call.func.id, every) if isinstance(call.func, ast.Name) else None
            if at and at[0].name == 'checks':
                for k,what in self._must(at[1], call, every, env): add(k, what)
            elif ast.unparse(call) == '_check(locals())':
                for k,what in self._tables(every): add(k, what)
            elif depth < 3:
                for m,f,c in self._called(call, cls, every):
                    given = self._given(f, call, c)
                    names = {k: v.id for k,v in given.items() if isinstance(v, ast.Name)}
                    known = {k: v for k,v in given.items() if isinstance(v, ast.Constant)}
                    for k,whats in m.checks_of(f, c, every, known, depth+1).items():
                        for what in whats if k in names else []:
                            other = re.search('‹(.+?)›', what)
                            if not other: add(names[k], what)
                            elif other[1] in names: add(names[k], what.replace(other[0], f'‹{names[other[1]]}›'))
        for m,f,_ in self._delegates(fn, every):
            for k,v in m.checks_of(f, None, every).items(): out.setdefault(k, v)
        return out

    # ---- names --------------------------------------------------------------------------------------------------------
    def _fill(self, n, fn, every, method=False, cls=None):
        n.params,taken = self._params(fn, method, every)
        n.doc = ast.get_docstring(fn) or n.doc
        if n.kind != 'class':
            n.returns = ast.unparse(fn.returns) if fn.returns else ''
            line = _colon(self.text, fn)
            if line not in taken and fn.body[0].lineno > line: n.ret_doc = self.comments.get(line, '')
        found = self.checks_of(fn, cls, every)
        names = [p[0].lstrip('*') for p in n.params]
        def known(what): return (m := re.search('‹(.+?)›', what)) is None or m[1] in names
        n.checks = {k: [re.sub('[‹›]', '', o) for o in found[k] if known(o)] for k in names if k in found}
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
                        more = Name(name=f'{o.name}.{f.name}', kind=kind, **{**base, 'node': f, 'lines': self._lines(f)})
                        n.methods.append(self._fill(more, f, every, True, o))
                out.append(n)
            elif isinstance(o, ast.FunctionDef):
                patched = any(ast.unparse(d).startswith('patch') for d in o.decorator_list)
                if o.name in self.all: out.append(self._fill(Name(name=o.name, kind='function', **base), o, every))
                elif patched and o.name[0] != '_' and ast.get_docstring(o):
                    name = f'{ast.unparse(o.args.args[0].annotation)}.{o.name}'
                    out.append(self._fill(Name(name=name, kind='method', **base), o, every, True))
            elif isinstance(o, ast.Assign):
                doc = self.comments.get(o.lineno) or self.comments.get(o.end_lineno, '')
                for t in (t for a in o.targets for t in ([a] if isinstance(a, ast.Name) else getattr(a, 'elts', []))):
                    if isinstance(t, ast.Name) and t.id in self.all:
                        out.append(Name(name=t.id, kind='data', doc=doc, value=ast.unparse(o.value), **base))
        return out

class Package:
    "Every module of the package; `names` has those of `all.py`, in its order"
    def __init__(self, folder):
        folder = Path(folder)
        order = re.findall(rf'^from {folder.name}\.(\w+) import', (folder/'all.py').read_text(encoding='utf-8'), re.M)
        rest = [f.stem for f in sorted(folder.glob('[a-z]*.py')) if f.stem not in ('all', *order)]
        self.modules = {o: Module(folder/f'{o}.py') for o in [*order, *rest]}
        self.names = {m: self.modules[m].names(self.modules) for m in order}
        self.flat = {n.name: n for ns in self.names.values() for o in ns for n in (o, *o.methods)}

    def find(self, dotted):
        "The module and the lines of `module.name` or `module.Class.method`, private ones too, patched ones too"
        mod,*path = dotted.split('.')
        if mod not in self.modules: raise KeyError(f'{dotted}: there is no module {mod}')
        m,body,node = self.modules[mod],self.modules[mod].tree.body,None
        for i,p in enumerate(path):
            found = next((o for o in body if p in (getattr(o, 'name', None), *(getattr(t, 'id', 0) for t in getattr(o, 'targets', [])))), None)
            if found is None and i: found = self._patched(m, path[i-1], p)
            if found is None: raise KeyError(f'{dotted}: {mod}.py does not define {p}')
            node,body = found,getattr(found, 'body', [])
        return m, *m._lines(node)

    def _patched(self, m, cls, name):
        "The function that `@patch` makes the method `name` of the class `cls`"
        for o in m.tree.body:
            first = o.args.args[0] if isinstance(o, ast.FunctionDef) and o.args.args else None
            if first is not None and o.name == name and first.annotation is not None and ast.unparse(first.annotation) == cls: return o
