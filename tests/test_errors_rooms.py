"""Wrong arguments to captions, anatomy and saving: each row is a call, the error, and what it says.

A notebook shows one such case for each public function; the others are here, by module."""
import re, tempfile
import matplotlib.pyplot as plt
import pytest, torch
from torch import nn
from unet_attention.anatomy import attention_maps, draw_unet, trace_features
from unet_attention.captions import (
    caption_of, captioned_shapes, get_caption_dls, score_captions, tokenize)
from unet_attention.saving import load_unet, model_card, save_unet
from unet_attention.shapes import COLOURS, SHAPES
from unet_attention.unet import ConditionalTAUnet, ContextTAUnet, TAUnet, UNet

T,V = TypeError,ValueError

# --- captions
black = torch.full((2, 3, 32, 32), -1.)
tokens = torch.tensor([[1, 3, 7, 0], [5, 9, 0, 0]])
every = [(c, s) for c in COLOURS for s in SHAPES]

captions = [
    (lambda: caption_of(0), V, "size must be one of '', 'small', 'large', got 0"),
    (lambda: caption_of('red'), V, "size must be one of '', 'small', 'large', got 'red'"),
    (lambda: caption_of(colour='pink'),
     V, "colour must be one of '', 'red', 'green', 'blue', 'yellow', got 'pink'"),
    (lambda: caption_of(shape='cube'),
     V, "shape must be one of '', 'circle', 'square', 'triangle', got 'cube'"),
    (lambda: caption_of(place='middle'), V, "place must be one of '', 'top left', "),
    (lambda: tokenize('red circle'), T, "captions must be a list, got 'red circle'"),
    (lambda: tokenize(['red dog']), V, "word 1 of 'red dog' must be one of 'small', 'large', "),
    (lambda: tokenize(['']), V, "number of words in '' must be a number in [1, 8], got 0"),
    (lambda: tokenize(['small red circle'], 2),
     V, "number of words in 'small red circle' must be a number in [1, 2], got 3"),
    (lambda: tokenize(['red circle'], 0), V, 'max_len must be at least 1, got 0'),
    (lambda: captioned_shapes(0), V, 'n must be at least 1, got 0'),
    (lambda: captioned_shapes(5, 8), V, 'sz must be at least 16, got 8'),
    (lambda: captioned_shapes(5, seed=-1), V, 'seed must be at least 0, got -1'),
    (lambda: captioned_shapes(5, p_drop=2), V, 'p_drop must be a number in [0, 1], got 2'),
    (lambda: captioned_shapes(5, hold_out=['red']),
     V, "hold_out must be a list of pairs such as ('red', 'circle'), got ['red']"),
    (lambda: captioned_shapes(5, hold_out=('red', 'square')),
     V, 'hold_out must be a list of pairs'),
    (lambda: captioned_shapes(5, hold_out=[('red', 'dog')]), V, 'hold_out must be a list of pairs'),
    (lambda: captioned_shapes(5, hold_out=zip(['red'], ['square'])),
     V, 'hold_out must be a list of pairs'),
    (lambda: captioned_shapes(5, hold_out=[5]), V, 'hold_out must be a list of pairs'),
    (lambda: captioned_shapes(5, hold_out=every), V, 'hold_out must leave a pair, got all of them'),
    (lambda: get_caption_dls(0), V, 'bs must be at least 1, got 0'),
    (lambda: get_caption_dls(4, n_valid=0), V, 'n_valid must be at least 1, got 0'),
    (lambda: get_caption_dls(4, sz=8), V, 'sz must be at least 16, got 8'),
    (lambda: get_caption_dls(4, value_range=(1, 0)),
     V, 'value_range must be two numbers, the smaller first'),
    (lambda: get_caption_dls(4, 10, 10, hold_out=['red']), V, 'hold_out must be a list of pairs'),
    (lambda: score_captions(black, tokens[:1]), V, 'tokens must be (2, m), got (1, 4)'),
    (lambda: score_captions(black, tokens[0]), V, 'tokens must be (2, m), got (4,)'),
    (lambda: score_captions(black, tokens.bool()),
     T, 'tokens must be whole numbers, got torch.bool'),
    (lambda: score_captions(black, tokens.float()),
     T, 'tokens must be whole numbers, got torch.float32'),
    (lambda: score_captions(black, ['red circle']), T, 'tokens must be a tensor, (2, m), got list'),
    (lambda: score_captions(black, tokens + 90), V, 'tokens must lie in [0, 13], got 90..99'),
    (lambda: score_captions(black, tokens - 1), V, 'tokens must lie in [0, 13], got -1..8'),
    (lambda: score_captions(black[0], tokens), V, 'x must be (n, 3, h, h), got (3, 32, 32)'),
]

# --- anatomy
captioned = ContextTAUnet(20, (16, 32), (0, 4), (1, 1))
x,t = torch.randn(2, 3, 32, 32),torch.rand(2)

anatomy = [
    (lambda: draw_unet(nn.Linear(2, 2), 32),
     T, 'model must be a UNet or a TAUnet of some kind, got Linear'),
    (lambda: draw_unet(captioned, 31),
     V, 'model.factor must divide sz: sz=31 is not a multiple of model.factor=2'),
    (lambda: draw_unet(UNet((8, 16), num_heads=2), 18), V, 'model.factor must divide sz: sz=18'),
    (lambda: draw_unet(captioned, 0), V, 'sz must be at least 1, got 0'),
    (lambda: draw_unet(captioned, 32.), T, 'sz must be a whole number, got 32.0'),
    (lambda: draw_unet(captioned, 32, captioned.out),
     V, 'highlight must be a block of the model, got Sequential'),
    (lambda: attention_maps(TAUnet((8,), (0,), (1,)), x, t),
     V, 'model must have attention layers, got TAUnet'),
    (lambda: attention_maps(captioned, x, t[:1]), V, 't must be (2,), got (1,)'),
    (lambda: trace_features(nn.Linear(2, 2), x[:1], t[:1]),
     T, 'model must be a UNet or a TAUnet of some kind'),
    (lambda: trace_features(captioned, x, t), V, 'x must be (1, c, h, h), got (2, 3, 32, 32)'),
    (lambda: trace_features(captioned, x[:1, :, :16], t[:1]),
     V, 'x must be (1, c, h, h), got (1, 3, 16, 32)'),
    (lambda: trace_features(captioned, x[:1], t[:1], file='a.png'),
     V, "suffix of file must be '.gif', got '.png'"),
    (lambda: trace_features(captioned, x[:1], t[:1], channels=0),
     V, 'channels must be at least 1, got 0'),
    (lambda: trace_features(captioned, x[:1], t[:1], ms=0), V, 'ms must be at least 1, got 0'),
    (lambda: trace_features(captioned, x[:1, :1], t[:1]), V, 'x must be '),
]

# --- saving
small = dict(nfs=(8,), attention_heads=(0,), n_blocks=(1,))
altered = TAUnet(**small)
altered.out = nn.Identity()

def kept(): return save_unet(TAUnet(**small), tempfile.mkdtemp())

saving = [
    (lambda: save_unet(nn.Linear(2, 2), 'no'), T, 'model must be one of UNet, TAUnet, Conditional'),
    (lambda: save_unet(ConditionalTAUnet(nn.Linear(2, 32), **small), 'no'),
     T, 'model.config must consist of JSON types'),
    (lambda: save_unet(altered, 'no'), V, 'model must have the parts that its config describes'),
    (lambda: save_unet(TAUnet(**small), 'no', best={1, 2}), T, 'best must consist of JSON types'),
    (lambda: model_card('no'), FileNotFoundError, 'folder must hold a model: no/config.json'),
    (lambda: model_card('no', scores={'fid': 12.5}), V, 'scores must be what ImageEval gives'),
    (lambda: model_card(kept(), history=__file__), V, 'must be a table of History, got '),
    (lambda: UNet.from_pretrained(kept()), V, "must be a UNet, got 'TAUnet'"),
    (lambda: TAUnet(**small).save_pretrained('no', extra=dict(best={1})), T, 'best must consist'),
    (lambda: TAUnet.from_pretrained('no/model', local_files_only=True), ConnectionError,
     "model on the hub, got 'no/model': it is not in the cache, and the hub was not asked"),
    (lambda: load_unet('a/..'), V, "must be a folder here or a model on the hub, got 'a/..'"),
]

rows = dict(captions=captions, anatomy=anatomy, saving=saving)

@pytest.mark.parametrize('call,error,says', [
    pytest.param(*row, id=f'{module} {i}: {row[2]}')
    for module,table in rows.items() for i,row in enumerate(table)])
def test_error(call, error, says):
    with pytest.raises(error, match=re.escape(says)): call()
    plt.close('all')

def test_hooks_are_removed_when_a_call_fails():
    for f in (attention_maps, trace_features):
        with pytest.raises(ValueError): f(captioned, x[:1], torch.tensor([2.]))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in captioned.modules())

@pytest.mark.parametrize('module', ['captions', 'anatomy'])
def test_names_collide_with_nothing(module):
    "`from fastai.vision.all import *` or `from torch import *` beside ours changes no name"
    import importlib, fastai.vision.all as fastai
    names = importlib.import_module(f'unet_attention.{module}').__all__
    assert not [o for o in names if hasattr(fastai, o) or hasattr(torch, o)]
