"What the README and the how-to pages tell their readers to run"
import json, os, re, sys, types
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent

def cells(file):
    text = file.read_text(encoding='utf-8')
    return re.findall(r'^```python\n(.*?)^```', text, re.M|re.S)

def test_links_in_the_repository():
    "Links lead to files that are there, for who reads the clone; the home page is the site's"
    pages = [*root.glob('*.md'), *root.glob('docs/*.md'), *root.glob('docs/howto/*.md'),
             *root.glob('benchmarks/*.md'), *root.glob('nbs/**/[0-9]*.ipynb')]
    for f in pages:
        text = f.read_text(encoding='utf-8')
        if f.suffix == '.ipynb':
            text = '\n'.join(''.join(c['source']) for c in json.loads(text)['cells']
                             if c['cell_type'] == 'markdown')
        text = re.sub(r'^```.*?^```|`[^`\n]*`', '', text, flags=re.M|re.S)
        for to in re.findall(r'\]\((?!https?:|#|{)([^)#\s]+)', text):
            assert f == root/'docs/index.md' or (f.parent/to).exists(), f'{f.name}: {to}'

@pytest.mark.parametrize('name', sorted(f.stem for f in (root/'docs/howto').glob('*.md')))
def test_howto_runs(name, tmp_path, monkeypatch):
    "The code of each how-to page runs from top to bottom, with a small model and one epoch"
    if name == 'diffusers':
        for o in ('diffusers', 'denoising_diffusion_pytorch'): pytest.importorskip(o)
    if name == 'logging': pytest.importorskip('tensorboard')
    import matplotlib, torch
    logged = []
    wandb = types.SimpleNamespace(                       # a stand-in, which writes nothing
        log=lambda d, **kw: logged.append(d), Image=lambda x: x.shape,
        init=lambda **kw: types.SimpleNamespace(finish=lambda: logged.append('end')))
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    from fastai.callback.schedule import Learner         # this gives it `fit_one_cycle`
    from PIL import Image
    matplotlib.use('Agg')
    monkeypatch.chdir(tmp_path)
    for k,colour in dict(cats='red', dogs='blue').items():
        (tmp_path/'my_photos'/k).mkdir(parents=True)
        for i in range(12):
            Image.new('RGB', (40, 36), colour).save(tmp_path/f'my_photos/{k}/{i}.png')
    cycle = Learner.fit_one_cycle
    monkeypatch.setattr(Learner, 'fit_one_cycle', lambda self, n, *a, **k: cycle(self, 1, *a, **k))
    code = cells(root/f'docs/howto/{name}.md')
    assert code
    torch.manual_seed(0)
    page = types.ModuleType(f'page_{name}')              # so that its classes can be found again
    monkeypatch.setitem(sys.modules, page.__name__, page)
    for c in code: exec(compile(c, f'{name}.md', 'exec'), vars(page))
    if name == 'logging':
        losses,samples,end = logged
        assert {'train_loss', 'valid_loss'} <= set(losses) and all(o > 0 for o in losses.values())
        assert (*samples, end) == ('samples', 'end')

def test_readme_runs(tmp_path, monkeypatch):
    "The ten lines of the README run as they stand, on a few images and for one epoch"
    import matplotlib, unet_attention.all as every
    from fastai.learner import Learner
    if not os.environ.get('FASHION_MNIST_PATH'): pytest.skip('FASHION_MNIST_PATH is not set')
    matplotlib.use('Agg')
    monkeypatch.chdir(tmp_path)
    dls,cycle,find = every.get_fashion_dls,Learner.fit_one_cycle,Learner.lr_find
    monkeypatch.setattr(every, 'get_fashion_dls', lambda bs: dls(bs, n_train=64, n_valid=32))
    monkeypatch.setattr(Learner, 'fit_one_cycle', lambda self, n, lr: cycle(self, 1, lr))
    monkeypatch.setattr(Learner, 'lr_find', lambda self: find(self, num_it=20, show_plot=False))
    code, = cells(root/'README.md')
    exec(compile(code.replace('n_steps=20', 'n_steps=3'), 'README.md', 'exec'), {})
    assert {'clothes.png', 'clothes'} <= {f.name for f in tmp_path.iterdir()}
