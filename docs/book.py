"""Notebooks as Sphinx should read them, and as plain text: directives obeyed, progress bars swept
out, cells that only test and private helpers folded, figures at the size they were drawn for."""
import ast, base64, io, json, re
from collections import namedtuple
from pathlib import Path
from PIL import Image

LITTER = re.compile(r'<style>.*?</style>|<progress.*?</progress>|<div>\s*</div>', re.S)
ANSI = re.compile(r'\x1b\[[0-9;]*[A-Za-z]')
SLOW = '# slow: takes minutes, and runs only when asked for (`#| slow`)\n'
DEFS = ast.FunctionDef, ast.ClassDef

def notebooks(nbs):
    "The notebooks in reading order: the book by number, tutorials, appendices from number 20 on"
    fs = [f.relative_to(nbs) for f in Path(nbs).rglob('*.ipynb')]
    def place(f): return 1 if f.parts[1:] else 2*(f.name >= '20')
    return sorted((f for f in fs if not any(p[0] in '._' for p in f.parts)),
                  key=lambda f: (place(f), f))

def text(o): return o if isinstance(o, str) else ''.join(o or [])

def split(cell):
    "The directives of a code cell, and its code without them"
    ds,lines = {},text(cell['source']).splitlines()
    while lines and (m := re.match(r'\s*#\s*\|\s*([\w-]+)\s*:?\s*(.*)$', lines[0])):
        ds[m[1]],_ = m[2].strip().strip('"\''),lines.pop(0)
    return ds,'\n'.join(lines).strip('\n')

def parsed(code):
    try: return ast.parse(re.sub(r'^\s*[%!].*$', '', code, flags=re.M)).body
    except SyntaxError: return []

def outputs(cell):
    "The outputs worth showing: no progress bars, widgets or warnings"
    res = []
    for o in cell.get('outputs', []):
        if o['output_type'] == 'error':
            o = dict(output_type='stream', name='stdout', text=f"{o['ename']}: {o['evalue']}\n")
        d = {k: text(v) for k,v in o.get('data', {}).items()}
        if 'text/html' in d: d['text/html'] = LITTER.sub('', d['text/html']).strip()
        if o.get('name') == 'stderr' or d.get('text/html') == '' or any('widget' in k for k in d):
            continue
        if 'text' in o:
            o = {**o, 'text': '\n'.join(l.rstrip('\r').split('\r')[-1].rstrip()
                                        for l in ANSI.sub('', text(o['text'])).split('\n'))}
            if not o['text'].strip(): continue
        else:
            if 'image/png' in d or 'image/gif' in d: d.pop('text/html', None)
            o = {**o, 'data': d, 'metadata': {k: size(d[k]) for k in ('image/png', 'image/gif')
                                              if k in d}}
        res.append(o)
    return res

def size(picture):
    "Width and height of a figure on the screen: half its pixels, if it was drawn at twice that"
    im = Image.open(io.BytesIO(base64.b64decode(picture)))
    half = 1 + (im.info.get('dpi', (72, 72))[0] > 120)
    return dict(width=im.width//half, height=im.height//half)

def plain(o, alt):
    "An output as plain text: of a figure its description, of a table its rows"
    d = o.get('data', {})
    if any(k.startswith('image/') for k in d): return f'[Figure: {alt}]'
    rows = re.findall(r'<tr.*?</tr>', d.get('text/html', ''), re.S)
    cells = [re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', r, re.S) for r in rows]
    table = '\n'.join(' | '.join(re.sub('<.*?>', '', c).strip() for c in r) for r in cells)
    return table or ANSI.sub('', o.get('text') or d.get('text/plain', '')).strip('\n')

# ---- what is folded -----------------------------------------------------------------------------
def is_test(o):
    "Does a statement test something, and nothing else?"
    if isinstance(o, ast.With) and any('expect_fail' in ast.unparse(i) for i in o.items):
        return True
    if isinstance(o, (ast.For, ast.With)): return all(map(is_test, o.body))
    said = isinstance(o, ast.Expr) and ast.unparse(o).startswith('test_')
    return said or isinstance(o, ast.Assert)

def made(statements):
    "The names that statements bind"
    inner = [n for o in statements if not isinstance(o, DEFS) for n in ast.walk(o)
             if isinstance(n, ast.Name)]
    stored = {n.id for n in inner if isinstance(n.ctx, ast.Store)}
    return stored | {o.name for o in statements if isinstance(o, DEFS)}

def needed(name, later):
    "Do statements use what `name` stands for now, before they bind it anew?"
    for o in later:
        if name in made([o]): return False
        if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(o)): return True

def checks(code, later):
    "How many checks a cell makes, if it does nothing but test; `later` is the code that follows"
    body,later = parsed(code),[o for c in later for o in parsed(c)]
    makes = ast.Assign, ast.Import, ast.ImportFrom, *DEFS
    if not body or not is_test(body[-1]): return 0
    if not all(is_test(o) or isinstance(o, makes) for o in body): return 0
    if any(needed(n, later) for n in made(body)): return 0
    calls = [o for s in body for o in ast.walk(s) if isinstance(o, (ast.Assert, ast.Call))]
    return sum(isinstance(o, ast.Assert) or ast.unparse(o.func).startswith(('test_', 'expect_fail'))
               for o in calls)

def folded(ds, code, later, outs):
    "What a folded cell says of itself; nothing if it stays open"
    body = parsed(code)
    if body and all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in body) and 'export' in ds:
        return 'Imports'
    if 'slow' in ds or outs: return ''
    if n := checks(code, later): return f"{n} check{'s'[:n > 1]} passed"
    names = made(body) if all(isinstance(o, (ast.Assign, *DEFS)) for o in body) else ()
    if names and all(o[0] == '_' for o in names):
        return f"Helper{'s'[:len(names) > 1]}: {', '.join(sorted(names))}"
    return 'Code' if 'export' in ds or 'code-fold' in ds else ''

# a cell that defines nothing, and what it showed
Demo = namedtuple('Demo', 'code text picture alt folded')

class Book:
    "A notebook: `cells` for Sphinx, `twin` as plain text, demonstrations, figures, names"
    def __init__(self, file, nbs, names, colab=None):
        self.file,self.rel = file,file.relative_to(nbs)
        self.doc,self.title = self.rel.with_suffix('').as_posix(),''
        self.cells,self.demos,self.figures,self.defined = [],[],[],[]
        twin,raw = [],json.loads(file.read_text(encoding='utf-8'))['cells']
        self.module = next((m[1] for c in raw
                            if (m := re.match(r'#\| default_exp (\w+)', text(c['source'])))), None)
        codes = [split(c)[1] if c['cell_type'] == 'code' else '' for c in raw]
        for at,c in enumerate(raw):
            if c['cell_type'] == 'markdown':
                twin.append(text(c['source']))
                self.md(self.head(twin[-1], colab) if not self.title else twin[-1])
            elif c['cell_type'] == 'code':
                twin += self.code(c, codes[at+1:], names.get(self.module, ()))
        self.twin = '\n\n'.join(t.strip() for t in twin if t.strip()) + '\n'
        part = 'appendices' if self.rel.name >= '20' else 'book'
        self.part = 'tutorials' if self.rel.parts[1:] else part

    def md(self, source): self.cells.append(dict(cell_type='markdown', metadata={}, source=source))

    def head(self, src, colab):
        "The title, the line under it, what search should find here, and where to run it"
        m = re.match(r'# (.+)\s*(?:>\s*(.+))?', src)
        self.title,self.lead = m[1].strip(),m[2] or ''
        links = [f'<a href="{colab}{self.rel.as_posix()}">Open in Colab</a>']*bool(colab)
        here = ('ipynb', ' download', 'Download notebook'), ('md', '', 'Plain text')
        links += [f'<a href="{self.rel.stem}.{end}"{x}>{t}</a>' for end,x,t in here]
        bar = f'<p class="page-links">{"".join(links)}</p>'
        lead = f'{{.lead}}\n{self.lead.rstrip(".")}.'
        return '\n\n'.join([f'# {self.title}', '@INDEX@', lead, bar, src[m.end():].strip()])

    def code(self, c, later, names):
        "Take a code cell in; its plain text"
        ds,code = split(c)
        if 'default_exp' in ds or 'hide' in ds or ds.get('include') == 'false' or not code:
            return []
        outs = [] if 'hide_output' in ds or ds.get('output') == 'false' else outputs(c)
        hide = 'hide_input' in ds or ds.get('echo') == 'false'
        if hide and not outs: return []
        shown,fold = SLOW*('slow' in ds) + code,folded(ds, code, later, outs)
        meta = dict(tags=['remove-input'] if hide else ['hide-input'] if fold else [],
                    mystnb=dict(code_prompt_show=fold, code_prompt_hide=fold))
        pics = [o['data'] for o in outs if any(k.startswith('image/') for k in o.get('data', {}))]
        if pics: meta['mystnb']['image'] = dict(alt=ds.get('fig-alt') or self.title)
        self.figures += [(code, p) for p in pics]
        exported = set(names) if ds.keys() & {'export', 'exports'} else set()
        new = sorted((made(parsed(code)) & exported).difference(self.defined), key=code.find)
        self.defined += new
        if new: self.md('\n'.join(f'<div class="def" id="def-{n}"></div>' for n in new))
        self.cells.append(dict(cell_type='code', metadata=meta, source=shown, execution_count=None,
                               outputs=outs))
        if new: self.md('{.defined}\nIn the reference: ' + ', '.join(f'`{n}`' for n in new) + '.')
        said = [plain(o, ds.get('fig-alt')) for o in outs]
        if not new:
            self.demos.append(Demo(code, '' if pics else '\n'.join(said), pics[0] if pics else None,
                                   ds.get('fig-alt'), bool(fold)))
        return [f'```python\n{shown}\n```']*(not hide) + [f'```text\n{o}\n```' for o in said]

    def save(self, folder, index):
        "Write the notebook for Sphinx to `folder`"
        (to := Path(folder)/self.rel).parent.mkdir(parents=True, exist_ok=True)
        for i,c in enumerate(self.cells): c['id'] = f'c{i}'
        self.cells[0]['source'] = self.cells[0]['source'].replace('@INDEX@', index)
        meta = dict(kernelspec=dict(display_name='python3', language='python', name='python3'),
                    language_info=dict(name='python'))
        to.write_text(json.dumps(dict(cells=self.cells, metadata=meta, nbformat=4,
                                      nbformat_minor=5)), encoding='utf-8')
