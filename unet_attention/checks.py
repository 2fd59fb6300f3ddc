"What several rooms need: arguments checked, models unwrapped, eval mode. Hand-written; torch alone"

# A door names what it takes in one line, `nc, nh = count(nc=nc, nh=nh)`; the wording is here, and
# for numbers and names in `arguments`.
# Each function checks its keyword arguments and returns them, one alone or several as a tuple.
import inspect, torch
from contextlib import contextmanager
from operator import attrgetter
from torch import nn, Tensor
from .arguments import (
    count, counts, divisible, ends, interval_ends, multiple, must, one_of, real, several)

__all__ = ['must', 'count', 'counts', 'real', 'ends', 'one_of', 'multiple', 'divisible', 'tensor',
           'as_tensor', 'within', 'indices', 'values_known', 'images', 'times', 'device', 'core',
           'takes', 'evaluating', 'delegates', 'patch']

_kinds = {                      # of a dtype; a check of a network's input enters few functions
    'floating point': attrgetter('is_floating_point'),
    'whole numbers': lambda d: not (d.is_floating_point or d.is_complex or d is torch.bool),
    'boolean': lambda d: d is torch.bool,
    'uint8': lambda d: d is torch.uint8,
    'uint8 or floating point': lambda d: d is torch.uint8 or d.is_floating_point,
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
    if torch.compiler.is_compiling(): return several(args.values())
    for k,x in args.items():
        if not isinstance(x, Tensor):
            want = 'a tensor' if shape is ... else f'a tensor, {_written(shape)}'
            raise TypeError(f'{k} must be {want}, got {type(x).__name__}')
        if not _kinds[kind](x.dtype): raise TypeError(f'{k} must be {kind}, got {x.dtype}')
        if shape is not ... and not _fits(x.shape, shape):
            raise ValueError(f'{k} must be {_written(shape)}, got {tuple(x.shape)}')
    return x if len(args) == 1 else tuple(args.values())

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
    for k,x in args.items():
        if not values_known(x): continue
        a,b = interval_ends(interval)
        if not ((x >= a) & (x <= b)).all():
            ends = f'{x.min().item():.4g}..{x.max().item():.4g}'
            raise ValueError(f'{k} must lie in {interval}, got {ends}')
    return x if len(args) == 1 else tuple(args.values())

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
