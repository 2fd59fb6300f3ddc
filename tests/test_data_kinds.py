"What `get_dls` takes and what it refuses, kind by kind; what loaders of others may yield"
import os, pickle, subprocess, sys, warnings
import numpy as np, pytest, torch
from PIL import Image
os.environ.setdefault('HF_HUB_OFFLINE', '1')
import datasets
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset, random_split
from torchvision import transforms
from torchvision.datasets import FakeData, ImageFolder
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from unet_attention.checkpoints import Checkpoint
from unet_attention.data import LazyImages
from unet_attention.images import from_uint8
from unet_attention.shapes import get_shapes_dls, shapes
from unet_attention.sources import get_dls, get_fashion_dls
from unet_attention.training import conditional_train, diffusion_learner, train
from unet_attention.unet import ConditionalTAUnet, TAUnet

T, V = TypeError, ValueError
rng = np.random.default_rng(0)
n = 20
grey = rng.integers(0, 256, (n, 20, 24), dtype=np.uint8)              # (n, h, w)
rgb = rng.integers(0, 256, (n, 20, 24, 3), dtype=np.uint8)            # (n, h, w, c)
first = torch.from_numpy(rgb).permute(0, 3, 1, 2)                     # (n, c, h, w)
deep = rng.integers(0, 65536, (n, 20, 24), dtype=np.uint16)
y = [i % 3 for i in range(n)]
words = [('ant', 'cat', 'dog')[i] for i in y]
ims = [Image.fromarray(o) for o in rgb]
names,animals,digits = ['a', 'b', 'c'],['ant', 'cat', 'dog'],['0', '1', '2']
cpu = dict(device='cpu')

class Items(Dataset):
    "A data set as people write them"
    def __init__(self, items, **attrs): self.items = items; vars(self).update(attrs)
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]

class Stream(IterableDataset):
    def __iter__(self): return iter(ims)

def table(label=y, **kwargs):
    kinds = dict(image=datasets.Image())
    if label is not None: kinds['label'] = datasets.ClassLabel(names=names)
    rows = dict(image=ims) | ({} if label is None else dict(label=label))
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))

def arrays():
    kinds = dict(image=datasets.Array3D((20, 24, 3), 'uint8'), label=datasets.Value('string'))
    rows = dict(image=list(rgb), label=words)
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))

def paths(d): return [d/f'all/{names[k]}/{i:02}.png' for i,k in enumerate(y)]
def as_items(batch): return dict(image=batch['image'], label=batch['label'], file='x')

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp('kinds')
    for i,im in enumerate(ims):
        (d/'all'/names[y[i]]).mkdir(parents=True, exist_ok=True)
        im.save(d/'all'/names[y[i]]/f'{i:02}.png')
    return d

# ---- accepted: source, arguments, channels, vocab, lazy -----------------------------------------
unit = transforms.ToTensor()
norm = transforms.Compose([unit, transforms.Normalize([.5]*3, [.5]*3)])
ACCEPTED = {
    'Dataset': (lambda d: table(), {}, 3, names, False),
    'Dataset without labels': (lambda d: table(None), {}, 3, None, False),
    'Dataset, lazy': (lambda d: table(), dict(lazy=True), 3, names, True),
    'Dataset, formatted': (lambda d: table().with_format('torch'), {}, 3, names, False),
    'Dataset with a transform': (lambda d: table().with_transform(as_items), dict(vocab=names),
                                 3, names, True),
    'Dataset of arrays': (lambda d: arrays(), {}, 3, animals, False),
    'DatasetDict': (lambda d: datasets.DatasetDict(train=table(), test=table()), {}, 3, names,
                    False),
    'torchvision ImageFolder': (lambda d: ImageFolder(d/'all'), {}, 3, names, True),
    'torchvision, in memory': (lambda d: ImageFolder(d/'all'), dict(lazy=False), 3, names, False),
    'torchvision with ToTensor': (lambda d: ImageFolder(d/'all', unit), dict(data_range=(0, 1)),
                                  3, names, True),
    'torchvision, normalised': (lambda d: ImageFolder(d/'all', norm), dict(data_range=(-1, 1)),
                                3, names, True),
    'torchvision without classes': (lambda d: FakeData(n, (3, 20, 24), 3), dict(vocab=range(3)),
                                    3, digits, True),
    'Subset': (lambda d: Subset(ImageFolder(d/'all'), range(12)), {}, 3, names, True),
    'random_split': (lambda d: random_split(ImageFolder(d/'all'), [15, 5])[0], {}, 3, names, True),
    'TensorDataset': (lambda d: TensorDataset(first, torch.tensor(y)), {}, 3, digits, False),
    'TensorDataset of three': (lambda d: TensorDataset(first, torch.tensor(y), torch.rand(n)), {},
                               3, digits, False),
    'data set of one\'s own': (lambda d: Items([*zip(ims, y)], classes=names), {}, 3, names, True),
    'its labels tensors': (lambda d: Items([*zip(first, torch.tensor(y))]), dict(lazy=False), 3,
                           digits, False),
    'images alone': (lambda d: Items(ims), {}, 3, None, True),
    'dictionaries': (lambda d: Items([dict(img=o, kind=k) for o,k in zip(ims, words)]),
                     dict(label_key='kind', lazy=False), 3, animals, False),
    'list of pictures': (lambda d: ims, {}, 3, None, False),
    'list of arrays': (lambda d: list(grey), {}, 1, None, False),
    'list of tensors': (lambda d: list(first), {}, 3, None, False),
    'list of pairs': (lambda d: [*zip(ims, words)], {}, 3, animals, False),
    'list of paths': (lambda d: sorted((d/'all').rglob('*.png')), {}, 3, None, False),
    'list, lazy': (lambda d: sorted(map(str, (d/'all').rglob('*.png'))), dict(lazy=True), 3, None,
                   True),
    'paths and labels': (lambda d: (paths(d), words),
                         {}, 3, animals, False),
    'array': (lambda d: rgb, {}, 3, None, False),
    'array, channels first': (lambda d: first.numpy(), {}, 3, None, False),
    'array, grey': (lambda d: grey, {}, 1, None, False),
    'tensor': (lambda d: first, {}, 3, None, False),
    'array and labels': (lambda d: (rgb, np.array(y)), {}, 3, digits, False),
    'tensor and labels': (lambda d: (first, torch.tensor(y)), dict(vocab=names), 3, names, False),
    'array and words': (lambda d: (grey, words), {}, 1, animals, False),
    'tensor, lazy': (lambda d: (first, y), dict(lazy=True), 3, digits, True),
    'labels left out': (lambda d: (first, y), dict(label_key=False), 3, None, False),
    'floats in [0, 1]': (lambda d: (first/255, y), dict(data_range=(0, 1)), 3, digits, False),
    'doubles': (lambda d: first.double()/127.5 - 1, dict(data_range=(-1, 1)), 3, None, False),
    '16 bits': (lambda d: deep, {}, 1, None, False),
    '16-bit pictures': (lambda d: [Image.fromarray(o) for o in deep], {}, 1, None, False),
    '12 bits in 16': (lambda d: deep//16, dict(data_range=(0, 4095)), 1, None, False),
    'whole numbers': (lambda d: deep.astype(np.int64), dict(data_range=(0, 65535)), 1, None, False),
    'grey and colour': (lambda d: [*ims, *grey], {}, 3, None, False),
    '8 and 16 bits': (lambda d: [*grey, *deep], {}, 1, None, False),
    'made grey': (lambda d: ims, dict(channels=1), 1, None, False),
    'made colour': (lambda d: grey, dict(channels=3), 3, None, False),
    'ImageTensors': (lambda d: shapes(n), {}, 3, shapes(1).vocab, True),
    'parts': (lambda d: dict(train=ImageFolder(d/'all'), valid=ImageFolder(d/'all')), {}, 3, names,
              True),
    'parts, arrays': (lambda d: dict(train=(grey, words), valid=(grey, words)), {}, 1,
                      animals, False)}

@pytest.mark.parametrize('kind', ACCEPTED)
def test_accepted(folder, kind):
    source,kw,c,vocab,lazy = ACCEPTED[kind]
    dls = get_dls(source(folder), bs=4, sz=16, **cpu, **kw)
    assert isinstance(dls.train_ds, LazyImages) == lazy and dls.train.dataset.vocab == vocab
    for dl in (dls.train, dls.valid):
        x,*labels = dl.one_batch()
        assert x.shape[1:] == (c, 16, 16) and x.dtype == torch.float32
        assert -1 <= x.min() < -.3 and .3 < x.max() <= 1
        assert [o.dtype for o in labels] == [torch.int64]*bool(vocab)

def pixels(dls):
    "All images of the training set in order, and their labels"
    return dls.train.new(shuffle=False, drop_last=False, bs=64).one_batch()

SAME = dict(
    array=lambda d: (rgb, y), tensor=lambda d: (first, y), table=lambda d: table(),
    pairs=lambda d: [*zip(ims, y)], data_set=lambda d: Items([*zip(ims, y, y)], classes=names),
    torch=lambda d: TensorDataset(first, torch.tensor(y)))

@pytest.mark.parametrize('kind', SAME)
def test_same_pixels(folder, kind):
    "One picture in many forms gives one tensor, in memory or not, with its own label"
    want = pixels(get_dls([*zip(ims, y)], sz=16, **cpu))
    for lazy in (False, True):
        got = pixels(get_dls(SAME[kind](folder), sz=16, **cpu, lazy=lazy, vocab=names))
        for a,b in zip(got, want): assert torch.equal(a, b)

def test_value_ranges():
    "0 and the largest value of a type become black and white; named ranges likewise"
    for o,kw in ((grey, {}), (deep, {}), (grey/np.float32(255), dict(data_range=(0, 1))),
                 (grey.astype(np.float64), dict(data_range=(0, 255)))):
        o = o.copy()
        o[:, :, :12],o[:, :, 12:] = 0, o.max()
        if o.dtype == np.uint16: o[o > 0] = 65535
        if o.dtype == np.uint8: o[o > 0] = 255
        if o.dtype.kind == 'f': o[o > 0] = kw['data_range'][1]
        for vr in ((-1., 1.), (0., 1.)):
            x, = pixels(get_dls(o, sz=20, value_range=vr, **cpu, **kw))
            assert (x[..., 0].unique().item(), x[..., -1].unique().item()) == vr

def test_sixteen_bits_are_kept(tmp_path):
    "Neighbouring values of 65,536 stay apart, from PNG and TIFF files too"
    a = np.full((20, 20), 1000, np.uint16)
    a[:, 10:] = 1001
    for ext in ('png', 'tif'):
        for i in range(3): Image.fromarray(a).save(tmp_path/f'{i}.{ext}')
    x, = pixels(get_dls(tmp_path, sz=20, **cpu))
    assert x.shape[1] == 1 and torch.allclose(x.unique(), torch.tensor([1000, 1001])/65535*2 - 1)

def test_resized_floats():
    "Floats are resized as pillow resizes bytes"
    smooth = (np.add.outer(np.arange(48), np.arange(64))*2).astype(np.uint8)
    x, = pixels(get_dls([smooth]*3, sz=16, **cpu))
    z, = pixels(get_dls([smooth/np.float32(255)]*3, sz=16, data_range=(0, 1), **cpu))
    assert (x - z).abs().max() < .02

# ---- latents ------------------------------------------------------------------------------------
def test_latents():
    "Floats of any channel count and range pass as they are"
    z = 3*torch.randn(n, 5, 6, 8)
    for lazy in (False, True):
        dls = get_dls((z.double().numpy(), y), bs=4, latents=True, lazy=lazy, n_valid=2, **cpu)
        x,c = pixels(dls)
        assert x.shape == (18, 5, 6, 8)
        for o,k in zip(x, c): assert any(torch.equal(o, z[i]) and y[i] == k for i in range(n))

def test_latents_train():
    z = torch.randn(16, 6, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        train(TAUnet(color_channels=6, **small), get_dls(z, bs=4, latents=True, **cpu), 1e-3, 1)

# ---- refused ------------------------------------------------------------------------------------
REFUSED = [
    *[(T, 'source must be a folder, a name on the hub', lambda o=o: o, {})
      for o in (None, 3, 2.5, b'x', iter(ims), {1, 2}, ims[0], Stream(), (o for o in ims))],
    *[(V, 'source must be a folder or a name', lambda o=o: o, {}) for o in ('', ' ')],
    (T, 'source must be no loader', lambda: torch.utils.data.DataLoader(ims), {}),
    (T, 'source must be no loader', lambda: get_shapes_dls(n_train=4, n_valid=4, **cpu), {}),
    (T, 'source must be a folder', lambda: table().to_iterable_dataset(), {}),
    (V, "source must have a part 'train', or", lambda: dict(image=rgb, label=y), {}),
    (V, 'a tuple must be two', lambda: tuple(ims[:3]), {}),
    (T, 'images must be an array', lambda: (ims[0], ims[1]), {}),
    (V, 'images must be .n, h, w.', lambda: np.zeros((4, 4)), {}),
    (V, 'images must be .n, h, w.', lambda: torch.zeros(2, 3, 4, 4, 4).byte(), {}),
    (V, 'labels must be one for each of 20', lambda: (rgb, y[1:]), {}),
    (V, 'labels must be one for each of 20', lambda: (rgb, np.eye(20)), {}),
    (V, 'image must be .h, w., .c, h, w. or', lambda: torch.zeros(4, 2, 8, 8).byte(), {}),
    (V, 'image must be .h, w., .c, h, w. or', lambda: torch.zeros(4, 3, 8, 3).byte(), {}),
    (V, 'data_range must be given, as .0, 1.', lambda: first/255, {}),
    (V, 'got .int64.*, in image number', lambda: first.long(), {}),
    (V, r'must lie in \[0, 1\] \(data_range\), got .*, in image', lambda: first*1.,
     dict(data_range=(0, 1))),
    (V, 'must lie in', lambda: first*float('nan'), dict(data_range=(0, 1))),
    (V, 'data_range must be two', lambda: first, dict(data_range=1)),
    (V, 'channels must be 1 or 3, got 2', lambda: first, dict(channels=2)),
    (T, 'images must be pictures .PIL., paths.*got int, in image', lambda: [[1, 2], [3]], {}),
    (V, 'vocab must name the classes', lambda: Items([*zip(ims, y)]), {}),
    (V, 'beside the classes', lambda: Items([*zip(ims, y)], classes=['a', 'b']), {}),
    (V, 'label_key must name labels', lambda: Items([(o, torch.ones(3)) for o in ims]),
     dict(lazy=False)),
    (V, 'label_key must name labels', lambda: [*zip(ims, [0., .5]*10)], {}),
    (V, 'label_key must name labels', lambda: [(ims[0], 1), (ims[1], 'x'), (ims[2], 1)], {}),
    (V, r"image_key must name one of \['x'\]", lambda: Items([dict(x=o) for o in ims]), {}),
    (V, 'label_key must name one of', lambda: Items([dict(image=o) for o in ims]),
     dict(label_key='k')),
    (V, "vocab must be a list", lambda: (rgb, y), dict(vocab='abc')),
    (V, 'vocab must be left out: the images have no', lambda: rgb, dict(vocab=names)),
    (V, 'vocab must be given where parts differ', lambda: dict(
        train=Items([*zip(ims, y)], classes=names),
        valid=Items([*zip(ims, y)], classes=animals)), {}),
    (V, 'image_key must be left out for arrays', lambda: (rgb, y), dict(image_key='x')),
    (V, 'label_key must be left out, or False', lambda: (rgb, y), dict(label_key='x')),
    (V, 'source must hold 2 images', lambda: ims[:1], {}),
    (V, 'source must hold 2 images', lambda: [], {}),
    (V, 'n_valid must be at most 19', lambda: ims, dict(n_valid=20)),
    (V, 'n_train must be at most', lambda: ims, dict(n_train=19)),
    (V, 'be left out here', lambda: ims, dict(path='.')),
    (T, "unexpected keyword argument 'shufle'", lambda: ims, dict(shufle=True)),
    (V, 'num_workers must be at least 0', lambda: ims, dict(num_workers=-1)),
    (V, 'crop must be at least 0', lambda: ims, dict(crop=-1)),
    (T, 'latents must be floating point', lambda: first, dict(latents=True)),
    (T, 'latents must be arrays', lambda: ims, dict(latents=True)),
    (V, 'sz must be left out for latents', lambda: first/1., dict(latents=True, sz=16)),
    *[(V, f'{k} must be left out for latents', lambda: first/1., {'latents': True, k: v})
      for k,v in dict(flip=True, crop=2, channels=1, data_range=(0, 1)).items()]]

@pytest.mark.parametrize('exc, text, source, kw', REFUSED)
def test_refused(exc, text, source, kw):
    with pytest.raises(exc, match=text) as e: get_dls(source(), **cpu, **kw)
    assert type(e.value) is exc or issubclass(e.type, exc)
    assert '\n' not in str(e.value) and len(str(e.value)) < 400

def test_lazy_refusals_come_with_the_image():
    "A lazy data set says at the batch which image is wrong"
    for bad,text in ((grey[0], None), (ims[0].convert('L'), None), ('nowhere.png', 'No such file')):
        items = [*zip(ims, y)]
        items[7] = (bad, 1)
        dls = get_dls(Items(items, classes=names), sz=8, bs=20, n_valid=1, **cpu)
        if text is None: assert pixels(dls)[0].shape[1] == 3          # grey becomes colour
        else:
            with pytest.raises(V, match=f'{text}.*nowhere.png'): [*dls.train, *dls.valid]
    items = [(Image.fromarray(o), 0) for o in grey]
    items[5] = (ims[0], 0)
    dls = get_dls(Items(items, classes=names), sz=8, bs=20, n_valid=1, **cpu)
    with pytest.raises(V, match='channels=3 makes all colour.*number 5'): [*dls.train, *dls.valid]

def test_wrong_keywords_are_named(folder):
    for kw in (dict(num_wokers=2), dict(shufle=True), dict(batch_size=3)):
        with pytest.raises(T, match=f"unexpected keyword argument '{[*kw][0]}'") as e:
            get_dls(folder/'all', **kw)
        assert len(str(e.value)) < 500

# ---- workers, order, flips, crops ---------------------------------------------------------------
class Noted(Dataset):
    "Images that tell in which process they were read"
    classes = names
    def __len__(self): return n
    def __getitem__(self, i):
        a = rgb[i].copy()
        a[:] = os.getpid() % 251
        return Image.fromarray(a), y[i]

def test_read_by_workers():
    dls = get_dls(Noted(), bs=4, sz=16, num_workers=2, **cpu)
    here = os.getpid() % 251
    seen = {round((v.item() + 1)*127.5) for x,_ in dls.train for v in x[:, 0, 0, 0]}
    assert len(seen) == 2 and here not in seen

@pytest.mark.parametrize('source', [lambda: Items([*zip(ims, y)], classes=names), lambda: (rgb, y)])
def test_order_does_not_depend_on_workers(source):
    def epochs(workers):
        torch.manual_seed(3)
        dls = get_dls(source(), bs=4, sz=16, num_workers=workers, flip=True, crop=2, **cpu)
        return [torch.cat([o.flatten() for b in dls.train for o in b]) for _ in range(2)]
    a,b = epochs(0),epochs(2)
    assert all(map(torch.equal, a, b)) and not torch.equal(*a)

def test_workers_started_afresh(tmp_path):
    "Where processes are spawned, loader and data set are pickled"
    (tmp_path/'mine.py').write_text("""
import multiprocessing, sys, torch, numpy as np
from PIL import Image
from unet_attention.sources import get_dls
class Mine:
    classes = ['a', 'b']
    def __len__(self): return 12
    def __getitem__(self, i): return Image.fromarray(np.full((9, 9), 20*i, np.uint8)), i % 2
if __name__ == '__main__':
    multiprocessing.set_start_method('spawn')
    dls = get_dls(Mine(), bs=4, sz=8, num_workers=1, flip=True, device='cpu')
    print(sum(len(x) for x,_ in dls.train), sum(len(x) for x,_ in dls.valid))
""")
    r = subprocess.run([sys.executable, tmp_path/'mine.py'], capture_output=True, text=True)
    assert r.stdout.split() == ['8', '2'], r.stderr

def test_flip_and_crop():
    "Training images are mirrored and cut at random, validation images are their middle"
    ramp = np.tile(np.arange(24, dtype=np.uint8)*10, (40, 24, 1))
    dls = get_dls(ramp, bs=36, sz=20, crop=4, flip=True, n_valid=4, **cpu)
    x, = dls.train.one_batch()
    v, = dls.valid.one_batch()
    want = from_uint8(torch.from_numpy(ramp[0]))
    assert x.shape[2:] == v.shape[2:] == (20, 20)
    assert torch.equal(v, want[None, None, 2:22, 2:22].expand_as(v))
    assert len({o.item() for o in x[:, 0, 0, 0]}) >= 8                      # 5 places, 2 directions
    rises = x[:, 0, 0, 1] > x[:, 0, 0, 0]
    assert 8 < rises.sum() < 28
    same = get_dls(ramp, bs=36, sz=24, **cpu).train.one_batch()[0]
    assert (same == want).all()

MADE = [lambda **k: get_shapes_dls(n_train=8, n_valid=4, sz=16, bs=4, **cpu, **k),
        lambda **k: get_dls('shapes', n_train=8, n_valid=4, sz=16, bs=4, **cpu, **k)]

@pytest.mark.parametrize('make', MADE)
def test_generated(make):
    dls = make(num_workers=1, flip=True, crop=4, after_batch=zero)
    assert dls.train.fake_l.num_workers == 1 and dls.one_batch()[0].shape == (4, 3, 16, 16)
    for dl in (dls.train, dls.valid): assert not dl.one_batch()[0].any()

def zero(b): return torch.zeros_like(b[0]), *b[1:]

def test_fashion():
    path = os.environ.get('FASHION_MNIST_PATH')
    if not path: pytest.skip('FASHION_MNIST_PATH is not set')
    kw = dict(path=path, n_train=8, n_valid=4, bs=4, **cpu, crop=4, flip=True)
    for dls in (get_fashion_dls(**kw), get_dls('fashion_mnist', **kw)):
        assert dls.one_batch()[0].shape == (4, 1, 32, 32)

def test_n_valid():
    for k in (1, 7, 19): assert len(get_dls(ims, n_valid=k, **cpu).valid_ds) == k
    parts = dict(train=ims, valid=ims)
    assert len(get_dls(parts, n_valid=5, **cpu).valid_ds) == 5
    assert [len(o.dataset) for o in get_dls(ims, n_train=3, n_valid=2, **cpu).loaders] == [3, 2]

def test_pickles():
    dls = get_dls(Items([*zip(ims, y)], classes=names), bs=4, sz=8, flip=True, **cpu)
    again = pickle.loads(pickle.dumps(dls.train.dataset))
    assert all(map(torch.equal, again[[3, 1]], dls.train.dataset[[3, 1]]))

# ---- files that cannot be read ------------------------------------------------------------------
@pytest.fixture
def spoilt(tmp_path):
    for i,im in enumerate(ims): im.save(tmp_path/f'{i:02}.png')
    for i in (3, 7, 11): (tmp_path/f'{i:02}.png').write_bytes(b'no image')
    return tmp_path

@pytest.mark.parametrize('as_list', [False, True])
def test_unreadable(spoilt, as_list):
    "All are named in one error, whichever part they fell to; or left out and counted"
    source = sorted(spoilt.iterdir()) if as_list else spoilt
    with pytest.raises(V, match='images must be readable .* got 3 of 20') as e:
        get_dls(source, n_valid=5, **cpu)
    assert all(f'{i:02}.png' in str(e.value) for i in (3, 7, 11))
    for lazy in (False, True):
        with pytest.warns(UserWarning, match='3 of 20 images cannot be read and are left out'):
            dls = get_dls(source, skip_unreadable=True, lazy=lazy, **cpu)
        assert sum(map(len, (dls.train_ds, dls.valid_ds))) == 17
        assert len(pixels(dls)[0]) == len(dls.train_ds)

def test_nothing_readable(spoilt):
    for f in spoilt.iterdir(): f.write_bytes(b'no image')
    for kw in ({}, dict(skip_unreadable=True)):
        with pytest.raises(V, match='images must be readable .* got all 20 .* and so on'):
            get_dls(spoilt, **cpu, **kw)

# ---- loaders of others --------------------------------------------------------------------------
small = dict(nfs=(8,16), attention_heads=(0,2), n_blocks=(1,1))
x_0 = torch.rand(8, 3, 8, 8)*2 - 1
label = torch.arange(8) % 3

def loaders(rows, **kw):
    dl = torch.utils.data.DataLoader(rows, 4, **kw)
    return DataLoaders(dl, dl)

BATCHES = dict(
    dictionaries=([dict(image=o, label=k) for o,k in zip(x_0, label)],
                  r"must yield tuples .images, labels.*a dictionary of \['image', 'label'\]"),
    tensors=(list(x_0), r'must yield tuples .images, labels. or .images,., as a coll.*Tensor'))

@pytest.mark.parametrize('name', BATCHES)
def test_batches_refused(name):
    rows,text = BATCHES[name]
    for f in (lambda: train(TAUnet(**small), loaders(rows), 1e-3, 1),
              lambda: conditional_train(ConditionalTAUnet(3, **small), loaders(rows), 1e-3, 1)):
        with pytest.raises(T, match=text): f()

class Given(ConditionalTAUnet):
    "Notes what it is conditioned on"
    def forward(self, x, t, c=None, *args):
        self.was_given = getattr(self, 'was_given', []) + [c]
        return super().forward(x, t, c, *args)

@pytest.mark.parametrize('extra', [torch.full((8,), 2), torch.rand(8, 5), x_0])
def test_something_else_is_no_condition(extra):
    "(image, label, something) conditions on the label, and not on the something"
    model = Given(3, **small)
    learn = diffusion_learner(loaders([*zip(x_0, label, extra)]), model)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert [c.tolist() for c in model.was_given] == [label[:4].tolist(), label[4:].tolist()]*2
    plain = TAUnet(**small)
    train(plain, loaders([*zip(x_0, label, extra)]), 1e-3, 1)

def test_get_dls_trains():
    "From a list of pictures to a trained network"
    dls = get_dls([*zip(ims, words)], bs=4, sz=8, num_workers=1, lazy=True, vocab=animals,
                  **cpu)
    learn = diffusion_learner(dls, ConditionalTAUnet(len(dls.vocab), **small))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert torch.isfinite(torch.tensor(learn.recorder.values[-1])).all()

class Cut(Callback):
    "Ends a fit in its second epoch, as Ctrl-C does"
    def after_batch(self):
        if self.training and self.train_iter == 6: raise KeyboardInterrupt

@pytest.mark.parametrize('workers', [0, 1])
def test_resumes_with_flips(tmp_path, workers):
    "A fit that was cut goes on with the images, flips and crops that it would have had"
    def fit(folder, *cbs, resume=False):
        torch.manual_seed(0)
        dls = get_dls(Items([*zip(ims, y)], classes=names), bs=4, sz=8, num_workers=workers,
                      flip=True, crop=2, **cpu)
        cbs = Checkpoint(tmp_path/folder, every=5, resume=resume), *cbs
        learn = diffusion_learner(dls, ConditionalTAUnet(3, **small), cbs=cbs)
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-3)
        return torch.cat([p.detach().flatten() for p in learn.model.parameters()])
    want = fit('whole')
    with pytest.raises(KeyboardInterrupt): fit('cut', Cut())
    assert torch.equal(fit('cut', resume=True), want)
