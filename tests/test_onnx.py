"`export_onnx`: the file gives what the network gives, at every size of the batch"
import json, pytest, torch
from torch import nn
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
from unet_attention.saving import export_onnx
from unet_attention.unet import ConditionalTAUnet, ContextTAUnet, TAUnet, UNet

PLAN = dict(nfs=(8,16), attention_heads=(0,2), n_blocks=(1,1), color_channels=1)

def networks():
    return dict(unet=UNet((8,16), num_heads=2), plain=TAUnet(**PLAN),
                classes=ConditionalTAUnet(5, **PLAN),
                own=ConditionalTAUnet(nn.Linear(3, 32), **PLAN),
                captions=ContextTAUnet(9, **PLAN, max_len=4, context_dim=8))

@pytest.mark.parametrize('name', networks())
def test_onnx_is_torch(name, tmp_path):
    torch.manual_seed(0)
    model = networks()[name].train()
    for p in model.parameters(): nn.init.normal_(p, std=.1)
    c = dict(classes=torch.tensor([3, 0, 4, 1, 2, 2, 3]), own=torch.randn(7, 3),
             captions=torch.tensor([[1,2,0,0]]*3 + [[3,4,5,8]]*4)).get(name)
    example = dict(c=c[:2]) if name == 'own' else {}
    wrapped = nn.DataParallel(model)
    file = export_onnx(wrapped, tmp_path/'net.onnx', 16, **example)
    assert model.training and [f.name for f in tmp_path.iterdir()] == ['net.onnx']
    net = onnxruntime.InferenceSession(file)
    kept = net.get_modelmeta().custom_metadata_map
    assert json.loads(kept['config'])['target'] == model.process.target
    assert kept['model'] == type(model).__name__
    for n in (1, 2, 7):
        x,t = torch.randn(n, model.color_channels, 16, 16),torch.rand(n)
        args = [x, t] + ([] if c is None else [c[:n]])
        got, = net.run(None, {k: o.numpy() for k,o in zip(('x_t', 't', 'c'), args)})
        with torch.no_grad(): want = model.eval()(*args).numpy()
        assert got.shape == want.shape and abs(got - want).max() < 1e-5*max(1, abs(want).max())
    if name == 'classes':                              # the number after the last is no class
        got, = net.run(None, dict(x_t=x.numpy(), t=t.numpy(), c=c.numpy()*0 + 5))
        with torch.no_grad(): assert abs(got - model(x, t).numpy()).max() < 1e-5

def test_onnx_refuses(tmp_path):
    for error,says,args in (
            (TypeError, 'model must be one of UNet, TAUnet', (nn.Linear(2, 2), tmp_path/'x.onnx')),
            (ValueError, 'sz must be divisible by 2', (TAUnet(**PLAN), tmp_path/'x.onnx', 15)),
            (ValueError, 'file must end in .onnx', (TAUnet(**PLAN), tmp_path/'x.pt', 16)),
            (ValueError, 'file must end in .onnx', (TAUnet(**PLAN), tmp_path/'no'/'x.onnx', 16)),
            (ValueError, 'model must be in float32',
             (TAUnet(**PLAN).half(), tmp_path/'x.onnx', 16)),
            (ValueError, 'c must be None for a network without a condition',
             (TAUnet(**PLAN), tmp_path/'x.onnx', 16, torch.zeros(2).long())),
            (ValueError, 'c must lie in',
             (ConditionalTAUnet(5, **PLAN), tmp_path/'x.onnx', 16, torch.tensor([0, 9]))),
            (ValueError, 'c must be given for a condition of your own',
             (ConditionalTAUnet(nn.Linear(3, 32), **PLAN), tmp_path/'x.onnx', 16))):
        with pytest.raises(error, match=says): export_onnx(*args)
    assert not [*tmp_path.iterdir()]
