"""The ComfyUI nodes: one file each, which checks, calls the core and wraps. A new node is a file and a line below."""

from comfy_api.latest import ComfyExtension, io

from .bench import PiDKitBench
from .caption import PiDKitCaption
from .check import PiDKitCheck
from .colour_hold import PiDKitColourHold
from .conditioning import PiDKitConditioning
from .context_window import PiDKitContextWindow
from .decode import PiDKitDecode
from .download import PiDKitDownload
from .early_stop import PiDKitEarlyStop
from .finish_image import PiDKitFinishImage
from .hold import PiDKitHold
from .latent_from_noisy import PiDKitLatentFromNoisy
from .load_caption import PiDKitLoadCaption
from .load_latent import PiDKitLoadLatent
from .loader import PiDKitLoader
from .next_picture import PiDKitNextPicture
from .pixel_vae import PiDKitPixelVAE
from .prepare_image import PiDKitPrepareImage
from .rae_encode import PiDKitRAEEncode
from .regional_caption import PiDKitRegionalCaption
from .rgb_latent import PiDKitRGBLatent
from .save_caption import PiDKitSaveCaption
from .save_latent import PiDKitSaveLatent
from .shared.example_pictures import offer_example_pictures
from .shared.input_checks import checked
from .shared.plain import speaks_plainly
from .sigma_map import PiDKitSigmaMap
from .sigma_sweep import PiDKitSigmaSweep
from .sigma_tuner import PiDKitSigmaTuner
from .sigmas import PiDKitSigmas
from .touch_up import PiDKitTouchUp
from .upscale import PiDKitUpscale
from .upscale_picture import PiDKitUpscalePicture

_NODES: list[type[io.ComfyNode]] = [
    PiDKitUpscale,
    PiDKitUpscalePicture,
    PiDKitLoader,
    PiDKitDecode,
    PiDKitTouchUp,
    PiDKitConditioning,
    PiDKitContextWindow,
    PiDKitRegionalCaption,
    PiDKitPixelVAE,
    PiDKitSigmas,
    PiDKitPrepareImage,
    PiDKitFinishImage,
    PiDKitColourHold,
    PiDKitHold,
    PiDKitCheck,
    PiDKitSigmaTuner,
    PiDKitSigmaMap,
    PiDKitSigmaSweep,
    PiDKitRGBLatent,
    PiDKitRAEEncode,
    PiDKitEarlyStop,
    PiDKitLatentFromNoisy,
    PiDKitCaption,
    PiDKitSaveCaption,
    PiDKitLoadCaption,
    PiDKitDownload,
    PiDKitBench,
    PiDKitNextPicture,
    PiDKitSaveLatent,
    PiDKitLoadLatent,
]
NODES = [speaks_plainly(checked(node)) for node in _NODES]


class PiDKitExtension(ComfyExtension):
    async def on_load(self) -> None:
        offer_example_pictures()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> PiDKitExtension:
    return PiDKitExtension()
