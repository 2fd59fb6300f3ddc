"Wrong arguments to what shows, holds, generates and reads images: each gets one error"
import gzip, math, os
import numpy as np, pytest, torch
from PIL import Image
os.environ.setdefault('HF_HUB_OFFLINE', '1')
from unet_attention.data import ImageDL, ImageTensors, LazyImages, crop_to, image_dls
from unet_attention.images import from_uint8, image_grid, save_gif, show_images, to_uint8
from unet_attention.shapes import classify_shapes, get_shapes_dls, shapes
from unet_attention.sources import get_dls, get_fashion_dls, read_idx

T, V, Missing = TypeError, ValueError, FileNotFoundError
levels, ramps = torch.arange(256).byte(), torch.zeros(8, 1, 8, 8)
x, y = torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 1, 0])
ds = ImageTensors(x, y)

def fails(exc, text, f):
    with pytest.raises(exc, match=text or None): f()

def each(exc, text, f, *values): return [(exc, text, lambda o=o: f(o)) for o in values]
def keys(exc, text, f, **kwargs):
    return [(exc, f'{k} must {text}', lambda k=k, v=v: f(**{k: v})) for k,v in kwargs.items()]
def table(*rows): return [r for o in rows for r in (o if isinstance(o, list) else [o])]

pixels = table(
    (T, 'x must be uint8, got torch.float32', lambda: from_uint8(levels.float())),
    (T, 'x must be a tensor, got list', lambda: from_uint8([0, 1])),
    (T, 'x must be floating point, got torch.uint8', lambda: to_uint8(levels)),
    (T, 'x must be a tensor, got list', lambda: to_uint8([.5])),
    each(V, 'value_range must be two', lambda o: from_uint8(levels, o), 5, None, (1,), (0, 1, 2)),
    each(T, r'value_range\[0\] must be', lambda o: from_uint8(levels, o), ('a', 'b'), (True, 2)),
    each(V, r'value_range\[1\] must be', lambda o: to_uint8(ramps, (0., o)), math.nan, math.inf),
    each(V, 'value_range must be two numbers, the smaller first',
         lambda o: from_uint8(levels, o), (1, 1), (1, -1)))

shown = table(
    each(V, r'x must be \(n, 1 or 3', lambda s: show_images(torch.zeros(s)), (2, 2, 8, 8), (8, 8)),
    (V, r'x must not be empty, got \(2, 1, 0, 8\)', lambda: show_images(torch.zeros(2, 1, 0, 8))),
    each((T, V, RuntimeError), '', show_images, [], [ramps[0], ramps[0, :, :4]], 'x', None),
    (T, 'x must be floating point, got torch.int64', lambda: show_images(ramps.long())),
    (V, 'titles must have 8 entries, got 1', lambda: show_images(ramps, titles=['a'])),
    (V, 'row_titles must have 2 entries', lambda: show_images(ramps, ncols=4, row_titles=['a'])),
    each(V, 'imsize must be a number in', lambda o: show_images(ramps, imsize=o), 0, -1, math.nan),
    each(V, 'ncols must be at least 1', lambda o: show_images(ramps, ncols=o), 0, -1),
    (V, 'ncols must be at least 1', lambda: image_grid(ramps, 0)),
    each(V, 'frames must be', lambda o: save_gif(o, 'no.gif'), ramps, [], [ramps, ramps[:2]]))

held = table(
    each((T, V), '', lambda o: ImageTensors(x, o), list('abcab'), [None]*5, 3),
    each(T, 'y must be whole numbers', lambda o: ImageTensors(x, o), [0., 1.5, 2., 1., 0.], y > 0),
    each(V, r'y must be \(m,\)', lambda o: ImageTensors(x, o), y[:, None], [[0]]*5),
    (V, r'y must lie in \[0, 2\], got 0..3', lambda: ImageTensors(x, [0, 1, 2, 3, 0], [*'abc'])),
    (V, 'y must lie in', lambda: ImageTensors(x, [0, 1, 2, -1, 0])),
    (V, r'y must be \(5, ...\), got \(2,\)', lambda: ImageTensors(x, [0, 1])),
    each(V, 'vocab must be a list of', lambda o: ImageTensors(x, y, o), 'bag', ['a', 'b', 'a']),
    (T, '', lambda: ImageTensors(x, y, 3)),
    each(V, r'size must be \(5, ...\), got', lambda o: ImageTensors(x, attrs=dict(size=o)),
         torch.zeros(4), torch.tensor(1)),
    (V, r'condition must be \(5, ...\)', lambda: ImageTensors(x, condition=torch.ones(4, 2))),
    (V, r'condition must lie in \[0, 1\], got 9..9',
     lambda: ImageTensors(x, condition=[[9]]*5, words=['', 'red'])),
    each(V, r'x must be \(n, 1 or 3, h, w\), got', ImageTensors, x[0], x[:, :2]),
    (T, 'x must be uint8 or floating point, got torch.int64', lambda: ImageTensors(x.long())),
    each(T, 'idxs must be whole numbers', ds.select, [.5], y > 0),
    each((T, V), '', ds.select, 'a', None),
    each(V, r'idxs must lie in \[0, 4\]', ds.select, [5], [-1]))

loaders = table(
    (V, 'bs must be at least 1, got 0', lambda: ImageDL(ds, bs=0)),
    each(T, 'bs must be a whole number', lambda o: ImageDL(ds, bs=o), None, True),
    each(T, 'kwargs must not hold', lambda k: ImageDL(ds, **{k: 4}),
         'shufle', 'after_item', 'batch_size'),
    (T, 'dataset must be an ImageTensors', lambda: ImageDL(x)),
    (V, 'value_range must be two numbers', lambda: ImageDL(ds, value_range=5)),
    (RuntimeError, 'nonsense', lambda: image_dls(ds, ds, device='nonsense')),
    keys(V, 'be at least 0, got -1', lambda **kw: image_dls(ds, ds, **kw), crop=-1, num_workers=-1),
    keys(T, 'be a whole number', lambda **kw: image_dls(ds, ds, **kw), crop=.5, num_workers=None),
    (V, r'crop must leave something of \(8, 8\), got 8', lambda: image_dls(ds, ds, crop=8)),
    (V, r'sides of the images must be at least \(9, 4\)', lambda: crop_to(ramps, (9, 4))),
    (V, 'n must be at least 1, got 0', lambda: LazyImages(lambda i: (x[i],), 0)),
    (T, 'x must be uint8 or floating', lambda: LazyImages(lambda i: (x[i].long(),), 5)))

made = table(
    (V, 'n must be at least 1, got 0', lambda: shapes(0)),
    (V, 'sz must be at least 16, got 8', lambda: shapes(3, sz=8)),
    (V, 'seed must be at least 0, got -1', lambda: shapes(3, seed=-1)),
    each(T, 'must be a whole number', lambda kw: shapes(**kw),
         dict(n=True), dict(n=3, sz=32.), dict(n=3, seed=None)),
    (T, 'x must be a tensor', lambda: classify_shapes(np.zeros((1, 3, 32, 32)))),
    each(V, r'x must be \(n, 3, h, h\)', lambda s: classify_shapes(torch.zeros(s)),
         (2, 1, 32, 32), (2, 3, 32, 16), (3, 32, 32)),
    keys(T, 'be a whole number', get_shapes_dls,
         bs=None, n_valid=None, n_train=True, sz=32., seed=None),
    keys(V, 'be at least', get_shapes_dls, sz=15, seed=-1, n_valid=0),
    each(V, 'device must be', lambda o: get_shapes_dls(device=o), 'nonsense', '', 'cuda:99'))

@pytest.mark.parametrize('exc, text, f', pixels + shown + held + loaders + made)
def test_refused(exc, text, f): fails(exc, text, f)

# ---- IDX files ----------------------------------------------------------------------------------
def idx(a):
    head = bytes([0, 0, 8, a.ndim]) + np.array(a.shape, '>u4').tobytes()
    return head + a.astype('u1').tobytes()

raw = idx(np.random.default_rng(0).integers(0, 256, (50, 28, 28)))
good = gzip.compress(raw)

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "A folder like Fashion-MNIST's"
    d = tmp_path_factory.mktemp('tiny')
    for part,n in (('train', 50), ('t10k', 20)):
        (d/f'{part}-images-idx3-ubyte.gz').write_bytes(gzip.compress(idx(np.zeros((n, 28, 28)))))
        (d/f'{part}-labels-idx1-ubyte.gz').write_bytes(gzip.compress(idx(np.arange(n) % 10)))
    return d

@pytest.mark.parametrize('b, text, ndim', [
    (b'', 'begin with 000008 and 3 dimensions', 3),
    (raw, 'whole gzip file', 3),
    (good[:1000], 'whole gzip file', 3),
    (good[:20] + b'garbage' + good[27:], '', 3),
    (gzip.compress(raw[:3]), "got '000008'", 3),
    (gzip.compress(raw[:9]), 'hold', 3),
    (gzip.compress(raw[:1000]), r'hold \[50, 28, 28\] bytes', 3),
    (gzip.compress(raw + b'\0'), 'hold', 3),
    (gzip.compress(b'\0\0\x0d' + raw[3:]), "got '00000d03'", 3),
    (good, 'and 1 dimensions', 1),
    (gzip.compress(b'\0\0\x08\0'), '1 to 8 dimensions', None),
    (gzip.compress(b'\0\0\x08\xff' + b'\0'*1020), '1 to 8 dimensions', None)])
def test_bad_idx(tmp_path, b, text, ndim):
    (tmp_path/'bad.gz').write_bytes(b)
    fails(V, f'bad.gz must .*{text}', lambda: read_idx(tmp_path/'bad.gz', ndim))

def test_idx(tiny):
    assert read_idx(tiny/'train-images-idx3-ubyte.gz').shape == (50, 28, 28)
    fails(Missing, 'nowhere.gz', lambda: read_idx(tiny/'nowhere.gz'))

fashion = table(
    keys(V, 'be at', lambda **kw: lambda path: get_fashion_dls(path=path, **kw),
         n_train=51, sz=27, bs=0, n_valid=0, seed=-1),
    keys(T, 'be a whole number', lambda **kw: lambda path: get_fashion_dls(path=path, **kw),
         sz='32', bs=None, n_train=True, seed=None))

@pytest.mark.parametrize('exc, text, f', fashion)
def test_fashion(tiny, exc, text, f): fails(exc, text, lambda: f()(tiny))

def test_fashion_folder(tmp_path, monkeypatch):
    for o in ('', ' ', tmp_path/'nowhere'):
        fails(Missing, 'path must be a folder', lambda: get_fashion_dls(path=o))
    fails(T, 'int', lambda: get_fashion_dls(path=3))
    monkeypatch.delenv('FASHION_MNIST_PATH', raising=False)
    fails(ConnectionError, 'path=.*FASHION_MNIST_PATH.*dataset-fashion-mnist', get_fashion_dls)

@pytest.mark.parametrize('labels, exc, text', [
    (np.arange(50) % 11, V, r'y must lie in \[0, 9\], got 0..10'),
    (np.zeros(49), V, r'y must be \(50, ...\), got'), (None, Missing, 'train-labels')])
def test_fashion_labels(tiny, tmp_path, labels, exc, text):
    for f in tiny.iterdir(): (tmp_path/f.name).write_bytes(f.read_bytes())
    f = tmp_path/'train-labels-idx1-ubyte.gz'
    if labels is None: f.unlink()
    else: f.write_bytes(gzip.compress(idx(labels)))
    fails(exc, text, lambda: get_fashion_dls(path=tmp_path))

# ---- folders and saved sets ---------------------------------------------------------------------
grey = [Image.new('L', (20, 30), 10*i) for i in range(12)]

@pytest.mark.parametrize('files, text', [
    (['train/0.png', 'car/1.png'], 'folders must be all splits or all classes'),
    (['0.png', 'car/1.png'], 'images must all lie in class folders'),
    (['0.png'], 'must hold 2 images'), (['0.csv'], 'source must'), ([], 'source must')])
def test_bad_folder(tmp_path, files, text):
    for f in files:
        (tmp_path/f).parent.mkdir(parents=True, exist_ok=True)
        if f.endswith('png'): grey[5].save(tmp_path/f)
        else: (tmp_path/f).write_text('a,b\n1,2\n3,4,5,6\n')
    fails((V, Missing), text, lambda: get_dls(tmp_path))

def test_bad_parquet(tmp_path):
    (tmp_path/'data.parquet').write_text('no data')
    fails(V, f'source must .*{tmp_path.name}', lambda: get_dls(tmp_path))

def test_bad_file(tmp_path):
    for i in range(4): grey[i].save(tmp_path/f'{i}.png')
    b = (tmp_path/'1.png').read_bytes()
    for wrong in (b'no image', b[:45]):
        (tmp_path/'1.png').write_bytes(wrong)
        fails(V, 'must be readable .*got 1 of 4 that are not: .*1.png', lambda: get_dls(tmp_path))

def test_streaming(tmp_path):
    for i in range(4): grey[i].save(tmp_path/f'{i}.png')
    for kw in (dict(streaming=True), dict(split=['train'])):
        fails(V, 'several splits or streaming', lambda: get_dls(tmp_path, **kw))

@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    "Saved sets whose columns leave something to ask"
    from datasets import ClassLabel, Dataset, Features, Image as Column
    d, scans = tmp_path_factory.mktemp('saved'), Features(a=Column(), b=Column())
    hidden = Features(image=Column(), label=ClassLabel(names=['a', 'b']))
    Dataset.from_dict(dict(a=grey, b=grey), features=scans).save_to_disk(d/'two')
    Dataset.from_dict(dict(a=[1, 2])).save_to_disk(d/'none')
    Dataset.from_dict(dict(image=grey, label=[0, -1]*6), features=hidden).save_to_disk(d/'hidden')
    Dataset.from_dict(dict(scan=grey, age=[float(i) for i in range(12)])).save_to_disk(d/'ages')
    return d

@pytest.mark.parametrize('name, kw, text', [
    ('two', {}, r"image_key must name one of the columns \['a', 'b'\], got None"),
    ('none', {}, 'image_key must name one of the columns'),
    ('hidden', {}, 'label_key must name .*, or be False'),
    ('ages', dict(label_key='kind'), "label_key must name one of .*got 'kind'"),
    ('ages', dict(label_key='age'), "label_key must name .*got 'age' with {0.0"),
    ('ages', dict(image_key='photo'), "image_key must name one of .*got 'photo'"),
    ('ages', dict(image_key='age'), "image_key must name images, got 'age'"),
    ('ages', dict(n_train=99), 'n_train must be at most')])
def test_bad_columns(saved, name, kw, text): fails(V, text, lambda: get_dls(saved/name, **kw))

def test_columns(saved):
    assert get_dls(saved/'two', image_key='b', device='cpu').vocab is None
    assert get_dls(saved/'hidden', label_key=False, device='cpu').vocab is None

names = table(
    each(T, 'source must be a folder, a name on the hub, a', get_dls, None, 3, b'x'),
    each(V, 'source must be a folder or a name', get_dls, '', ' '),
    (Missing, 'source must be a folder', lambda: get_dls('/no/where')),
    (Missing, 'path must be a folder', lambda: get_dls('x/y', path='/no/where')),
    (V, "path must be left out for 'shapes', got '.'", lambda: get_dls('shapes', path='.')),
    (V, 'split must be left out', lambda: get_dls('shapes', split='train')),
    (V, 'label_key must be left out', lambda: get_dls('fashion_mnist', label_key=False)),
    keys(V, "be left out for 'shapes'", lambda **kw: get_dls('shapes', **kw), vocab=['a'],
         lazy=True, latents=True, channels=1, data_range=(0, 1), skip_unreadable=True),
    keys(V, 'be', lambda **kw: get_dls([x], **kw), channels=2, data_range=(1, 0)),
    (T, r"argument 'num_wokers'; .* for datasets.load_dataset: name,", lambda: get_dls(
        'somebody/animals', num_wokers=2)),
    (ConnectionError, 'name a local copy by `path=`', lambda: get_dls('somebody/animals')),
    keys(V, 'be', lambda **kw: get_dls('shapes', **kw),
         bs=-1, value_range=(1, -1), seed=-1, sz=0, device='nonsense', crop=-1, num_workers=-1))

@pytest.mark.parametrize('exc, text, f', names)
def test_get_dls(exc, text, f): fails(exc, text, f)
