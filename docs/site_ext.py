"""The site's own Sphinx extension: heads of pages, links from backticked names, the glossary's first uses, lines of code
beside the paper they implement."""
import ast, html, re
from importlib.metadata import PackageNotFoundError, distribution
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_id
from api import span

log = logging.getLogger(__name__)
site = None     # what `conf.py` knows: package, books, addresses

def raw(s): return nodes.raw('', s, format='html')
def slug(s): return re.sub(r'[^a-z0-9]+', '-', s.lower()).strip('-')
def links(*pairs, cls='page-links'):
    return raw(f'<p class="{cls}">' + ''.join(f'<a href="{html.escape(u)}"{x}>{t}</a>' for t,u,x in pairs) + '</p>')

# ---- directives -------------------------------------------------------------------------------------------------------
class PageHead(SphinxDirective):
    "Under the title of a notebook: its one-line description, and where to run, see and download it"
    required_arguments,has_content = 1,True
    def run(self):
        rel = self.arguments[0]
        stem = rel.rsplit('/', 1)[-1][:-6]
        bar = links(('Open in Colab', site.colab(rel), ''), ('View on GitHub', site.blob(f'nbs/{rel}'), ''),
                    ('Download notebook', f'{stem}.ipynb', ' download'), ('Plain text', f'{stem}.md', ''))
        p = nodes.container(classes=['lead'])
        self.state.nested_parse(self.content, self.content_offset, p)
        return [p, bar]

class PageSource(SphinxDirective):
    "Under the title of any other page: where its text is"
    required_arguments = 1
    def run(self): return [links(('View on GitHub', site.blob(self.arguments[0]), ''))]

class Anchors(SphinxDirective):
    "A place to jump to before the cell that defines some names"
    required_arguments,final_argument_whitespace = 1,True
    def run(self):
        t = nodes.target('', '', ids=[f'def-{n}' for n in self.arguments[0].split()], classes=['def'])
        return [nodes.paragraph('', '', t, classes=['anchors'])]

class Defined(SphinxDirective):
    "After the cell that defines some names: their entries in the reference, and their lines in the repository"
    required_arguments,final_argument_whitespace = 1,True
    def run(self):
        p = nodes.paragraph('', 'In the reference: ', classes=['defined'])
        names = [site.pkg.flat[n] for n in self.arguments[0].split()]
        for i,n in enumerate(names):
            if i: p += nodes.Text(', ')
            p += nodes.literal(n.name, n.name)
        p += nodes.Text('. Source: ')
        for i,n in enumerate(names):
            if i: p += nodes.Text(', ')
            p += nodes.reference('', span(n.lines) if i else f'{n.module}.py, {span(n.lines)}', refuri=site.blob(f'{site.lib}/{n.module}.py', n.lines), internal=False)
        return [p]

class Lines(SphinxDirective):
    "Lines of the package, found by name: whole definitions, or from one pattern to another within them"
    required_arguments,has_content = 1,True
    option_spec = {'from': directives.unchanged, 'to': directives.unchanged}
    def run(self):
        try: m,a,b = site.pkg.find(self.arguments[0])
        except KeyError as e: raise self.error(f'lines: {e.args[0]}')
        src = list(enumerate(m.text.splitlines(), 1))[a-1:b]
        for opt in ('from', 'to'):
            if opt in self.options:
                pat = self.options[opt]
                hit = next((i for i,l in src if re.search(pat, l)), None)
                if hit is None: raise self.error(f'lines: no line of {self.arguments[0]} matches {pat!r}')
                src = [(i,l) for i,l in src if (i >= hit if opt == 'from' else i <= hit)]
        a,b = src[0][0],src[-1][0]
        indent = min(len(l) - len(l.lstrip()) for _,l in src if l.strip())
        code = '\n'.join(l[indent:] for _,l in src)
        name = '.'.join(self.arguments[0].split('.')[1:])
        cap = nodes.paragraph('', '', nodes.literal(name, name), nodes.Text(' in '),
            nodes.reference('', f'{m.name}.py, {span((a, b))}', refuri=site.blob(f'{site.lib}/{m.name}.py', (a, b)), internal=False), classes=['lines-caption'])
        return [nodes.container('', cap, nodes.literal_block(code, code, language='python'), classes=['lines'])]

class Beside(SphinxDirective):
    "Two columns: everything but code on the left, `lines` on the right"
    has_content = True
    def run(self):
        box = nodes.container(classes=['beside'])
        left,right = nodes.container(classes=['beside-paper']),nodes.container(classes=['beside-code'])
        tmp = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, tmp)
        for o in tmp.children: (right if isinstance(o, nodes.container) and 'lines' in o['classes'] else left).append(o)
        box += [left, right]
        return [box]

class Term(SphinxDirective):
    "A word or symbol of the glossary: `match` says how it looks where the book first uses it"
    required_arguments,final_argument_whitespace,has_content = 1,True,True
    option_spec = {'match': directives.unchanged_required}
    def run(self):
        if 'match' not in self.options: raise self.error('term: say how it is written in the book, by :match:')
        word = self.arguments[0]
        key = slug(re.sub(r'\\bar', 'bar ', word))
        box = nodes.container(classes=['term'], ids=[f'term-{key}'])
        head = nodes.paragraph(classes=['term-head'])
        for i,part in enumerate(re.split(r'\$(.+?)\$', word)):
            if part: head += nodes.math(part, part) if i%2 else nodes.Text(part)
        body = nodes.container(classes=['term-body'])
        self.state.nested_parse(self.content, self.content_offset, body)
        where = nodes.paragraph('', '', classes=['term-first'], term=key)
        box += [head, body, where]
        terms = self.env.__dict__.setdefault('site_terms', {})
        if key in terms: raise self.error(f'term: {word} is in the glossary twice')
        terms[key] = dict(match=[o.strip() for o in re.split(r'\s\|\s', self.options['match'])], word=word, doc=self.env.docname)
        return [box]

class Cited(SphinxDirective):
    "Every paper that a notebook links to, with the sections that do"
    def run(self):
        rows = {}
        for b in site.books:
            head,n = b.title,0
            for c in b.cells:
                if c['cell_type'] != 'markdown': continue
                for l in c['source'].splitlines():
                    if m := re.match(r'#+ (.+)', l): head = m[1].replace('`', '')
                    for t,u in re.findall(r'\[([^\]]+)\]\((https://arxiv\.org/abs/[\w./-]+)\)', l):
                        r = rows.setdefault(u, [[], []])
                        if re.search(r'\d{4}', t): r[0].append(t.replace(',', ''))
                        if (b.doc, b.title) not in r[1]: r[1].append((b.doc, b.title))
        ul = nodes.bullet_list()
        for u,(labels,where) in sorted(rows.items(), key=lambda o: (o[1][0] or [o[0]])[0]):
            p = nodes.paragraph('', '', nodes.reference('', (labels or [u])[0], refuri=u, internal=False), nodes.Text(': '))
            for i,(doc,title) in enumerate(where):
                if i: p += nodes.Text(', ')
                p += nodes.reference('', title.replace('`', ''), refuri=doc + '.html', internal=True, classes=['to-doc'])
            ul += nodes.list_item('', p)
        text = '\n'.join(c['source'] for b in site.books for c in b.cells)
        for label in set(re.findall(r'\[([^\]]+)\]\(https://arxiv', (site.root/'docs/papers.md').read_text(encoding='utf-8'))):
            if label not in text: log.warning(f'papers.md has {label}, which no notebook names', location=self.get_location())
        return [ul]

class Everything(SphinxDirective):
    "All public names by module, in short"
    def run(self):
        out = []
        for m,ns in site.pkg.names.items():
            p = nodes.paragraph('', '', nodes.strong('', f'{m}: '))
            for i,n in enumerate(ns):
                if i: p += nodes.Text(' · ')
                p += nodes.literal(n.name, n.name)
            out.append(p)
        return [nodes.container('', *out, classes=['all-names'])]

# ---- backticked names -------------------------------------------------------------------------------------------------
class Outside:
    "Where names of torch, fastai and fastcore are documented"
    def __init__(self):
        self.urls,self.short,self.modules = {},{},{}
        for lib in ('fastai', 'fastcore'):
            try: text = distribution(lib).locate_file(f'{lib}/_modidx.py').read_text(encoding='utf-8')
            except (PackageNotFoundError, FileNotFoundError): raise ExtensionError(f'{lib} is not installed, so names cannot be linked to its pages')
            d = ast.literal_eval(text.split('d = ', 1)[1])
            host = d['settings']['doc_host'] + d['settings'].get('doc_baseurl', '/').rstrip('/') + '/'
            for mod,syms in d['syms'].items():
                for full,(page,_) in syms.items():
                    self.modules[mod] = host + page.partition('#')[0]
                    self.urls[full] = host + page
                    self.short.setdefault((lib, full[len(mod)+1:]), set()).add(full)

    def torch(self, full):
        "The page of a public class or function of torch, which has the name of the object"
        parts = full.split('.')
        if any(p.startswith('_') for p in parts) or 'modules' in parts: return
        if re.fullmatch(r'torch\.nn\.functional\.[a-z]\w+', full) or re.fullmatch(r'torch\.nn\.[A-Z]\w+', full) \
           or re.fullmatch(r'torch\.Tensor\.[a-z]\w+', full) or re.fullmatch(r'torch\.[a-z]\w+', full) and parts[1] in TORCH:
            return f'https://docs.pytorch.org/docs/stable/generated/{full}.html'
        if full in ('torch.Tensor',): return 'https://docs.pytorch.org/docs/stable/tensors.html'

    def fast(self, lib, name):
        "The page of a name of fastai or fastcore that only one of their modules defines"
        full = self.short.get((lib, name), ())
        return self.urls[next(iter(full))] if len(full) == 1 else None

# functions of the `torch` namespace that prose may name; others stay unlinked, since not all have a page of this form
TORCH = set('cat chunk compile einsum lerp linspace manual_seed no_grad inference_mode rand randn randn_like randperm save load stack cdist '
            'where zeros ones full empty arange as_tensor from_numpy matmul bmm set_grad_enabled compile'.split())

def outside_link(name, imports):
    "The address of a name that is not ours, or nothing if there is any doubt"
    o = site.outside
    root,_,rest = name.partition('.')
    std = {'torch': 'torch', 'nn': 'torch.nn', 'F': 'torch.nn.functional', 'fastai': 'fastai', 'fastcore': 'fastcore'}
    alias = imports.get(root) if isinstance(imports.get(root), str) else std.get(root)
    full = name
    if rest and alias: full = f'{alias}.{rest}'
    elif not rest and isinstance(imports.get(name), str): full = imports[name]
    elif not rest:
        used = {u for u in imports.get('used', ()) if u.rsplit('.', 1)[-1] == name}
        if len(used) == 1: full = used.pop()
    if full.startswith('torch.'): return o.torch(full)
    lib,_,last = full.partition('.')
    if lib in ('fastai', 'fastcore') and last:
        if full == name: return o.urls.get(full) or o.modules.get(full)         # written out in full
        short = full.split('.')[-1]                                             # imported, perhaps from where it is only passed on
        return o.urls.get(full) or o.fast(lib, short) or (o.fast('fastcore', short) if lib == 'fastai' else None)
    if root == 'learn' and rest: return o.fast('fastai', f'Learner.{rest}')
    if re.fullmatch(r'[A-Z]\w*[a-z]\w*(\.\w+)?', name):                    # a class: fastai's if it has one of that name
        return o.fast('fastai', name)
    if '_' in name and not rest: return o.fast('fastai', f'Learner.{name}')
    stars = [m for m in imports.get('*', []) if m.split('.')[0] in ('fastai', 'fastcore')]
    if stars and '_' in name: return o.urls.get(next((f'{m}.{name}' for m in stars if f'{m}.{name}' in o.urls), ''))

def own(name):
    "Our public name that `name` stands for: itself, with its module, or a method that only one class has"
    name = re.sub(rf'^{site.lib}\.', '', re.sub(r'\(.*\)$', '', name, flags=re.S))
    flat = site.pkg.flat
    if name in flat: return flat[name]
    mod,_,rest = name.partition('.')
    if mod in site.pkg.modules and rest in flat: return flat[rest]
    if re.fullmatch(r'[a-z]\w*_\w+', name):
        hits = [n for k,n in flat.items() if k.endswith(f'.{name}')]
        if len(hits) == 1: return hits[0]

def uri(app, frm, to, anchor=''):
    return app.builder.get_relative_uri(frm, to) + (f'#{anchor}' if anchor else '')

def link_literals(app, doctree, docname):
    book = next((b for b in site.books if b.doc == docname), None)
    imports = book.imports if book else {}
    for lit in list(doctree.findall(nodes.literal)):
        if lit.get('classes') and 'code' not in lit['classes']: continue
        up,skip = lit.parent,False
        while up is not None:
            if isinstance(up, (nodes.reference, nodes.title)) or up.tagname in ('desc_signature',): skip = True; break
            up = up.parent
        name = lit.astext()
        if skip or not re.fullmatch(r'[A-Za-z_][\w.]*(\(\))?', name): continue
        bare = name.removesuffix('()')
        if n := own(bare):
            if docname == 'reference' and entry_of(lit) == n.full: continue
            ref = nodes.reference('', '', refuri=uri(app, docname, 'reference', n.full), internal=True, classes=['name'], reftitle=n.full)
        elif u := outside_link(bare, imports): ref = nodes.reference('', '', refuri=u, internal=False, classes=['name', 'outside'])
        else: continue
        lit.replace_self(ref)
        ref += lit
        site.linked.append((docname, name, ref['refuri']))

def entry_of(node):
    "The reference entry that a node stands in"
    while node is not None:
        if node.tagname == 'desc':
            ids = node.children[0].get('ids')
            return ids[0] if ids else None
        node = node.parent

# ---- glossary ---------------------------------------------------------------------------------------------------------
def first_match(doctree, match):
    "The first node, and the place in it, where one of the ways to write a term stands"
    for node in doctree.findall(lambda n: isinstance(n, (nodes.Text, nodes.math))):
        up,bad = node.parent,False
        while up is not None:
            if isinstance(up, (nodes.title, nodes.reference, pending_xref, nodes.literal_block, nodes.raw)) or {'page-links', 'lead', 'defined'} & set(up.get('classes', [])): bad = True; break
            up = up.parent
        if bad: continue
        for m in match:
            if m.startswith('$'):
                if isinstance(node, nodes.math) and re.search(m.strip('$'), node.astext()): return node,None
            elif m.startswith('`'):
                if isinstance(node, nodes.Text) and isinstance(node.parent, nodes.literal) and node.astext() == m.strip('`'): return node.parent,None
            elif isinstance(node, nodes.Text) and not isinstance(node.parent, (nodes.literal, nodes.math)):
                if hit := re.search(rf'\b{m}\b', node.astext(), re.I): return node,hit.span()
    return None

def find_first_uses(app, env):
    terms = env.__dict__.get('site_terms', {})
    env.site_first = {}
    trees = {b.doc: env.get_doctree(b.doc) for b in site.books if b.doc in env.found_docs}
    for key,t in terms.items():
        doc = next((d for d,tree in trees.items() if first_match(tree, t['match'])), None)
        if doc is None: log.warning(f"the glossary has “{t['word']}”, which no notebook uses as any of {t['match']}")
        else: env.site_first[key] = doc
    return []

def mark_terms(app, doctree, docname):
    env = app.env
    first,terms = env.__dict__.get('site_first', {}),env.__dict__.get('site_terms', {})
    for key in [k for k,d in first.items() if d == docname]:
        t = terms[key]
        hit = first_match(doctree, t['match'])
        if not hit: log.warning(f"glossary: “{t['word']}” cannot be linked in {docname}: something else links there"); continue
        node,at = hit
        ref = nodes.reference('', '', refuri=uri(app, docname, t['doc'], f'term-{key}'), internal=True, classes=['gloss'], ids=[f'first-{key}'], reftitle='In the glossary: ' + re.sub(r'[$\\\\]', '', t['word']))
        if at is None: node.replace_self(ref); ref += node
        else:
            s = node.astext()
            ref += nodes.Text(s[slice(*at)])
            node.parent.replace(node, [nodes.Text(s[:at[0]]), ref, nodes.Text(s[at[1]:])])
    for p in doctree.findall(nodes.paragraph):
        if key := p.get('term'):
            if doc := first.get(key):
                b = next(b for b in site.books if b.doc == doc)
                p += [nodes.Text('First used in '), nodes.reference('', b.title.replace('`', ''), refuri=uri(app, docname, doc, f'first-{key}'), internal=True)]

def resolved(app, doctree, docname):
    mark_terms(app, doctree, docname)
    link_literals(app, doctree, docname)
    for r in doctree.findall(nodes.reference):
        if 'to-doc' in r.get('classes', []): r['refuri'] = uri(app, docname, r['refuri'].removesuffix('.html'))

def setup(app):
    for name,cls in dict(lines=Lines, beside=Beside, term=Term, cited=Cited, anchors=Anchors, defined=Defined).items(): app.add_directive(name, cls)
    for name,cls in {'page-head': PageHead, 'page-source': PageSource, 'every-name': Everything}.items(): app.add_directive(name, cls)
    app.connect('env-updated', find_first_uses)
    app.connect('doctree-resolved', resolved)
    return dict(version='0', parallel_read_safe=False, parallel_write_safe=True)
