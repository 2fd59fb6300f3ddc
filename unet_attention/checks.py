"What several rooms need: arguments checked, models unwrapped, eval mode. Hand-written; torch alone"

# A door names what it takes in one line, `nc, nh = count(nc=nc, nh=nh)`; the wording is here.
# Each function checks its keyword arguments and returns them, one alone or several as a tuple.
import inspect, numbers, torch
from contextlib import contextmanager
from torch import nn, Tensor

__all__ = ['must', 'count', 'counts', 'real', 'ends', 'one_of', 'multiple', 'divisible', 'tensor',
           'as_tensor', 'within', 'indices', 'values_known', 'images', 'times', 'device', 'core',
           'takes', 'evaluating', 'delegates', 'patch']

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
    if isinstance(v, Tensor) and v.numel() != 1: v = tuple(v.shape)
    raise error(f'{name} must {what}, got {v.__name__ if isinstance(v, type) else repr(v)}')

def _all(vs): return vs[0] if len(vs := list(vs)) == 1 else tuple(vs)

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
    return _all(_whole(k, v, least) for k,v in args.items())

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
    return _all([_whole(f'{k}[{i}]', o, least) for i,o in enumerate(v)] for k,v in args.items())

def _ends(interval): return map(float, interval[1:-1].split(','))

def real(
    interval:str='(-inf, inf)', # As in mathematics: `[` with the end, `(` without it
    **args # Numbers by name
): # The numbers as `float`
    "Numbers in an interval"
    a,b = _ends(interval)
    for k,v in args.items():
        if isinstance(v, bool) or not isinstance(v, numbers.Real):
            raise TypeError(f'{k} must be a number, got {v!r}')
        if not (a < v < b or v == a and interval[0] == '[' or v == b and interval[-1] == ']'):
            raise ValueError(f'{k} must be a number in {interval}, got {v}')
    return _all(float(v) for v in args.values())

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
    return _all(args.values())

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

_kinds = {
    'floating point': lambda d: d.is_floating_point,
    'whole numbers': lambda d: not (d.is_floating_point or d.is_complex or d is torch.bool),
    'boolean': lambda d: d is torch.bool,
    'uint8': lambda d: d is torch.uint8,
    None: lambda d: True}

def _fits(sizes, shape):
    "Are the `sizes` of that shape, with one size for each name?"
    if shape[-1:] == (...,): sizes,shape = sizes[:len(shape)-1],shape[:-1]
    named = {}
    for n,m in zip(shape, sizes):
        if isinstance(n, str): n = named.setdefault(n, m)
        if m not in n if isinstance(n, tuple) else m != n: return False
    return len(sizes) == len(shape)

def _written(shape):
    each = ['...' if n is ... else ' or '.join(map(str, n if isinstance(n, tuple) else [n]))
            for n in shape]
    return f"({', '.join(each)}{',' if len(shape) == 1 else ''})"

def tensor(
    shape:tuple, # For each axis a size, sizes, or a name; `...` for further ones, or for any shape
    kind:str|None='floating point', # Or 'whole numbers', 'boolean', 'uint8', `None` for any
    /,
    **args # Tensors by name
): # The tensors
    "Tensors of a shape and a kind; `torch.compile` passes by"
    if torch.compiler.is_compiling(): return _all(args.values())
    for k,x in args.items():
        if not isinstance(x, Tensor):
            want = 'a tensor' if shape is ... else f'a tensor, {_written(shape)}'
            raise TypeError(f'{k} must be {want}, got {type(x).__name__}')
        if not _kinds[kind](x.dtype): raise TypeError(f'{k} must be {kind}, got {x.dtype}')
        if shape is not ... and not _fits(x.shape, shape):
            raise ValueError(f'{k} must be {_written(shape)}, got {tuple(x.shape)}')
    return _all(args.values())

def as_tensor(
    shape:tuple, # As for `tensor`
    kind:str|None=None, # Likewise
    device:str|torch.device|None=None, # Where they should be; where they are if not given
    /,
    **args # Tensors, arrays, or lists of numbers, by name
): # The tensors
    "Tensors of what can become one, of a shape and a kind"
    for k,x in args.items():
        try: args[k] = torch.as_tensor(x, device=device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f'{k} must be a tensor, got {x!r}') from None
    return tensor(shape, kind, **args)

def values_known(
    x:Tensor # Any tensor
) -> bool: # Whether Python may look
    "Can the values be looked at: on the CPU, and outside `torch.compile` and `vmap`?"
    if x.device.type != 'cpu' or torch.compiler.is_compiling(): return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(x)

def within(
    interval:str, # As for `real`, closed at both ends
    **args # Tensors by name
): # The tensors
    "Tensors whose values lie in an interval, where that can be known without waiting"
    a,b = _ends(interval)
    for k,x in args.items():
        if values_known(x) and not ((x >= a) & (x <= b)).all():
            ends = f'{x.min().item():.4g}..{x.max().item():.4g}'
            raise ValueError(f'{k} must lie in {interval}, got {ends}')
    return _all(args.values())

def indices(
    shape:tuple, # As for `tensor`
    n:int, # What they must be below
    **args # Tensors by name
): # The tensors
    "Whole numbers from 0 to `n-1`, as labels and tokens are"
    tensor(shape, 'whole numbers', **args)
    return within(f'[0, {n - 1}]', **args)

def times(
    t, # Times
    b # Batch size
) -> Tensor: # `t`
    "Times `(b,)`, floating point in [0, 1]"
    return within('[0, 1]', t=tensor((b,), t=t))

def images(
    x, # Images
    channels:int, # Channels that they must have
    factor:int # What both sides must be divisible by
) -> Tensor: # `x`
    "Images `(b, channels, h, w)` with sides that can be halved as often as the network halves them"
    tensor(('b', channels, 'h', 'w'), x=x)
    if torch.compiler.is_compiling(): return x
    h,w = x.shape[2:]
    if h % factor or w % factor or not h*w:
        raise ValueError(f'x must have sides divisible by {factor}, got {h}x{w}')
    return x

def device(
    device # A device or its name
) -> torch.device: # The device
    "A device that torch can use here"
    try: return torch.empty(0, device=device).device
    except (RuntimeError, TypeError, AssertionError):
        raise ValueError(
            f"device must be one that torch can use here, as 'cpu', got {device!r}") from None

def core(
    model # A model, perhaps wrapped
): # The model inside
    "The model inside `torch.compile`, data-parallel and averaging wrappers"
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel,
                torch.optim.swa_utils.AveragedModel)
    while True:
        if hasattr(model, '_orig_mod'): model = model._orig_mod
        elif isinstance(model, wrappers): model = model.module
        else: return model

def takes(
    model, # A model or a function
    n:int # Number of arguments
) -> bool:
    "Can `model` be called with `n` arguments?"
    model = core(model)
    f = model.forward if isinstance(model, nn.Module) else model
    try: return bool(inspect.signature(f).bind(*range(n)))
    except TypeError: return False

@contextmanager
def evaluating(
    model # Any module, or a function
):
    "`model` in `eval` mode; afterwards every part of it is back in the mode it was in"
    modes = [(m, m.training) for m in model.modules()] if isinstance(model, nn.Module) else []
    try:
        for m,_ in modes: m.training = False
        yield model
    finally:
        for m,mode in modes: m.training = mode

def patch(
    f # A function whose first parameter is annotated with a class
):
    "Make `f` a method of that class, which so can grow beside its explanation"
    cls = next(iter(inspect.signature(f).parameters.values())).annotation
    f.__qualname__ = f'{cls.__name__}.{f.__name__}'
    setattr(cls, f.__name__, f)

def delegates(
    to, # A function
    but:str='' # Names of its parameters to leave out, with spaces between them
): # A decorator
    "Let a function that hands its `**kwargs` to `to` show the parameters of `to` in its signature"
    def decorate(f):
        sig = inspect.signature(f)
        own = [p for p in sig.parameters.values() if p.kind != p.VAR_KEYWORD]
        skip = {p.name for p in own} | set(but.split())
        more = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(to).parameters.values()
                if p.default is not p.empty and p.name not in skip]
        f.__signature__,f.__delwrap__ = sig.replace(parameters=own + more),to
        return f
    return decorate
