"Attention U-Nets for diffusion models, exported from the notebooks in `nbs`"
import os, sys
from importlib.metadata import PackageNotFoundError, version
from ._help import finder

try: __version__ = version('unet_attention')
except PackageNotFoundError: __version__ = '0+unknown'         # a checkout that was never installed

# modules of this folder are loaded so that `help` and Shift-Tab show the comments beside parameters
for _folder in filter(os.path.isdir, __path__): sys.path_importer_cache[_folder] = finder(_folder)
