"""Notebooks as Sphinx should read them, and as plain text: directives obeyed, progress bars swept out, cells that only
test folded, each figure described and shown at the size it was drawn for."""
import ast, base64, functools, io, json, re, symtable
from pathlib import Path
from PIL import Image

_directive = re.compile(r'^\s*#\s*\|\s*([\w-]+)\s*:?\s*(.*)$')
_litter = re.compile(r'<style>.*?</style>|<progress.*?</progress>|<div>\s*</div>', re.S)
_ansi = re.compile(r'\x1b\[[0-9;]*[A-Za-z]')

def notebooks(nbs):
    "The notebooks in reading order: the book by number, then the tutorials, then the appendices, from number 20 on"
    fs = [f for f in Path(nbs).rglob('*.ipynb') if not any(p[0] in '._' for p in f.relative_to(nbs).parts)]
    def place(f): return 1 if len(f.relative_to(nbs).parts) > 1 else 2*(f.name[:2].isdigit() and int(f.name[:2]) >= 20)
    return sorted(fs, key=lambda f: (place(f), str(f)))

def text(o): return o if isinstance(o, str) else ''.join(o or [])

def split(cell):
    "The directives of a code cell, and its code without them"
    ds,lines = {},text(cell['source']).splitlines()
    while lines and (m := _directive.match(lines[0])): ds[m[1]] = m[2].strip().strip('"\''); lines.pop(0)
    return ds,'\n'.join(lines).strip('\n')

def outputs(cell):
    "The outputs worth showing: no progress bars, widgets, warnings or empty pieces"
    res = []
    for o in cell.get('outputs', []):
        if o['output_type'] == 'stream':
            if o['name'] == 'stderr': continue
            s = text(o['text'])
            if res and res[-1].get('name') == 'stdout': s = res.pop()['text'] + s              # one stream, saved in pieces
            s = '\n'.join(([p for p in l.split('\r') if p.strip()] or [''])[-1].rstrip() for l in _ansi.sub('', s).split('\n'))
            if s.strip(): res.append({**o, 'text': s})
        elif o['output_type'] in ('display_data', 'execute_result'):
            d = {k: text(v) for k,v in o['data'].items()}
            if any('widget' in k for k in d): continue
            if 'text/html' in d:
                d['text/html'] = _litter.sub('', d['text/html']).strip()
                if not d['text/html']: continue
                d.pop('text/markdown', None)
            if 'image/png' in d or 'image/gif' in d: d.pop('text/html', None)
            if list(d) == ['text/plain']: d['text/plain'] = _ansi.sub('', d['text/plain'])
            meta = {'image/png': dict(width=_width(d['image/png']))} if 'image/png' in d else {}
            if d: res.append({**o, 'data': d, 'metadata': meta})
    return [{**o, 'text': o['text'].strip('\n') + '\n'} if 'text' in o else o for o in res]

def _width(png):
    "The width of a figure on the screen: half its pixels, if it was drawn for twice the screen's resolution"
    im = Image.open(io.BytesIO(base64.b64decode(png)))
    return im.width//2 if im.info.get('dpi', (72, 72))[0] > 120 else im.width

def _is_test(o):
    "Does a statement test something, and nothing else?"
    if isinstance(o, ast.Assert): return True
    if isinstance(o, ast.For): return all(map(_is_test, o.body))
    if isinstance(o, ast.With): return any('expect_fail' in ast.unparse(i) for i in o.items) or all(map(_is_test, o.body))
    return isinstance(o, ast.Expr) and isinstance(o.value, ast.Call) and ast.unparse(o.value.func).startswith('test_')

@functools.cache
def _names(statement):
    "The names that a statement makes in the notebook, and those that it uses"
    top = symtable.symtable(statement, '', 'exec')
    made,used,tables = {o.get_name() for o in top.get_symbols() if o.is_assigned() or o.is_imported() or o.is_namespace()},set(),[top]
    while tables:
        t = tables.pop()
        used |= {o.get_name() for o in t.get_symbols() if o.is_referenced() and (t is top or o.is_global())}
        tables += t.get_children()
    return made,used

def _needed(name, later):
    "Does one of the statements `later` use what `name` stands for now?"
    for o in later:
        made,used = _names(o)
        if name in used: return True
        if name in made: return False
    return False

@functools.cache
def _statements(code): return [ast.unparse(o) for o in ast.parse(code).body]

def checks(code, later):
    "How many checks a cell makes, if it does nothing but test; `later` is the code of the cells that follow"
    try: body,later = ast.parse(code).body,[o for c in later for o in _statements(c)]
    except SyntaxError: return 0
    makes = ast.Assign, ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom
    if not body or not _is_test(body[-1]) or not all(_is_test(o) or isinstance(o, makes) for o in body): return 0
    if any(_needed(n, later) for n in _names(code)[0]): return 0
    calls = [o for s in body for o in ast.walk(s) if isinstance(o, (ast.Assert, ast.Call))]
    return sum(isinstance(o, ast.Assert) or getattr(o.func, 'id', '').startswith(('test_', 'expect_fail')) for o in calls)

def _strings(call):
    "The constant text that a plotting call writes on its figure"
    for k in call.keywords:
        v = k.value
        if isinstance(v, ast.Constant) and isinstance(v.value, str): yield k.arg,v.value
        elif isinstance(v, (ast.List, ast.Tuple)):
            s = [e.value for e in v.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
            if s: yield k.arg,', '.join(s)
        elif isinstance(v, ast.JoinedStr): yield k.arg,''.join(o.value if isinstance(o, ast.Constant) else '…' for o in v.values)

def describe(code, heading, before=''):
    "Words for a figure that has no `#| fig-alt:`, from the titles and labels in the code that drew it, and the prose before it"
    plain = re.sub(r'^\s*[%!].*$', '', code, flags=re.M)
    try: tree = ast.parse(plain)
    except SyntaxError: return f'Figure for “{heading}”'
    titles,axes,rows = [],{},[]
    for c in (o for o in ast.walk(tree) if isinstance(o, ast.Call)):
        f = c.func.attr if isinstance(c.func, ast.Attribute) else getattr(c.func, 'id', '')
        if f in ('suptitle', 'set_title', 'set_xlabel', 'set_ylabel') and c.args and isinstance(c.args[0], ast.Constant):
            titles.append(c.args[0].value) if 'title' in f else axes.setdefault(f[4:], c.args[0].value)
        for k,v in _strings(c):
            if k in ('title', 'suptitle'): titles.append(v)
            elif k in ('xlabel', 'ylabel'): axes.setdefault(k, v)
            elif k in ('label', 'row_titles', 'titles'): rows.append(v)
    kind = 'Images' if re.search(r'show_images|show_batch|show_results|imshow', code) else 'Plot'
    s = f"{kind} for “{heading}”"
    said = re.split(r'(?<=[.:?!]) ', re.sub(r'\[([^\]]*)\]\([^)]*\)|[`*]|\$\$?[^$]*\$\$?', r'\1', ' '.join(before.strip().split('\n\n')[-1].split())))
    if not titles and said[0]: s += '. ' + ' '.join(said[:2])[:240].rstrip(':')
    if titles: s += ': ' + '; '.join(dict.fromkeys(titles))
    if axes: s += f". {axes.get('ylabel', '')} against {axes['xlabel']}" if len(axes) == 2 else f". Along the axis: {[*axes.values()][0]}"
    if rows: s = s.rstrip('.') + '. ' + ', '.join(dict.fromkeys(rows))
    return re.sub(r'[\\$]|sqrt', '', s).replace('{', '').replace('}', '')

def _defined(code):
    "The names that the top level of a cell defines, a method added with `@patch` as `Class.method`"
    try: tree = ast.parse(code)
    except SyntaxError: return
    for o in tree.body:
        if isinstance(o, ast.ClassDef): yield o.name
        elif isinstance(o, ast.FunctionDef):
            patched = any(ast.unparse(d).startswith('patch') for d in o.decorator_list)
            yield f'{ast.unparse(o.args.args[0].annotation)}.{o.name}' if patched else o.name
        elif isinstance(o, ast.Assign): yield from (e.id for t in o.targets for e in ([t] if isinstance(t, ast.Name) else getattr(t, 'elts', [])) if isinstance(e, ast.Name))

class Book:
    "One notebook: what Sphinx gets (`cells`), its plain-text twin (`twin`), the names it defines, what its code imports"
    def __init__(self, file, nbs, pkg):
        self.file,self.rel = file,file.relative_to(nbs)
        self.doc = str(self.rel.with_suffix('')).replace('\\', '/')
        self.nb = json.loads(file.read_text(encoding='utf-8'))
        self.defines = {n.name: n for ns in pkg.names.values() for n in ns if n.notebook == self.rel.name} if len(self.rel.parts) == 1 else {}
        self.title,self.lead,self.figures,self.images = '','',[],{}
        self.imports = {}
        self._run()

    def _run(self):
        self.cells,twin,heading,before,code_all = [],[],'','',[]
        codes = [re.sub(r'^\s*[%!].*$', '', split(c)[1], flags=re.M) if c['cell_type'] == 'code' else '' for c in self.nb['cells']]
        for at,c in enumerate(self.nb['cells']):
            if c['cell_type'] == 'markdown':
                src = text(c['source'])
                if not self.title and (m := re.match(r'# (.+)', src)):
                    self.title = m[1].strip()
                    rest = src[m.end():].strip()
                    if q := re.match(r'>\s*(.+)', rest): self.lead,rest = q[1],rest[q.end():].strip()
                    heading = self.title
                    self.cells.append(self._md(f'# {self.title}\n\n```{{page-head}} {self.rel.as_posix()}\n{self.lead}\n```\n\n{rest}'))
                    twin.append(f'# {self.title}\n\n> {self.lead}' + (f'\n\n{rest}' if rest else ''))
                    continue
                if hs := re.findall(r'^#+ (.+)$', src, re.M): heading = hs[-1].replace('`', '')
                before = src if not re.match(r'#+ [^\n]+$', src) else ''
                self.cells.append(self._md(src)); twin.append(src)
            elif c['cell_type'] == 'code':
                ds,code = split(c)
                shown = f'#| slow\n{code}' if 'slow' in ds else code
                code_all.append(code)
                if 'default_exp' in ds or 'hide' in ds or ds.get('include') == 'false' or not code: continue
                outs = [] if 'hide_output' in ds or ds.get('output') == 'false' else outputs(c)
                hide = 'hide_input' in ds or ds.get('echo') == 'false'
                tags = ['remove-input'] if hide else ['hide-input'] if 'export' in ds or 'code-fold' in ds else []
                cell = dict(cell_type='code', id=c.get('id', ''), metadata=dict(tags=tags), source=shown, execution_count=None, outputs=outs)
                if tags == ['hide-input']:
                    what = 'imports' if all(re.match(r'\s*(import|from|#|$)', l) for l in code.splitlines()) else 'code'
                    cell['metadata']['mystnb'] = dict(code_prompt_show=f'Show the {what}', code_prompt_hide=f'Hide the {what}')
                elif not tags and not outs and 'slow' not in ds and (n := checks(code, codes[at+1:])):
                    said = f"{n} check{'s'[:n > 1]} passed"
                    cell['metadata'].update(tags=['hide-input'], mystnb=dict(code_prompt_show=said, code_prompt_hide=said))
                pics = [o for o in outs if any(k.startswith('image/') for k in o.get('data', {}))]
                if pics:
                    alt = ds.get('fig-alt') or describe(code, heading, before)
                    cell['metadata'].setdefault('mystnb', {})['image'] = dict(alt=alt)
                    for o in pics: self.images[len(self.figures)] = (code, o['data'])
                    self.figures.append((alt, 'fig-alt' in ds, heading, c.get('id', '')))
                if hide and not outs: continue
                if 'export' in ds or 'exports' in ds:
                    new = [n for n in _defined(code) if n in self.defines and n not in self._seen()]
                    self._mark(new)
                    if new: self.cells.append(self._md('```{anchors} ' + ' '.join(new) + '\n```'))
                    self.cells.append(cell)
                    if new: self.cells.append(self._md('```{defined} ' + ' '.join(new) + '\n```'))
                else: self.cells.append(cell)
                if not hide: twin.append(f'```python\n{shown}\n```')
                for o in outs:
                    if 'text' in o: twin.append(f"```text\n{text(o['text']).rstrip()}\n```")
                    elif any(k.startswith('image/') for k in o['data']): twin.append(f"*[Figure: {cell['metadata']['mystnb']['image']['alt']}]*")
                    elif 'text/html' in o['data']: twin.append(_table(o['data']['text/html']))
                    elif 'text/plain' in o['data']: twin.append(f"```text\n{o['data']['text/plain'].rstrip()}\n```")
        self.twin = '\n\n'.join(t.strip() for t in twin if t.strip()) + '\n'
        for code in code_all: self._collect(code)

    def _seen(self): return self.__dict__.setdefault('_done', set())
    def _mark(self, names): self._seen().update(names)
    def _md(self, src): return dict(cell_type='markdown', id='', metadata={}, source=src)

    def _collect(self, code):
        "What the outside names in the code stand for: `F.relu` is `torch.nn.functional.relu` here"
        try: tree = ast.parse(re.sub(r'^\s*[%!].*$', '', code, flags=re.M))
        except SyntaxError: return
        for o in ast.walk(tree):
            if isinstance(o, ast.Import):
                for a in o.names:
                    if a.asname: self.imports[a.asname] = a.name
                    else: self.imports.setdefault(a.name.split('.')[0], a.name.split('.')[0])
            elif isinstance(o, ast.ImportFrom) and o.module and not o.level:
                for a in o.names:
                    if a.name == '*': self.imports.setdefault('*', []).append(o.module)
                    else: self.imports[a.asname or a.name] = f'{o.module}.{a.name}'
        for o in ast.walk(tree):
            if isinstance(o, ast.Attribute):
                try: dotted = ast.unparse(o)
                except Exception: continue
                root,_,rest = dotted.partition('.')
                if re.fullmatch(r'[\w.]+', dotted) and isinstance(self.imports.get(root), str):
                    self.imports.setdefault('used', set()).add(f'{self.imports[root]}.{rest}')

    def save(self, folder, numbers):
        "Write the notebook for Sphinx to `folder`"
        to = Path(folder)/self.rel
        to.parent.mkdir(parents=True, exist_ok=True)
        for i,c in enumerate(self.cells): c['id'] = f'c{i}'
        meta = dict(kernelspec=dict(display_name='python3', language='python', name='python3'), language_info=dict(name='python'))
        to.write_text(json.dumps(dict(cells=self.cells, metadata=meta, nbformat=4, nbformat_minor=5)), encoding='utf-8')

    def image(self, pattern, file):
        "Write the last picture that a cell matching `pattern` drew to `file`"
        for code,data in reversed(self.images.values()):
            if re.search(pattern, code):
                kind = 'image/png' if 'image/png' in data else 'image/gif'
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                Path(file).write_bytes(base64.b64decode(data[kind]))
                return
        raise ValueError(f'{self.rel} has no figure whose code matches {pattern!r}')

def _table(html):
    "An HTML table as text"
    rows = [[re.sub('<.*?>', '', c).strip() for c in re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', r, re.S)] for r in re.findall(r'<tr[^>]*>(.*?)</tr>', html, re.S)]
    if not rows: return ''
    return '\n'.join('| ' + ' | '.join(r) + ' |' for r in [rows[0], ['---']*len(rows[0]), *rows[1:]])
