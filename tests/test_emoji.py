"Emoji from folders and from a font: which are read, how styles are joined, whose they are, errors"
import json
from pathlib import Path
import pytest, torch
from PIL import Image, ImageDraw
from unet_attention.data import ImageTensors
from unet_attention.emoji import (
    emoji_credit, emoji_pairs, emoji_tokens, get_emoji_dls, held_out_pairs, read_emoji)

FONT = Path('/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf')
needs_font = pytest.mark.skipif(not FONT.exists(), reason='needs fonts-noto-color-emoji')
T, V, Missing = TypeError, ValueError, FileNotFoundError
THINGS = ['1f34e', '1f347', '1f98e', '2764-fe0f', '1f9d1-200d-1f33e', '1f680']
ROWS = [('1F34E', 'RED APPLE', 'Food & Drink'), ('2764-FE0F', 'RED HEART', 'Symbols'),
        ('1F9D1-200D-1F33E', 'FARMER', 'People & Body'), ('1F347', 'GRAPES', 'Food & Drink')]

def fill(folder, codes, colour='red', side=16):
    folder.mkdir(parents=True, exist_ok=True)
    for o in codes:
        im = Image.new('RGBA', (side, side))
        ImageDraw.Draw(im).rectangle((side//4, side//4, side - 1, side - 1), colour)
        im.save(folder/f'{o}.png')
    return folder

@pytest.fixture
def styles(tmp_path):
    "Three styles: one with a table, one spelt and nested otherwise, one that lacks a thing"
    res = dict(a=fill(tmp_path/'a', THINGS), b=tmp_path/'b',
               c=fill(tmp_path/'c', THINGS[:-1], 'blue', 32))
    fill(res['b']/'img'/'64', [o.replace('-fe0f', '').upper() for o in THINGS], 'green')
    table = [dict(zip(('unified', 'name', 'category'), o)) for o in ROWS]
    (res['a']/'emoji.json').write_text(json.dumps(table))
    (res['c']/'package.json').write_text(json.dumps(dict(
        name='emoji-datasource-twitter', version='1.2', license='MIT')))
    return res

def test_joined_by_code_points(styles):
    ds = emoji_pairs(styles, sz=8)
    thing, style = ds.attrs['thing'], ds.attrs['style']
    assert len(ds) == 17 and thing.bincount().tolist() == [3, 3, 2, 3, 3, 3]
    said = [ds.title(o).split() for o in ds.condition]
    assert [o[0] for o in said] == ['abc'[i] for i in style]
    names = {int(i): {tuple(said[j][2:]) for j in (thing == i).nonzero()[:, 0]} for i in thing}
    assert all(len(o) == 1 for o in names.values())                    # one name in all styles
    assert [o for i in range(6) for o in names[i]] == [                # in the order of code points
        ('grapes',), ('red', 'apple'), ('rocket',), ('lizard',), ('farmer',), ('red', 'heart')]
    assert ds.vocab == ['Food & Drink', 'Other', 'People & Body', 'Symbols']
    red, green, blue = ([255, 0, 0], [0, 128, 0], [0, 0, 255])
    colours = ds.x[:, :, 5, 5].tolist()
    assert colours == [[red, green, blue][i] for i in style]

def test_categories(styles):
    ds = emoji_pairs(styles, 8, categories=['Symbols', 'Food & Drink'])
    assert ds.vocab == ['Food & Drink', 'Symbols'] and len(ds) == 9
    assert ds.attrs['thing'].unique().tolist() == [0, 1, 2] and 'rocket' not in ds.words

def test_left_out(tmp_path):
    tones, flags = ['1f44b-1f3fb', '1f44b-1f3ff', '1f3fc'], ['1f1e8-1f1ed', '1f3f4-e0067-e007f']
    folder = fill(tmp_path/'x', ['1f44b', '1f3f4', *tones, *flags])
    assert [*read_emoji(folder)] == ['1f3f4', '1f44b']
    assert {*read_emoji(folder, flags=True)} == {'1f44b', '1f3f4', *flags}
    assert {*read_emoji(folder, skin_tones=True)} == {'1f44b', '1f3f4', *tones}

def test_other_files(tmp_path):
    folder = fill(tmp_path/'x', ['1f680', '0001', '20001', 'cafe', 'photo', 'a9', '0031-fe0f-20e3'])
    (folder/'1f600.txt').write_text('no picture')
    Image.new('RGBA', (16, 16)).save(folder/'1f601.png')                       # nothing on it
    assert [*read_emoji(folder)] == ['1f680', '31-20e3', 'a9']

def test_background(tmp_path):
    folder = fill(tmp_path/'x', ['1f680'])
    x = read_emoji(folder, 8)['1f680']
    assert x.shape == (3, 8, 8) and x.dtype == torch.uint8
    assert x[:, 0, 0].tolist() == [255]*3 and x[:, 5, 5].tolist() == [255, 0, 0]
    assert read_emoji(folder, 8, '#102030')['1f680'][:, 0, 0].tolist() == [16, 32, 48]
    Image.new('RGBA', (10, 20), 'blue').save(folder/'1f680.png')              # padded, not cropped
    x = read_emoji(folder, 20)['1f680']
    assert x[:, 0, 4].tolist() == [255]*3 and x[:, 0, 5].tolist() == [0, 0, 255]

def test_held_out_pairs(styles):
    "The held-out pictures are not trained on, and their things are, in other styles"
    dls = get_emoji_dls(styles, 8, 4, hold_out=.3, device='cpu')
    train, valid = dls.train_ds, dls.valid_ds
    assert (len(train), len(valid)) == (12, 5)
    pairs = [{(int(i), int(j)) for i, j in zip(o.attrs['thing'], o.attrs['style'])}
             for o in (train, valid)]
    assert not pairs[0] & pairs[1]
    assert len(valid.attrs['thing'].unique()) == len(valid)
    assert {*valid.attrs['thing'].tolist()} <= {*train.attrs['thing'].tolist()}
    assert train.words == valid.words and dls.styles == ['a', 'b', 'c']
    other = get_emoji_dls(styles, 8, 4, hold_out=.3, device='cpu', seed=1).valid_ds
    assert not torch.equal(valid.condition, other.condition)
    same = get_emoji_dls(styles, 8, 4, hold_out=.3, device='cpu').valid_ds
    assert torch.equal(valid.x, same.x)

def test_lone_style_of_a_thing_stays(tmp_path):
    paths = dict(a=fill(tmp_path/'a', ['1f680', '1f34e']), b=fill(tmp_path/'b', ['1f34e']))
    ds = emoji_pairs(paths, 8)
    for seed in range(8):
        held = held_out_pairs(ds, .3, seed)
        assert ds.attrs['thing'][held].tolist() == [0]                # the apple, never the rocket

def test_tokens(styles):
    ds = emoji_pairs(styles, 8)
    c = ds.condition[4]
    assert torch.equal(emoji_tokens([ds.title(c)], ds.words)[0], c[c > 0])
    assert emoji_tokens(['b', 'b red apple'], ds.words).shape == (2, 3)

def test_credits(styles, tmp_path):
    credits = get_emoji_dls(styles, 8, 2, hold_out=.2, device='cpu').credits
    assert [*credits] == ['a', 'b', 'c']
    assert 'CC BY 4.0' in credits['c'] and 'Twitter' in credits['c'] and '1.2' in credits['c']
    assert 'unknown' in credits['a']
    (styles['b']/'package.json').write_text('{"name": "mine", "license": "CC0-1.0"}')
    assert emoji_credit(styles['b']) == 'mine, CC0-1.0'

@needs_font
def test_font():
    noto = read_emoji(FONT, 16)
    assert len(noto) > 1_000
    assert {'1f600', '1f680', '2764', 'a9'} <= {*noto}
    assert not {'31', '20', '1f3fb', '1f1e6'} & {*noto}
    grin = noto['1f600'].float()
    assert grin[:2, 8, 8].min() > 120 and grin[2, 8, 8] < 100                    # yellow
    assert 'OFL' in emoji_credit(FONT) or 'Open Font License' in emoji_credit(FONT)

@needs_font
def test_font_beside_a_folder(styles):
    ds = emoji_pairs(dict(drawn=styles['a'], noto=FONT), 16)
    rockets = [ds.title(o) for o in ds.condition if 'rocket' in ds.title(o).split()]
    assert rockets == ['drawn Other rocket', 'noto Other rocket']

def test_damaged_files(styles):
    (styles['a']/'1f680.png').write_bytes(b'no picture')
    with pytest.raises(V, match='1f680.png must be readable'): read_emoji(styles['a'])
    (styles['b']/'emoji.json').write_text('{')
    with pytest.raises(V, match='emoji.json must be a list of objects'): emoji_pairs(styles['b'])
    (styles['b']/'emoji.json').write_text('[{"unified": "1F600"}]')
    with pytest.raises(V, match='emoji.json must be a list of objects'): emoji_pairs(styles['b'])
    (styles['c']/'package.json').write_text('{')
    with pytest.raises(V, match='package.json must be JSON'): emoji_credit(styles['c'])
    (styles['c']/'font.ttf').write_bytes(b'no font')
    with pytest.raises(V, match='must be a font with bitmaps'): read_emoji(styles['c']/'font.ttf')

two = ImageTensors(torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
                   attrs=dict(thing=torch.tensor([0, 0]), style=torch.tensor([0, 1])))

@pytest.mark.parametrize('exc, text, f', [
    (Missing, 'path must be a folder or a font, got', lambda d: read_emoji('/no/where')),
    (Missing, 'path must be a folder or a font, got', lambda d: emoji_credit('/no/where')),
    (V, 'path must hold pictures named after', lambda d: read_emoji(d['a']/'..'/'empty')),
    (V, 'sz must be at least 1', lambda d: read_emoji(d['a'], 0)),
    (V, "background must be a colour, got 'reddish'", lambda d: read_emoji(d['a'], 8, 'reddish')),
    (V, 'background must be a colour, got 3', lambda d: read_emoji(d['a'], 8, 3)),
    (V, 'path must be a path, or a path for each style', lambda d: emoji_pairs(None)),
    (V, 'styles of path must have', lambda d: emoji_pairs({})),
    (V, 'styles of path must have', lambda d: emoji_pairs({'two words': d['a']})),
    (V, 'styles of path must be no words of a name', lambda d: emoji_pairs({'apple': d['a']})),
    (V, "categories must be a list of some of .*got 'Symbols'",
     lambda d: emoji_pairs(d, categories='Symbols')),
    (V, "categories must be .*got \\['Symbol'\\]", lambda d: emoji_pairs(d, categories=['Symbol'])),
    (V, r'share must be a number in \(0, 1\)', lambda d: held_out_pairs(two, 0)),
    (V, 'share must leave each thing a style: at most 0.5', lambda d: held_out_pairs(two, .9)),
    (V, 'seed must be at least 0', lambda d: held_out_pairs(two, seed=-1)),
    (V, r'hold_out must be a number in \(0, 1\)', lambda d: get_emoji_dls(d, hold_out=1)),
    (V, 'bs must be at least 1', lambda d: get_emoji_dls(d, bs=0)),
    (V, 'sz must be at least 1', lambda d: get_emoji_dls(d, sz=0)),
    (V, 'value_range must be two', lambda d: get_emoji_dls(d, value_range=1)),
    (V, 'device must be one', lambda d: get_emoji_dls(d, device='nonsense')),
    (T, 'flag', lambda d: get_emoji_dls(d, flag=True)),
    (T, 'captions must be a list', lambda d: emoji_tokens('red', ['', 'red'])),
    (V, 'captions must not be empty', lambda d: emoji_tokens([' '], ['', 'red'])),
    (V, "captions must consist of words of the vocabulary, got 'dog'",
     lambda d: emoji_tokens(['red dog'], ['', 'red']))])
def test_errors(styles, tmp_path, exc, text, f):
    (tmp_path/'empty').mkdir()
    with pytest.raises(exc, match=text): f(styles)
