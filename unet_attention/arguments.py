"Checks of numbers and names. Hand-written; without torch, so that commands answer at once"

# A door names what it takes in one line, `nc, nh = count(nc=nc, nh=nh)`; the wording is here.
# Each function checks its keyword arguments and returns them, one alone or several as a tuple.
import numbers
from functools import cache

__all__ = ['must', 'count', 'counts', 'real', 'ends', 'one_of', 'multiple', 'divisible',
           'several', 'interval_ends']

def must(
    ok, # Is the argument right?
    what:str, # What it must be or have, as in 'be even'
    error:type=ValueError, # What is raised otherwise
    /,
    **arg # What was given, by name; a type's name is shown, a tensor's shape
):
    "An error such as 'dim must be even, got 5' if an argument is not right"
    if ok: return
    (name,v), = arg.items()
    if hasattr(v, 'shape') and not isinstance(v, type) and v.ndim: v = tuple(v.shape)
    raise error(f'{name} must {what}, got {v.__name__ if isinstance(v, type) else repr(v)}')

def several(vs): return vs[0] if len(vs := list(vs)) == 1 else tuple(vs)

def _whole(name, v, least):
    if isinstance(v, bool) or not isinstance(v, numbers.Integral):
        raise TypeError(f'{name} must be a whole number, got {v!r}')
    if v < least: raise ValueError(f'{name} must be at least {least}, got {v}')
    return int(v)

def count(
    least:int=1, # Smallest value that is right
    **args # Whole numbers by name
): # The numbers as `int`
    "Whole numbers of at least `least`"
    return several(_whole(k, v, least) for k,v in args.items())

def counts(
    least:int=1, # Smallest value that is right
    n:int|None=None, # How many entries each must have; at least one if not given
    **args # Lists or tuples of whole numbers by name
): # Lists of `int`
    "Lists of whole numbers of at least `least`, none of them empty"
    for k,v in args.items():
        if not isinstance(v, (list, tuple)):
            raise TypeError(f'{k} must be a list or tuple of whole numbers, got {v!r}')
        if not v: raise ValueError(f'{k} must have at least one entry, got none')
        if len(v) != (n or len(v)): raise ValueError(f'{k} must have {n} entries, got {v}')
    return several([_whole(f'{k}[{i}]', o, least) for i,o in enumerate(v)] for k,v in args.items())

@cache
def interval_ends(interval): return tuple(map(float, interval[1:-1].split(',')))

def real(
    interval:str='(-inf, inf)', # As in mathematics: `[` with the end, `(` without it
    **args # Numbers by name
): # The numbers as `float`
    "Numbers in an interval"
    a,b = interval_ends(interval)
    for k,v in args.items():
        if isinstance(v, bool) or not isinstance(v, numbers.Real):
            raise TypeError(f'{k} must be a number, got {v!r}')
        if not (a < v < b or v == a and interval[0] == '[' or v == b and interval[-1] == ']'):
            raise ValueError(f'{k} must be a number in {interval}, got {v}')
    return several(float(v) for v in args.values())

def ends(
    interval:str='(-inf, inf)', # What both must lie in, as for `real`
    apart:bool=True, # Must they differ?
    /,
    **arg # A pair of numbers by name
): # Both as `float`
    "Two numbers, the smaller first: the ends of a range"
    (k,v), = arg.items()
    if not isinstance(v, (list, tuple)) or len(v) != 2:
        raise ValueError(f'{k} must be two numbers, got {v!r}')
    a,b = real(interval, **{f'{k}[0]': v[0], f'{k}[1]': v[1]})
    if a > b or a == b and apart:
        raise ValueError(f'{k} must be two numbers, the smaller first, got {v}')
    return a,b

def one_of(
    options, # What is right: a list or the keys of a dictionary
    **args # Values by name
): # The values
    "Values that are among the options"
    for k,v in args.items():
        if not isinstance(v, str) or v not in options: raise ValueError(
            f"{k} must be {', '.join(map(repr, options))}, got {v!r}" if len(options) == 1 else
            f"{k} must be one of {', '.join(map(repr, options))}, got {v!r}")
    return several(args.values())

def multiple(
    **args # Two whole numbers of at least 1 by name: the second must divide the first
): # Both as `int`
    "A whole number that another divides, as heads divide channels"
    of,by = args
    n,d = count(**args)
    if n % d: raise ValueError(f'{by} must divide {of}: {of}={n} is not a multiple of {by}={d}')
    return n,d

def divisible(
    by:int, # What must divide them
    why:str, # Where that number comes from
    **args # Whole numbers by name
):
    "Whole numbers that `by` divides, or an error that names the nearest that are"
    for k,n in args.items():
        low = n - n % by
        near = f'the nearest are {low} and {low + by}' if low else f'the nearest is {by}'
        if n % by: raise ValueError(f'{k} must be divisible by {by} = {why}, got {n}: {near}')
