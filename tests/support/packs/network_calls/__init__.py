"""What only the test server tells: calls of PiD's network, because ComfyUI's progress events leave out steps that come
too fast, and the memory that images take.
"""

import gc

from aiohttp import web
from server import PromptServer
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

NETWORK = "ComfyPiDNetwork"
_calls = 0


def _count(module, _):
    global _calls
    _calls += type(module).__name__ == NETWORK


@PromptServer.instance.routes.get("/pidkit_tests/network_calls")
async def network_calls(_):
    return web.json_response({"calls": _calls})


@PromptServer.instance.routes.get("/pidkit_tests/image_bytes")
async def image_bytes(request):
    """Bytes of all images [N, height, width, 3] that anything in this process still holds."""
    gc.collect()
    size = int(request.query["height"]), int(request.query["width"]), 3
    images = [one for one in gc.get_objects() if type(one) is Tensor and one.ndim == 4 and one.shape[1:] == size]
    storages = {image.untyped_storage().data_ptr(): image.untyped_storage().nbytes() for image in images}
    return web.json_response({"bytes": sum(storages.values())})


register_module_forward_pre_hook(_count)
NODE_CLASS_MAPPINGS = {}
