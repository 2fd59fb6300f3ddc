"Damaged and hostile data: an error that names the file, little memory, and nothing is run"
import gzip, os, random, resource, shutil, struct
import numpy as np, pytest, torch
from PIL import Image
from unet_attention.sources import get_dls, read_idx

def megabytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024

def idx(*shape, data=None, magic=b'\0\0\x08'):
    data = bytes(int(np.prod(shape))) if data is None else data
    return magic + bytes([len(shape)]) + struct.pack(f'>{len(shape)}I', *shape) + data

def test_idx_cut(tmp_path):
    "Cut at any of 200 places, or with a bit flipped, an IDX file is refused by name"
    file,rng = tmp_path/'images.gz',random.Random(0)
    good = gzip.compress(idx(20, 28, 28, data=random.Random(1).randbytes(20*28*28)))
    file.write_bytes(good)
    assert read_idx(file, 3).shape == (20, 28, 28)
    for _ in range(200):
        file.write_bytes(good[:rng.randrange(len(good))])
        with pytest.raises(ValueError, match='images.gz'): read_idx(file)
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.randrange(10, len(bad))] ^= 1 << rng.randrange(8)
        file.write_bytes(bad)
        with pytest.raises(ValueError, match='images.gz'): read_idx(file)

@pytest.mark.parametrize('content', [
    b'', b'\0', idx(4), idx(4, magic=b'\0\0\x09'), idx(2, 28, 28)[:-1], idx(2, 28, 28) + b'\0',
    idx(2**31, data=b''), idx(2**32 - 1, 2**32 - 1, 2**32 - 1, data=b'1'), idx(2, 28)[:6]])
def test_idx_header(tmp_path, content):
    file = tmp_path/'images.gz'
    file.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match='images.gz'): read_idx(file, 3)

def test_idx_bomb(tmp_path):
    "Two megabytes that unpack to two gigabytes are not unpacked beyond what the header says"
    file = tmp_path/'images.gz'
    with gzip.open(file, 'wb', compresslevel=9) as f:
        f.write(idx(1, 28, 28))
        for _ in range(256): f.write(bytes(2**20))
    before = megabytes()
    with pytest.raises(ValueError, match='images.gz'): read_idx(file, 3)
    assert megabytes() - before < 50

@pytest.fixture
def folder(tmp_path):
    for i in range(4):
        (tmp_path/'set'/'ab'[i%2]).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (20, 20), (60*i, 0, 0)).save(tmp_path/f'set/{"ab"[i%2]}/{i}.png')
    return tmp_path/'set'

def images(folder): return get_dls(folder, bs=2, sz=16, device='cpu').train.dataset

def test_whole(folder):
    x = images(folder)
    assert x.x.shape[1:] == (3, 16, 16) and x.vocab == ['a', 'b']

def broken(f): (f/'a'/'x.png').write_bytes(b'\x89PNG\r\n\x1a\n' + b'broken')
def empty(f): (f/'a'/'x.png').touch()
def cut(f):
    b = (f/'a'/'0.png').read_bytes()
    (f/'a'/'x.png').write_bytes(b[:len(b)//2])
def postscript(f): (f/'a'/'x.png').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
def bomb(f): Image.new('1', (12_000, 12_000)).save(f/'a'/'x.png')
def no_text(f): shutil.copy(f/'a'/'0.png', os.fsencode(f/'a') + b'/\xff.png')

@pytest.mark.parametrize('spoil,says', [
    (broken, 'x.png'), (empty, 'x.png'), (cut, 'x.png'), (postscript, 'x.png'),
    (bomb, 'million.*x.png'), (no_text, 'must be text')])
def test_refused(folder, spoil, says):
    spoil(folder)
    before = megabytes()
    with pytest.raises(ValueError, match=says) as e: images(folder)
    assert megabytes() - before < 60 and '\n' not in str(e.value)

def test_passed_over(folder):
    "Files that are no images, a program for a picture among them, are left alone"
    (folder/'a'/'x.eps').write_text('%!PS-Adobe-3.0 EPSF-3.0\n')
    (folder/'a'/'notes.txt').write_text('x')
    assert len(images(folder)) == len(images(folder)) > 0

def test_kinds(folder):
    "CMYK, palettes, transparency, 16 bits, animations and turned photographs are read"
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(folder/'a'/'16.png')
    Image.new('CMYK', (20, 20)).save(folder/'a'/'c.jpg')
    Image.new('P', (20, 20)).save(folder/'a'/'p.gif')
    Image.new('RGBA', (20, 20)).save(folder/'b'/'t.png')
    frames = [Image.new('L', (20, 20), 50*i) for i in range(3)]
    frames[0].save(folder/'b'/'f.gif', save_all=True, append_images=frames[1:])
    wide = Image.new('RGB', (40, 20))
    wide.paste('red', (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6                                                # turned by a quarter
    wide.save(folder/'b'/'w.jpg', exif=exif)
    dls = get_dls(folder, bs=2, sz=16, device='cpu')
    assert len(dls.train.dataset) + len(dls.valid.dataset) == 10

@pytest.mark.skipif(os.geteuid() == 0, reason='root reads everything')
def test_no_permission(folder):
    (folder/'a').chmod(0)
    try:
        with pytest.raises(PermissionError): images(folder)
    finally: (folder/'a').chmod(0o755)

def test_memory(tmp_path):
    "A few thousand files take little more than their tensor"
    (tmp_path/'many').mkdir()
    x = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for i in range(1500): Image.fromarray(x).save(tmp_path/f'many/{i}.bmp')
    before = megabytes()
    dls = get_dls(tmp_path/'many', bs=2, sz=64, device='cpu')
    size = sum(o.dataset.x.numel() for o in (dls.train, dls.valid))/2**20
    assert torch.equal(dls.train.dataset.x[0].permute(1, 2, 0), torch.from_numpy(x))
    assert megabytes() - before < 2*size + 60, (size, megabytes() - before)
