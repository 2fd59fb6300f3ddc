"Wrong options of the two commands: each gets one error, before anything is read or written"
import json, math
from pathlib import Path
import pytest
from unet_attention.cli import sample_command, sample_model, train_command, train_model
from unet_attention.saving import save_unet
from unet_attention.training import Diverged
from unet_attention.unet import ContextTAUnet, TAUnet

T, V = TypeError, ValueError
small = dict(nfs=(8,), attention_heads=(0,), n_blocks=(1,))

@pytest.fixture
def here(tmp_path, monkeypatch):
    "An empty folder with a file, a folder of images, and two models: `model` and `captions`"
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    for d in ('photos/cats', 'folder.png'): Path(d).mkdir(parents=True)
    save_unet(TAUnet(**small), 'model', sz=8)
    save_unet(TAUnet(**small), 'sizeless')
    Path('begun/checkpoints').mkdir(parents=True)
    kept = dict(lr=1e-3, data='shapes', bs=16, processes=1)
    Path('begun/checkpoints/options.json').write_text(json.dumps(kept))
    heads = dict(nfs=(8,), attention_heads=(2,), n_blocks=(1,))
    save_unet(ContextTAUnet(5, **heads, context_dim=4), 'captions', sz=8)
    return tmp_path

# `data` does not exist: what is named must be the other mistake
train = [
    (V, 'lr must be a number in (0, inf), got inf', dict(lr=math.inf)),
    (V, 'lr must be a number in (0, inf), got nan', dict(lr=math.nan)),
    (V, 'lr must be a number in (0, inf), got 0', dict(lr=0)),
    (T, "lr must be a number, got 'fast'", dict(lr='fast')),
    (V, 'guidance must be a number in [-1000, 1000], got nan', dict(guidance=math.nan)),
    (V, 'epochs must be at least 1, got 0', dict(epochs=0)),
    (T, 'epochs must be a whole number, got 1.5', dict(epochs=1.5)),
    (V, 'n_train must be at least 1, got 0', dict(n_train=0)),
    (V, 'n_valid must be at least 1, got 0', dict(n_valid=0)),
    (V, 'checkpoint_every must be at least 1, got 0', dict(checkpoint_every=0)),
    (V, 'overwrite must be left out beside resume, got True', dict(resume=True, overwrite=True)),
    (V, 'out must be free, got model, which holds a run: replace it by --overwrite, or write to '
        'another by --out model-2', dict(out='model')),
    (V, 'got begun, which holds a run: resume it by --resume, replace it', dict(out='begun')),
    (V, 'out must be free, got model', dict(out='model', resume=True)),
    (V, "lr must be 0.001, with which the run in begun began, got 0.3",
     dict(data='shapes', out='begun', resume=True, lr=.3)),
    (V, "lr must be 0.001, with which the run in begun began, got 0.002",        # the default
     dict(data='shapes', out='begun', resume=True, lr=2e-3)),
    (V, 'bs must be at least 1, got 0', dict(bs=0)),
    (V, 'n must be at least 1, got 0', dict(n=0)),
    (V, 'n must be a number in [1, 1e4], got 1000000', dict(n=10**6)),
    (V, 'steps must be at least 1, got 0', dict(steps=0)),
    (V, 'seed must be at least 0, got -1', dict(seed=-1)),
    (V, 'seed must be a number in [0, 4294967295]', dict(seed=2**63)),
    (V, "target must be one of 'eps', 'v', 'x_0', 'flow', got 'x'", dict(target='x')),
    (V, 'sz must be divisible by 4 = 2**(levels-1), got 30: the nearest are 28 and 32',
     dict(sz=30)),
    (V, "nfs must be whole numbers with commas between, as in 32,64,128, got '8.7,16'",
     dict(nfs='8.7,16')),
    (V, 'nfs must be whole numbers with commas', dict(nfs='')),
    (V, 'nfs must be whole numbers with commas', dict(nfs='8,')),
    (T, 'nfs[0] must be a whole number, got 8.7', dict(nfs=(8.7, 16, 16))),
    (T, 'nfs must be a list or tuple', dict(nfs=8)),
    (V, 'nfs[0] must be at least 2, got 0', dict(nfs='0,8,8')),
    (V, 'attention_heads must have 3 entries', dict(attention_heads='0,4')),
    (V, 'attention_heads[2] must divide nfs', dict(attention_heads='0,0,3')),
    (V, 'n_blocks[1] must be at least 1, got 0', dict(n_blocks='1,0,1')),
    (V, 'data must be a name or a folder of images', dict(data='')),
    (V, 'out must be a folder, got the file file', dict(out='file')),
    (V, 'out must be where it can be written, got file/run', dict(out='file/run')),
    (V, 'out must be neither within', dict(data='..')),
    (V, 'out must be neither within', dict(data='.')),
    (V, 'out must be neither within', dict(data='photos', out='photos')),
    (V, 'out must be neither within', dict(data='photos', out='photos/run')),
    (V, 'out must be neither within', dict(data='photos/cats', out='photos')),
    (V, 'out must be neither within', dict(data='cats', path='photos', out='photos')),
    ((V, OSError), 'source must be a folder or the name', {}),
    ((V, OSError), 'path must be a folder', dict(path='nowhere'))]

sample = [
    (V, 'n must be at least 1, got 0', dict(n=0)),
    (V, 'steps must be at least 1, got 0', dict(steps=0)),
    (V, 'guidance must be a number in [-1000, 1000], got inf', dict(guidance=math.inf)),
    (V, 'seed must be at least 0, got -1', dict(seed=-1)),
    (V, "sampler must be one of 'ddpm', 'ddim', 'heun', 'dpm_solver', got 'x'", dict(sampler='x')),
    (V, 'out must be a file that ends in .png or .gif', dict(out='a.jpeg')),
    (V, 'out must be a file that ends in .png or .gif', dict(out='folder.png')),
    (V, 'out must be where it can be written', dict(out='file/a.png')),
    (V, 'classes must be left out: the model has none', dict(classes='0')),
    (V, 'classes must be left out: the model has none', dict(folder='captions', classes='0')),
    (V, 'folder must say the side of its images', dict(folder='sizeless')),
    (OSError, 'config.json is missing', dict(folder='nowhere'))]

def says(rows): return [f'{o[1]} {o[2]}' for o in rows]
def made(): return sorted(o.as_posix() for o in Path().rglob('*'))

@pytest.mark.parametrize('error, text, kw', train, ids=says(train))
def test_train(here, error, text, kw):
    before = made()
    with pytest.raises(error) as e: train_model(**{'data': './no/such/folder', **kw})
    assert text in str(e.value) and made() == before

@pytest.mark.parametrize('error, text, kw', sample, ids=says(sample))
def test_sample(here, error, text, kw):
    before = made()
    with pytest.raises(error) as e: sample_model(**{'folder': 'model', **kw})
    assert text in str(e.value) and made() == before

commands = [
    (train_command, ['--bogus', '1'], 'unrecognized arguments: --bogus 1'),
    (train_command, ['--n_train', '5'], 'unrecognized arguments: --n_train 5'),
    (train_command, ['--out', 'begun'], '--out must be free, got begun, which holds a run: resume'),
    (train_command, ['--out', 'begun', '--resume', '--lr', '2e-3'],
     '--lr must be 0.001, with which the run in begun began, got 0.002'),
    (train_command, ['--lr', 'fast'], "argument --lr: invalid float value: 'fast'"),
    (train_command, ['--lr', 'nan'], '--lr must be a number in (0, inf), got nan'),
    (train_command, ['--n-train', '0'], '--n-train must be at least 1, got 0'),
    (train_command, ['--seed', str(2**63)], '--seed must be a number in [0, 4294967295]'),
    (train_command, ['--target', 'x'], "--target must be one of 'eps', 'v', 'x_0', 'flow'"),
    (train_command, ['--nfs', '32;64'], "--nfs must be whole numbers with commas between"),
    (train_command, ['--sz', '30'], '--sz must be divisible by 4'),
    (train_command, ['--data', '..'], ': --out must be neither within'),
    (train_command, ['--data', '/nowhere/at/all'], '--data must be a folder or the name'),
    (sample_command, ['nowhere'], 'config.json is missing'),
    (sample_command, ['model', '--sampler', 'x'],
     "--sampler must be one of 'ddpm', 'ddim', 'heun', 'dpm_solver'")]

@pytest.mark.parametrize('command, argv, text', commands, ids=says(commands))
def test_command(here, capsys, command, argv, text):
    "One line on standard error, exit code 2"
    with pytest.raises(SystemExit) as e: command(argv)
    said = capsys.readouterr()
    assert e.value.code == 2 and text in said.err and said.err.count('\n') == 1 and not said.out

def test_diverged():
    "The error carries the facts, and fastai's way of rewriting `args` does not touch its text"
    e = Diverged(13, 7.5e5, math.nan, epoch=1, batch=3)
    text = str(e)
    e.args = ('Exception occured in ...',)
    assert (e.step, e.lr, e.epoch, e.batch, str(e)) == (13, 7.5e5, 1, 3, text)
    assert text.startswith('lr must be smaller: at step 13 (epoch 1, batch 3) it was 7.5e+05')
    assert text.endswith('and the loss nan')
    assert str(Diverged(0, 1., .5, math.inf)).endswith('and the gradient inf')

def test_a_caption_model_samples_without_captions(here):
    assert sample_model('captions', n=2, steps=1).exists()
