"""Damaged or hostile folders: one clear error each, quickly; nothing is run or built"""
import json, os, pickle, random, resource, struct, time
import pytest, torch
from safetensors.torch import save as to_bytes
from unet_attention.saving import FORMAT, load_unet, read_config, save_unet
from unet_attention.unet import ConditionalTAUnet

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
small = dict(nfs=(8,16), attention_heads=(0,2), n_blocks=(1,1), color_channels=1)

@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    return save_unet(ConditionalTAUnet(4, **small), tmp_path/'model', classes=list('abcd'))

def config_of(folder, **kw):
    "Change arguments of the model in a config"
    d = json.loads((folder/CONFIG).read_text())
    d['config'].update(kw)
    (folder/CONFIG).write_text(json.dumps(d))

def top(folder, **kw):
    "Change the config's own entries"
    d = json.loads((folder/CONFIG).read_text())
    (folder/CONFIG).write_text(json.dumps({**d, **kw}))

def text(folder, s): (folder/CONFIG).write_text(s)
def raw(folder, b): (folder/WEIGHTS).write_bytes(b)
def tensors(folder): return {k: v.clone() for k,v in load_unet(folder).state_dict().items()}

def other_weights(folder, change):
    "Weights that were changed by someone who also wrote the right digest"
    import hashlib
    w = tensors(folder)
    change(w)
    b = to_bytes({k: v.contiguous() for k,v in w.items()})
    raw(folder, b)
    top(folder, sha256=hashlib.sha256(b).hexdigest())

class Bomb:
    "What a pickle runs when it is loaded"
    def __reduce__(self): return os.mkdir, ('ran',)

def first(w): return next(iter(w))
def drop(w): del w[first(w)]
def nan(w): w[first(w)].fill_(float('nan'))
def inf(w): w[first(w)].view(-1)[0] = float('inf')
def ints(w): w[first(w)] = w[first(w)].int()
def float8(w): w[first(w)] = w[first(w)].to(torch.float8_e4m3fn)
def longer(w): w['more'] = torch.zeros(3)
def reshaped(w): w[first(w)] = w[first(w)][..., None]
def header(n, rest=b''): return lambda f: raw(f, struct.pack('<Q', n) + rest)

CASES = {
    'no folder': lambda f: (os.remove(f/CONFIG), os.remove(f/WEIGHTS), os.rmdir(f)),
    'no config': lambda f: os.remove(f/CONFIG),
    'no weights': lambda f: os.remove(f/WEIGHTS),
    'empty config': lambda f: text(f, ''),
    'config is no JSON': lambda f: text(f, '{"model": '),
    'config is a list': lambda f: text(f, '[]'),
    'config is nested': lambda f: text(f, '['*100_000),
    'config of 200 MB': lambda f: text(f, ' '*200_000_000),
    'config is not text': lambda f: (f/CONFIG).write_bytes(b'\xff\xfe\x00'),
    'an older format': lambda f: top(f, format=1),
    'a newer format': lambda f: top(f, format=FORMAT + 1),
    'format is text': lambda f: top(f, format='3'),
    'no such model': lambda f: top(f, model='os.system'),
    'model is a list': lambda f: top(f, model=['TAUnet']),
    'another kind': lambda f: top(f, model='TAUnet'),
    'config is text': lambda f: top(f, config='x'),
    'extra is a list': lambda f: top(f, extra=[]),
    'no digest': lambda f: top(f, sha256=None),
    'digest of another': lambda f: top(f, sha256='0'*64),
    'an unknown argument': lambda f: config_of(f, depth=3),
    'a path': lambda f: config_of(f, target='/etc/passwd'),
    'another target': lambda f: config_of(f, target='noise'),
    'another width': lambda f: config_of(f, nfs=[8, 24]),
    'width of 20,000': lambda f: config_of(f, nfs=[20_000, 20_000]),
    'width of a billion': lambda f: config_of(f, nfs=[10**9, 10**9]),
    'a width beyond all integers': lambda f: config_of(f, nfs=[10**400, 16]),
    'negative width': lambda f: config_of(f, nfs=[-8, 16]),
    'width of a half': lambda f: config_of(f, nfs=[.5, 16]),
    'width is NaN': lambda f: config_of(f, nfs=[float('nan'), 16]),
    'no levels': lambda f: config_of(f, nfs=[]),
    '10,000 levels': lambda f: config_of(f, nfs=[8]*10_000, attention_heads=[0]*10_000,
                                         n_blocks=[1]*10_000),
    '10,000,000 blocks': lambda f: config_of(f, n_blocks=[10_000_000, 1]),
    '300 blocks': lambda f: config_of(f, n_blocks=[300, 1, 1]),
    'ten billion classes': lambda f: config_of(f, n_classes=10**10),
    'classes are text': lambda f: config_of(f, n_classes='ten'),
    'a billion heads': lambda f: config_of(f, attention_heads=[0, 10**9]),
    't_embed of a billion': lambda f: config_of(f, t_embed=10**9),
    'nested arguments': lambda f: config_of(f, nfs=[[8], [16]]),
    'an object for a number': lambda f: config_of(f, t_embed={'a': 1}),
    'weights empty': lambda f: raw(f, b''),
    'weights of nine bytes': lambda f: raw(f, b'123456789'),
    'a header larger than the file': header(10**6, b'{}'),
    'a header of 2**63 bytes': header(2**63, b'{}'),
    'a header that is no JSON': header(8, b'notjson!'),
    'a pickle by that name': lambda f: raw(f, pickle.dumps(Bomb())),
    'a checkpoint of torch by that name': lambda f: torch.save({'a': Bomb()}, f/WEIGHTS),
    'a tensor less': lambda f: other_weights(f, drop),
    'a tensor more': lambda f: other_weights(f, longer),
    'another shape': lambda f: other_weights(f, reshaped),
    'NaN': lambda f: other_weights(f, nan),
    'infinity': lambda f: other_weights(f, inf),
    'whole numbers': lambda f: other_weights(f, ints),
    'float8': lambda f: other_weights(f, float8),
}

def megabytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024

@pytest.mark.parametrize('name', CASES)
def test_refused(folder, name, monkeypatch):
    monkeypatch.chdir(folder.parent)
    load_unet(folder)                                             # imports, and it was whole
    CASES[name](folder)
    start,before,state = time.process_time(),megabytes(),torch.get_rng_state()
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as e: load_unet(folder)
    assert time.process_time() - start < 1 and megabytes() - before < 100
    said = str(e.value)
    assert len(said) < 600 and '\n' not in said, said
    assert 'model' in said
    assert not (folder.parent/'ran').exists() and torch.equal(torch.get_rng_state(), state)

def test_cut_and_flipped(folder):
    "Cut at thirty places, or with one of 200 bits flipped, it is refused"
    good,rng = (folder/WEIGHTS).read_bytes(),random.Random(0)
    for _ in range(30):
        raw(folder, good[:rng.randrange(len(good))])
        with pytest.raises(ValueError, match='model.safetensors'): load_unet(folder)
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        raw(folder, bad)
        with pytest.raises(ValueError): load_unet(folder)
    raw(folder, good)
    load_unet(folder)

def test_unreadable(folder):
    if os.geteuid() == 0: pytest.skip('root reads everything')
    os.chmod(folder/WEIGHTS, 0)
    with pytest.raises(PermissionError): load_unet(folder)

def test_link(folder):
    "A link to a model is a model"
    (folder.parent/'link').symlink_to(folder)
    assert load_unet(folder.parent/'link').config == load_unet(folder).config
    assert read_config(folder.parent/'link')['extra'] == {'classes': list('abcd')}
