"""Which spacing of the steps gives the best samples? FID of each sampler with each spacing.

    export FASHION_MNIST_PATH=...
    python benchmarks/spacing.py nbs/tutorials/models/clothes --out spacing.jsonl

README.md beside this file says what is compared."""
import json, time, torch
from pathlib import Path
from fastcore.script import call_parse, store_true
from unet_attention.evaluation import ImageEval, fid, load_classifier, precision_recall
from unet_attention.sampling import generate
from unet_attention.saving import load_unet
from unet_attention.sources import get_fashion_dls

PLAN = [(s, n, t) for s,n,ts in (
    ('dpm_solver', 20, 'karras uniform logsnr'), ('dpm_solver', 10, 'karras logsnr uniform'),
    ('ddim', 50, 'uniform karras'), ('ddim', 20, 'uniform karras trailing'),
    ('heun', 10, 'karras'), ('ddpm', 100, 'uniform karras')) for t in ts.split()]

@call_parse
def main(
    folder:str, # Folder of a model of Fashion-MNIST
    out:str='spacing.jsonl', # Where each result is added as a line of JSON
    n:int=1000, # Samples, from the same noise each time
    threads:int=1, # Of torch
    n_train:int=None, # Real images to compare with; all 60,000 if not given
    eager:store_true=False # Do not compile the network
):
    "Sample with each sampler, number of steps and spacing, and score the samples"
    torch.set_num_threads(threads)
    model,judge = load_unet(folder),load_classifier('fashion')
    dls = get_fashion_dls(bs=8, n_train=n_train)
    score = ImageEval(dls.train.dataset.x, dls.valid.dataset.x, judge.features)
    c = torch.arange(n) % model.condition.n_classes if model.condition else None
    f = model if eager else torch.compile(model)
    for sampler,steps,times in PLAN:
        start = time.time()
        kw = dict(sampler=sampler, n_steps=steps, times=times, progress=False)
        with torch.autocast('cpu', torch.bfloat16): x = generate(f, n, c=c, bs=100, **kw)
        features = score.embed(x)
        precision,recall = precision_recall(features, score.f_train[:n])
        brightness = (x/127.5 - 1).mean((1,2,3)).std().item()
        res = dict(sampler=sampler, steps=steps, times=times, fid=fid(features, score.f_train),
                   precision=precision, recall=recall, brightness=brightness,
                   seconds=time.time() - start)
        print(res, flush=True)
        with Path(out).open('a') as o: o.write(json.dumps(res) + '\n')
