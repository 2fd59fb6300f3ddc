"""Which target, schedule, loss weight? One small network, the same images, each combination.

    python benchmarks/formulations.py --data FOLDER --out formulations.jsonl
    python benchmarks/formulations.py --table --out formulations.jsonl

README.md beside this file says what is compared and how."""
import json, sys
from fastcore.script import call_parse
import equal

PLAN = [('eps', 'cosine', 'eps'), ('v', 'cosine', 'v'), ('x_0', 'cosine', 'x_0'),
        ('flow', 'cosine', 'flow'),
        ('eps', 'linear', 'eps'), ('v', 'linear', 'v'), ('x_0', 'linear', 'x_0'),
        ('v', 'flow', 'v'), ('x_0', 'flow', 'x_0'), ('flow', 'flow', 'flow')]
SAME = 'v', 'x_0', 'flow'             # targets, each with the weights of the others' squared errors
PLAN += [(t, 'cosine', w) for t in SAME for w in SAME if t != w]
HEAD = ['target', 'schedule', 'loss weight', 'eps_loss']

def print_table(out):
    "A line a combination: mean and standard deviation over the seeds"
    rows = equal.alike(equal.records(out), 'target', 'schedule', 'weight')
    names = [k for k in equal.records(out)[0]['samples']]
    head = HEAD + [f'FID, {k}' for k in names] + ['class consistency', 'seeds']
    print('\n'.join('| ' + ' | '.join(map(str, l)) + ' |' for l in (
        head, ['---']*3 + ['---:']*(len(head) - 3),
        *([*k, equal.spread([d['eps_loss'] for d in ds]),
           *(equal.spread([d['samples'][n][0] for d in ds], '.2f') for n in names),
           equal.spread([d['samples'][names[-1]][1] for d in ds], '.3f'), len(ds)]
          for k,ds in rows))))

@call_parse
def main(
    data:str=None, # Folder with the four gzipped IDX files; else FASHION_MNIST_PATH, else the hub
    out:str='formulations.jsonl', # A line a run; runs that it holds are not repeated
    only:str=None, # Combinations, as in 'v cosine v;x_0 cosine v'; all of them if not given
    seeds:str='0,1,2', # Of the weights, the order and the noise
    n:int=9600, # Training images, each seen once
    bs:int=32, # Images in a batch
    lr:float=5e-3, # Highest rate of the cycle, of Muon
    samplers:str='dpm_solver 10, ddim 50', # Each scored by FID and class consistency
    n_samples:int=500, # So many by each
    device:str='cpu', # 'cuda' or 'cpu'
    small:bool=False, # A tiny network and a few images, to see that everything runs
    table:bool=False # Print the table of `out` and do nothing else
):
    "Train the network once for each combination and seed, and append what came out to a file"
    if table: return print_table(out)
    size,n_valid = 'small',2000
    if small: size,n,n_valid,bs,n_samples = 'tiny',16,8,8,10
    equal.sampler_list(samplers)
    plan = [tuple(o.split()) for o in only.split(';')] if only else PLAN
    if wrong := set(plan) - set(PLAN): sys.exit(f'only must be among {PLAN}, got {wrong}')
    for seed in map(int, seeds.split(',')):
        for target,schedule,weight in plan:
            d = dict(name='ours', size=size, images=n, n_valid=n_valid, pool=60_000, bs=bs, lr=lr,
                     seed=seed, target=target, schedule=schedule, pixels=1., ema=.995,
                     adam_eps=1e-8, opt='muon', precision='fp32', samplers=samplers,
                     n_samples=n_samples, weight=weight)
            done = equal.records(out)
            if any(d.items() <= o.items() for o in done): continue
            d |= equal.run(**d, compile=False, device=device, data=data)
            with open(out, 'a') as f: f.write(json.dumps(d) + '\n')
            print(f'{target:4} {schedule:7} {weight:4} seed {seed}: eps_loss {d["eps_loss"]:.4f}, '
                  f'FID {equal.samples_of([d], 0, ".2f")}, {d["seconds"]:.0f} s', flush=True)
