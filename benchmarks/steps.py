"""Which sampler gives the best samples in how many evaluations of the network?

    export FASHION_MNIST_PATH=...
    python benchmarks/steps.py --out steps.jsonl
    python benchmarks/steps.py --only 'ddpm 100;dpm_solver 10' --n 10000 --seeds 0
    python benchmarks/steps.py --table --out steps.jsonl

README.md beside this file says what is compared."""
import json, time, torch
from functools import cache
from fastcore.script import call_parse
from equal import alike, at_least, parsed, records, spread
from unet_attention.evaluation import (ImageEval, class_consistency, fid, load_classifier,
                                       precision_recall)
from unet_attention.sampling import generate
from unet_attention.saving import load_unet, read_config
from unet_attention.sources import get_fashion_dls

PLAN = ['ddpm 25', 'ddpm 100', 'ddim 10', 'ddim 50', 'heun 5', 'heun 10', 'dpm_solver 6',
        'dpm_solver 10', 'dpm_solver 20', 'dpm_solver 10 times=uniform',
        'dpm_solver 10 times=logsnr', 'dpm_solver 10 eta=1', 'dpm_solver 20 eta=1',
        'dpm_solver 10 eta=1 times=uniform', 'dpm_solver 8 guidance=1.5 interval=.2,.8',
        'dpm_solver 8 eta=1 guidance=1.5 interval=.2,.8']

@cache
def judge(): # The classifier, and scores against the photographs
    dls,classifier = get_fashion_dls(bs=8),load_classifier('fashion')
    train,test = dls.train.dataset,dls.valid.dataset
    return classifier, ImageEval(train.x, test.x, classifier.features, classifier, test.y)

def scores(x, c):
    classifier,score = judge()
    f = score.embed(x)
    precision,recall = precision_recall(f[:1000], score.f_train[:1000])
    return dict(fid=fid(f, score.f_train), consistency=class_consistency(classifier, x, c),
                precision=precision, recall=recall)

def run(model, pixels, spec, n, seed, bs, bf16):
    "`n` samples, a tenth of each class: their scores, and evaluations of the network for an image"
    asked,c = [],torch.arange(n) % 10
    hook = model.register_forward_hook(lambda m, args, out: asked.append(len(out)))
    start = time.perf_counter()
    try:
        with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
            x = generate(model, n, c=c, seed=seed, bs=bs, progress=False, value_range=pixels,
                         **parsed(spec))
    finally: hook.remove()
    secs = time.perf_counter() - start
    return dict(evaluations=round(sum(asked)/n, 1), seconds=secs, **scores(x, c))

HEAD = ['sampler and steps', 'evaluations', 'FID', 'class consistency', 'precision', 'recall',
        'images', 'sets']

def print_table(out):
    "A line for each sampler and number of images: mean and standard deviation over sets of noise"
    rows = alike(records(out), 'spec', 'bf16', 'n')
    lines = [HEAD, ['---', *['---:']*(len(HEAD) - 1)]]
    for (spec,bf16,n),ds in rows:
        each = [spread([d[k] for d in ds], f)
                for k,f in (('fid', '.3f'), ('consistency', '.3f'), ('precision', '.2f'),
                            ('recall', '.2f'))]
        lines.append([spec + ', bfloat16'*bf16, f"{ds[0]['evaluations']:g}", *each, n, len(ds)])
    print('\n'.join('| ' + ' | '.join(map(str, l)) + ' |' for l in lines))

@call_parse
def main(
    model:str='fashion', # A class-conditional model of Fashion-MNIST: a name or a folder
    out:str='steps.jsonl', # A line a set of samples; sets that it holds are not repeated
    only:str=None, # Samplers, with ';' between them; those of PLAN if not given
    n:int=1000, # Samples of a set
    seeds:str='0,1,2', # Of the noise, a set each
    bs:int=64, # Images at once
    bf16:bool=False, # The network in bfloat16, which a processor with AMX does faster
    table:bool=False # Print the table of `out` and do nothing else
):
    "Sample with each sampler, and score; photographs of the same classes first"
    if table: return print_table(out)
    plan = only.split(';') if only else ['photographs', *PLAN]
    for spec in plan: spec == 'photographs' or parsed(spec)
    net,pixels = load_unet(model),read_config(model)['extra'].get('value_range', (-1, 1))
    at_least(4, n=n), at_least(1, bs=bs)
    for seed in map(int, seeds.split(',')):
        for spec in plan:
            d = dict(model=model, spec=spec, n=n, seed=seed, bf16=bf16)
            done = records(out)
            if any(d.items() <= o.items() for o in done): continue
            if spec == 'photographs':
                if seed: continue
                d |= dict(evaluations=0, **scores(*judge()[1].reference(n, torch.arange(n) % 10)))
            else: d |= run(net, pixels, spec, n, seed, bs, bf16)
            with open(out, 'a') as f: f.write(json.dumps(d) + '\n')
            print(d, flush=True)
