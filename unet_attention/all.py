"Every public name: `from unet_attention.all import *`"
from unet_attention.attention import *
from unet_attention.embeddings import *
from unet_attention.blocks import *
from unet_attention.diffusion import *
from unet_attention.unet import *
from unet_attention.sampling import *
from unet_attention.images import *
from unet_attention.data import *
from unet_attention.shapes import *
from unet_attention.sources import *
from unet_attention.captions import *
from unet_attention.saving import *
from unet_attention.anatomy import *
from unet_attention.training import *
from unet_attention.checkpoints import *
from unet_attention.evaluation import *
from unet_attention.cli import *
