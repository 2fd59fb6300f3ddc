"What notebooks cannot test: the package as it is installed, names and signatures others rely on"
import ast, inspect, json, subprocess, sys, shutil
from configparser import ConfigParser
from importlib import import_module
from importlib.metadata import distributions, version
from pathlib import Path
import pytest
import torch.nn.functional as F
from fastcore.docments import docments

root, lib = Path(__file__).resolve().parent.parent, 'unet_attention'
files = {f.stem: f for f in sorted((root/lib).glob('*.py')) if f.stem[0] != '_'}
# what is written by hand: `all` itself, what rooms share, and an extension of Jupyter
modules = [o for o in files if o not in ('all', 'arguments', 'checks', 'slow')]
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

def run(*cmd, **kw):
    kw = dict(text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)
    r = subprocess.run([sys.executable, *map(str, cmd)], **kw)
    assert r.returncode == 0, r.stdout
    return r.stdout

# ---- the house ----------------------------------------------------------------------------------
floors = dict(
    arguments=0, checks=1, slow=1, attention=2, embeddings=2, diffusion=2, images=2,
    averages=2, blocks=3, sampling=3, data=3,
    unet=4, shapes=4, evaluation=5, anatomy=5, editing=5, saving=5, sources=5, captions=5, emoji=6,
    training=6, checkpoints=7, cli=8, all=9)
only_torch = 'arguments checks attention embeddings diffusion blocks sampling unet'.split()

def imports(name):
    "Module, names and line of each import in a module of the package"
    for o in ast.walk(ast.parse(files[name].read_text(encoding='utf-8'))):
        if isinstance(o, ast.Import):
            for a in o.names: yield a.name, [], o.lineno
        elif isinstance(o, ast.ImportFrom):
            ours = o.level or o.module.split('.')[0] == lib
            parts = (o.module or '').removeprefix(lib).strip('.')
            yield (f'{lib}.{parts}' if ours else o.module), [a.name for a in o.names], o.lineno

def own(module): return module.split('.')[1] if module.startswith(f'{lib}.') else ''

@pytest.mark.parametrize('name', files)
def test_imports_point_down(name):
    "A module imports from lower floors alone, and by `import`, so that this test sees it"
    ours = [(own(m), f'{name}.py, line {l}: {m}') for m,_,l in imports(name) if own(m)]
    assert [where for m,where in ours if floors[m] >= floors[name]] == []
    assert 'import_module' not in files[name].read_text(encoding='utf-8')

@pytest.mark.parametrize('name', files)
def test_no_private_name_crosses(name):
    "No name with an underscore is imported from another module, or taken from one as an attribute"
    def private(o): return o[0] == '_' and not o.endswith('__')
    bad = [f'{name}.py, line {l}: {n}' for m,ns,l in imports(name) if m.startswith(f'{lib}.')
           for n in ns if private(n)]
    nodes = [*ast.walk(ast.parse(files[name].read_text(encoding='utf-8')))]
    froms = [a for o in nodes if isinstance(o, (ast.Import, ast.ImportFrom)) for a in o.names]
    theirs = {a.asname or a.name.split('.')[0] for a in froms} - {'torch'}
    taken = [o for o in nodes if isinstance(o, ast.Attribute) and private(o.attr)]
    bad += [f'{name}.py, line {o.lineno}: {ast.unparse(o)}' for o in taken
            if isinstance(o.value, ast.Name) and o.value.id in theirs]
    assert bad == []

def test_where_fastai_lives():
    users = {n for n in files for m,_,_ in imports(n) if m.split('.')[0] == 'fastai'}
    assert users == {'data', 'training', 'checkpoints', 'cli'}

@pytest.mark.parametrize('name', ['unet', 'sampling'])
def test_network_and_sampler_need_only_torch(name):
    "Beyond what `import torch` loads they bring modules of this package, and of Python"
    code = f"""import torch, sys
before = set(sys.modules)
import {lib}.{name}
print(*set(sys.modules) - before)"""
    new = run('-c', code).splitlines()[-1].split()
    ours = [o for o in new if o.split('.')[0] == lib]
    others = {o.split('.')[0] for o in new} - {lib} - sys.stdlib_module_names
    print(f'{lib}.{name}: {len(ours)} modules of the package, {len(new) - len(ours)} of Python')
    assert f'{lib}.{name}' in ours and others <= {'torch'}, others
    assert {own(o) for o in ours} <= {'', '_help', *only_torch}

# ---- names --------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', modules)
def test_public_names(name):
    "Each public name is in `all`, is the same object there, and is documented"
    mod, every = import_module(f'{lib}.{name}'), import_module(f'{lib}.all')
    assert mod.__doc__, f'{name} has no docstring'
    assert mod.__all__, f'{name} has no public names'
    for o in mod.__all__:
        assert getattr(every, o, None) is getattr(mod, o), f'{name}.{o} is not in {lib}.all'
        f = getattr(mod, o)
        plain = not (inspect.isclass(f) or inspect.isroutine(f))
        assert plain or f.__doc__, f'{name}.{o} has no docstring'

def test_colab():
    "Each notebook begins with a cell that installs the package in Colab, as settings.ini says"
    want = f"    %pip install -q git+https://github.com/{cfg['user']}/{lib}\n"
    for f in (root/'nbs').rglob('[!._]*.ipynb'):
        cells = json.loads(f.read_text(encoding='utf-8'))['cells']
        first = ''.join(next(c['source'] for c in cells if c['cell_type'] == 'code')) + '\n'
        assert "if 'google.colab' in sys.modules:" in first and want in first, f

@pytest.mark.parametrize('name', ['arguments', 'checks', 'slow'])
def test_written_by_hand(name): assert import_module(f'{lib}.{name}').__doc__

# ---- the package as it is installed -------------------------------------------------------------
def test_version():
    assert version(lib) == cfg['version'], 'settings.ini has changed: run pip install -e . again'

def test_wheel(tmp_path):
    "A wheel built from the source distribution imports without the repository, and has commands"
    src, site, empty = tmp_path/'src', tmp_path/'site', tmp_path/'empty'
    shutil.copytree(root/lib, src/lib, ignore=shutil.ignore_patterns('__pycache__'))
    for f in 'settings.ini setup.py pyproject.toml MANIFEST.in README.md LICENSE'.split():
        shutil.copy(root/f, src)
    run('-m', 'build', '--no-isolation', src)   # the source distribution, then a wheel from it
    wheel, = (src/'dist').glob('*.whl')
    run('-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--target', site, wheel)
    dist, = distributions(path=[str(site)])
    scripts = {e.name for e in dist.entry_points if e.group == 'console_scripts'}
    assert scripts == {'unet_attention_train', 'unet_attention_sample'}
    meta = dist.metadata
    assert meta['Version'] == cfg['version'] and meta['Requires-Python'] == f">={cfg['min_python']}"
    assert meta['License-Expression'] == cfg['license'] and dist.read_text('licenses/LICENSE')
    assert (site/lib/'py.typed').exists()             # its annotations are for type checkers
    empty.mkdir()
    code = f"import {lib}.all as m; from importlib.metadata import distribution as d; " \
           f"[e.load() for e in d('{lib}').entry_points]; print(m.__file__)"
    out = run('-c', code, cwd=empty, env={'PYTHONPATH': str(site), 'PATH': '', 'HOME': str(empty)})
    assert Path(out.splitlines()[-1]) == site/lib/'all.py'

# ---- signatures of the seeds --------------------------------------------------------------------
# `...` stands for any default. Where no default is written a function may add one; further keyword
# arguments may follow.
signatures = dict(
    MultiheadSelfAttention1D = lambda nc, nh: 0,
    TimestepEmbedding        = lambda dim: 0,
    ResidualBlock            = lambda in_channels, out_channels, time_emb_dim=None: 0,
    ResBlock                 = lambda in_ch, out_ch, time_emb_dim: 0,
    AttentionBlock           = lambda channels, num_heads=8: 0,
    CrossAttentionBlock      = lambda channels, context_dim, num_heads=8: 0,
    UNet                     = lambda: 0,
    TAResBlock               = lambda t_embed, c_in, c_out, ks=3, stride=2, nh=None: 0,
    TADownblock              = lambda t_embed, c_in, c_out, downsample=True, n_layers=1, nh=None: 0,
    TAUpblock                = lambda t_embed, c_in, c_out, upsample=True, n_layers=1, nh=None: 0,
    TAUnet                   = lambda nfs=(224,448,672,896), attention_heads=(0,8,8,8),
                                      n_blocks=(3,2,2,1,1), color_channels=3: 0,
    ConditionalTAUnet        = lambda n_classes, nfs=..., attention_heads=..., n_blocks=...,
                                      color_channels=3: 0,
    get_fashion_dls          = lambda bs=512: 0,
    train                    = lambda model, dls, lr, n_epochs: 0,
    conditional_train        = lambda model, dls, lr=4e-3, n_epochs=25, extra_cbs=[],
                                      loss_fn=F.mse_loss: 0,
    ddpm                     = lambda model, sz, device, n_steps: 0,
    conditional_ddpm         = lambda model, c, sz=(16,1,32,32), device='cpu', n_steps=100: 0,
    ConditionalFashionDDPM   = lambda: 0,
    show_images              = lambda x, imsize=0.8: 0)

@pytest.mark.parametrize('name', signatures)
def test_signature(name):
    want = list(inspect.signature(signatures[name]).parameters.values())
    sig = inspect.signature(getattr(import_module(f'{lib}.all'), name))
    have, rest = (l := list(sig.parameters.values()))[:len(want)], l[len(want):]
    assert [p.name for p in have] == [p.name for p in want], f'{name}{sig}'
    for w,h in zip(want, have):
        assert h.kind == h.POSITIONAL_OR_KEYWORD, f'{name}{sig}: {h}'
        if w.default is ...:
            assert h.default is not h.empty, f'{name}{sig}: {h.name} needs a default'
        elif w.default is not w.empty:
            right = w.default,tuple(w.default) if isinstance(w.default, list) else w.default
            assert h.default in right, f'{name}{sig}: {h}, not {w}'
    for p in rest:
        variable = p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        assert variable or p.default is not p.empty, f'{name}{sig}'

# ---- help ---------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', modules)
def test_help_explains_arguments(name):
    "What `help` and Shift-Tab show has a line for each parameter that has a comment in the source"
    mod = import_module(f'{lib}.{name}')
    functions = [getattr(mod, o) for o in mod.__all__ if inspect.isfunction(getattr(mod, o))]
    classes = [o for o in vars(mod).values() if inspect.isclass(o) and o.__module__ == mod.__name__]
    methods = [m for o in classes for m in vars(o).values() if inspect.isfunction(m) and m.__doc__]
    for f in functions + methods + [o for o in classes if '__init__' in vars(o)]:
        plain,said = f.__doc__,inspect.getdoc(f)
        assert f.__doc__ is plain and said.startswith(str(plain))
        for k,v in docments(f, returns=False).items(): assert not v or f'    {k}: ' in said, (f, k)

def test_help_is_lazy():
    "Help builds its text when asked: until then fastcore, which reads the source, is not imported"
    code = f"""import inspect, sys
from {lib}.unet import TAUnet
assert not any('fastcore' in o for o in sys.modules)
print(inspect.getdoc(TAUnet.forward))
assert inspect.getdoc(TAUnet.forward) == inspect.getdoc(TAUnet.forward) != TAUnet.forward.__doc__"""
    said = run('-c', code)
    assert '    t: Times, `(b,)`, floating point in [0, 1]\n' in said
    assert said.rstrip().endswith('Returns: The prediction, shape and type of `x`')
