"Attention U-Nets for diffusion models, exported from the notebooks in `nbs`"
from importlib.metadata import PackageNotFoundError, version

try: __version__ = version('unet_attention')
except PackageNotFoundError: __version__ = '0+unknown'   # imported from a checkout that was never installed
