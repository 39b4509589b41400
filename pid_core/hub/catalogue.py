"""The files this pack knows on the model hub: what each is, where it lies, its size and hash, its licence.

Hashes and sizes are written down where they are known from several sources; else the hub's own are used, which a
download is checked against in any case (download.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..printable import LONGEST, quoted

_PACK = Path(__file__).parents[2]  # not resolved: in custom_nodes it may be a link by another name
# By path, so that it works in a Python that ignores the working folder too, such as the portable build's. The folder's
# name depends on what brought it: `pidkit` from ComfyUI-Manager, the repository's from git.
COMMAND = f"python custom_nodes/{_PACK.name if _PACK.parent.name == 'custom_nodes' else 'ComfyUI-PiDKit'}"
NVIDIA, COMFY = "nvidia/PiD", "Comfy-Org/PixelDiT"


@dataclass(frozen=True)
class HubFile:
    """One file. name: what it is called in the models folder `folder`. repo, path: where the hub has it.

    family: the latent family, or "pixeldit" for text to image. version: "v1" or "v1.5". steps: 4 for a distilled
    checkpoint, 25 for an undistilled one, 0 where there is no schedule. resolution: of the output it was trained for.
    hearsay: size and hash come from one third party, so the hub's own count where they differ.
    """

    name: str
    folder: str
    repo: str
    path: str
    licence: str
    size: int | None = None
    sha256: str | None = None
    family: str | None = None
    version: str | None = None
    steps: int = 0
    resolution: str | None = None
    hearsay: bool = False
    precision: str = ""  # of the weights, where the file comes in several
    listed: bool = True  # in PiD Loader; False for a second form of a file that is there already

    @property
    def page(self) -> str:
        """Where a person reads about the file."""
        return f"https://huggingface.co/{self.repo}"

    @property
    def about(self) -> str:
        """What it is, in a few words."""
        if self.folder == "clip_vision":
            return f"{'statistics' if self.path.endswith('.pt') else 'encoder'}, {self.family}"
        if self.folder != "diffusion_models":
            return {"text_encoders": "text encoder", "vae": f"VAE, {self.family}"}[self.folder]
        if self.version is None:
            return f"{self.family or 'generator'}, text to image"
        schedule = "undistilled" if self.steps > 4 else f"{self.steps} steps"
        light = "" if self.precision in ("", "bf16") else f", {self.precision}"
        return f"PiD {self.version}, {self.family}, {self.resolution}, {schedule}{light}"


def _repackaged(
    tail: str,
    family: str,
    size: int | None = None,
    sha256: str | None = None,
    *,
    hearsay: bool = False,
    precision: str = "bf16",
) -> HubFile:
    """A PiD file as Comfy-Org names them."""
    name = f"pid_{tail}_{precision}.safetensors"
    version = "v1.5" if tail.startswith("1.5_") else "v1"
    resolution = "2K" if "512_to_2048" in tail else "2K to 4K"
    path = f"diffusion_models/{name}"
    values = (name, "diffusion_models", COMFY, path, "NSCLv1", size, sha256, family, version, 4, resolution, hearsay)
    return HubFile(*values, precision=precision)


def _original(experiment: str, family: str, size: int | None = None, *, old: bool = False, **more) -> HubFile:
    """A PiD file of NVIDIA's own. `old`: replaced by v1.5 and moved."""
    folder = "checkpoints_deprecated" if old else "checkpoints"
    path = f"{folder}/{experiment}/model_ema_bf16.pth"
    version = "v1.5" if "v1pt5" in experiment else "v1"
    resolution = "2K to 4K" if "2kto4k" in experiment else "2K"
    values = {
        "family": family,
        "version": version,
        "steps": 25 if "undistilled" in experiment else 4,
        "resolution": resolution,
    }
    return HubFile(f"{experiment}.pth", "diffusion_models", NVIDIA, path, "NSCLv1", size, None, **(values | more))


_V1_16, _V1_FLUX2 = 2_724_842_961, 2_725_875_153  # bytes of NVIDIA's v1 files
_OTHER_FORM = {"listed": False}

FILES: tuple[HubFile, ...] = (
    _repackaged(
        "1.5_flux1_1024_to_4096_4step",
        "flux",
        2_800_450_070,
        "18931256e97822dc31db10b1e7399c73e7ee2c897f6d461eb1d1cf5e1d2de049",
    ),
    _repackaged(
        "1.5_flux2_1024_to_4096_4step",
        "flux2",
        2_800_744_982,
        "dddaf186c7bb9f73b873a7f2b59235eaea5eae9ec7731c0ec40d49d3287eee14",
        hearsay=True,
    ),
    _repackaged(
        "1.5_qwenimage_1024_to_4096_4step",
        "qwenimage",
        2_800_450_070,
        "6abdd5377db01d4a9d8b013a2853c72d1673c6a6316a2a821345d92800277325",
        hearsay=True,
    ),
    _repackaged("flux1_512_to_2048_4step", "flux"),
    _repackaged(
        "flux1_1024_to_4096_4step",
        "flux",
        sha256="17c282ed387edad7bfdd3189c5a17363d73e3d60b5e841dfded81c3b76e211ee",
        hearsay=True,
    ),
    _repackaged("flux2_512_to_2048_4step", "flux2"),
    _repackaged("flux2_1024_to_4096_4step", "flux2"),
    _repackaged("flux2_1024_to_4096_4step_2606", "flux2"),
    _repackaged("sd3_512_to_2048_4step", "sd3"),
    _repackaged(
        "sd3_1024_to_4096_4step",
        "sd3",
        sha256="f544e4b7cd414b0e3cae6c506f8b04560c2118fb9b9fcc39302b81c56377e271",
        hearsay=True,
    ),
    _repackaged(
        "sdxl_1024_to_4096_4step",
        "sdxl",
        sha256="c8dd35d7d548a312f61f298d79c6f6a7731fc71031400533f91dbfb2c8a9cb02",
        hearsay=True,
    ),
    _repackaged(
        "qwenimage_1024_to_4096_4step",
        "qwenimage",
        sha256="efa24eada8c414251410e786de96001b26d09701c3fe799a9f2eb0d7d3b8cf2d",
        hearsay=True,
    ),
    # half the memory, through ComfyUI's own operations
    _repackaged("1.5_flux1_1024_to_4096_4step", "flux", precision="int8_convrot"),
    _repackaged("flux1_512_to_2048_4step", "flux", precision="mxfp8"),
    _repackaged("flux1_1024_to_4096_4step", "flux", precision="mxfp8"),
    _repackaged("flux2_512_to_2048_4step", "flux2", precision="mxfp8"),
    _repackaged("flux2_1024_to_4096_4step", "flux2", precision="mxfp8"),
    _original("PiD_v1pt5_res2kto4k_sr4x_official_flux_undistilled", "flux"),
    _original("PiD_v1pt5_res2kto4k_sr4x_official_flux2_undistilled", "flux2"),
    _original("PiD_v1pt5_res2kto4k_sr4x_official_qwenimage_undistilled", "qwenimage"),
    _original("PiD_res2k_sr4x_official_dinov2_distill_4step", "dinov2"),
    _original("PiD_res2k_sr8x_official_siglip_distill_4step", "siglip"),
    # the same weights as Comfy-Org's files above
    _original("PiD_v1pt5_res2kto4k_sr4x_official_flux_distill_4step", "flux", **_OTHER_FORM),
    _original("PiD_v1pt5_res2kto4k_sr4x_official_flux2_distill_4step", "flux2", **_OTHER_FORM),
    _original("PiD_v1pt5_res2kto4k_sr4x_official_qwenimage_distill_4step", "qwenimage", **_OTHER_FORM),
    _original("PiD_res2k_sr4x_official_flux_distill_4step", "flux", _V1_16, **_OTHER_FORM),
    _original("PiD_res2k_sr4x_official_flux2_distill_4step", "flux2", _V1_FLUX2, **_OTHER_FORM),
    _original("PiD_res2k_sr4x_official_sd3_distill_4step", "sd3", _V1_16, **_OTHER_FORM),
    _original("PiD_res2kto4k_sr4x_official_sd3_distill_4step", "sd3", _V1_16, **_OTHER_FORM),
    _original("PiD_res2kto4k_sr4x_official_sdxl_distill_4step", "sdxl", **_OTHER_FORM),
    _original("PiD_res2kto4k_sr4x_official_flux_distill_4step", "flux", _V1_16, old=True, **_OTHER_FORM),
    _original("PiD_res2kto4k_sr4x_official_flux2_distill_4step", "flux2", _V1_FLUX2, old=True, **_OTHER_FORM),
    _original("PiD_res2kto4k_sr4x_official_qwenimage_distill_4step", "qwenimage", old=True, **_OTHER_FORM),
    HubFile(
        "pixeldit_1300m_1024px_bf16.safetensors",
        "diffusion_models",
        COMFY,
        "diffusion_models/pixeldit_1300m_1024px_bf16.safetensors",
        "NSCLv1",
        family="pixeldit",
    ),
    HubFile(
        "gemma_2_2b_it_elm_bf16.safetensors",
        "text_encoders",
        COMFY,
        "text_encoders/gemma_2_2b_it_elm_bf16.safetensors",
        "Gemma",
        5_232_958_571,
        "e7ae59c203c392db4aa4e27783e924ec3225eb563392260cf747e1130ffcdb88",
    ),
    HubFile(
        "gemma_2_2b_it_elm_fp8_scaled.safetensors",
        "text_encoders",
        COMFY,
        "text_encoders/gemma_2_2b_it_elm_fp8_scaled.safetensors",
        "Gemma",
    ),
    HubFile(
        "ae.safetensors",
        "vae",
        "Comfy-Org/z_image_turbo",
        "split_files/vae/ae.safetensors",
        "Apache-2.0",
        335_304_388,
        "afc8e28272cd15db3919bacdb6918ce9c1ed22e96cb12c4d5ed0fba823529e38",
        family="flux",
    ),
    HubFile(
        "flux2-vae.safetensors",
        "vae",
        "Comfy-Org/flux2-dev",
        "split_files/vae/flux2-vae.safetensors",
        "Apache-2.0",
        336_213_556,
        "d64f3a68e1cc4f9f4e29b6e0da38a0204fe9a49f2d4053f0ec1fa1ca02f9c4b5",
        family="flux2",
    ),
    HubFile(
        "qwen_image_vae.safetensors",
        "vae",
        "Comfy-Org/Qwen-Image_ComfyUI",
        "split_files/vae/qwen_image_vae.safetensors",
        "Apache-2.0",
        253_806_246,
        "a70580f0213e67967ee9c95f05bb400e8fb08307e017a924bf3441223e023d1f",
        family="qwenimage",
    ),
    HubFile(
        "sdxl_vae.safetensors",
        "vae",
        "stabilityai/sdxl-vae",
        "sdxl_vae.safetensors",
        "MIT",
        334_641_164,
        "63aeecb90ff7bc1c115395962d3e803571385b61938377bc7089b36e81e92e2e",
        family="sdxl",
    ),
    HubFile(
        "sd3_vae.safetensors",
        "vae",
        NVIDIA,
        "checkpoints/sd3_vae/vae/diffusion_pytorch_model.safetensors",
        "Stability",
        167_666_654,
        "f9b67a279283625caee39d61eacb5324243848477b4eb535355eaaa8423d4e09",
        family="sd3",
        hearsay=True,
    ),
    # the RAE families' encoders; the second one's file holds its text tower too, which stays on the disk
    HubFile(
        "dinov2_with_registers_base.safetensors",
        "clip_vision",
        "facebook/dinov2-with-registers-base",
        "model.safetensors",
        "Apache-2.0",
        family="dinov2",
    ),
    HubFile(
        "rae_dinov2_stat.pt",
        "clip_vision",
        NVIDIA,
        "checkpoints/rae/stats/dinov2/wReg_base/imagenet1k_512/stat.pt",
        "NSCLv1",
        family="dinov2",
    ),
    HubFile(
        "siglip2_so400m_patch14_224.safetensors",
        "clip_vision",
        "google/siglip2-so400m-patch14-224",
        "model.safetensors",
        "Apache-2.0",
        family="siglip",
    ),
    HubFile(
        "z_image_turbo_bf16.safetensors",
        "diffusion_models",
        "Comfy-Org/z_image_turbo",
        "split_files/diffusion_models/z_image_turbo_bf16.safetensors",
        "Apache-2.0",
        12_309_866_400,
        "2407613050b809ffdff18a4ac99af83ea6b95443ecebdf80e064a79c825574a6",
        family="Z-Image",
        listed=False,
    ),
    HubFile(
        "qwen_3_4b.safetensors",
        "text_encoders",
        "Comfy-Org/z_image_turbo",
        "split_files/text_encoders/qwen_3_4b.safetensors",
        "Apache-2.0",
        8_044_982_048,
        "6c671498573ac2f7a5501502ccce8d2b08ea6ca2f661c458e708f36b36edfc5a",
    ),
)


def get_file(name: str) -> HubFile:
    """The file of that name. Raises ValueError with the nearest names."""
    for file in FILES:
        if file.name == name:
            return file
    names = [file.name for file in FILES]
    near = [n for n in names if name and name.lower() in n.lower()][:4]
    near = near or difflib.get_close_matches(name[:LONGEST], names, 3)
    hint = f"; did you mean {', '.join(near)}?" if near else f"; `{COMMAND} fetch --list` shows all"
    raise ValueError(f"{quoted(name)} is no file this pack knows{hint}")


def known_file(local_name: str) -> HubFile | None:
    """The entry that a file in a models folder is, by its name: as we name it, or as the hub's folders do."""
    parts = PurePath(local_name.replace("\\", "/")).parts
    for file in FILES:
        if parts and parts[-1] == file.name:
            return file
        if parts[-2:] == _folder_and_name(file):
            return file
    return None


def _folder_and_name(file: HubFile) -> tuple[str, ...] | None:
    """The end of its path where a repository was fetched whole, if that tells it from others."""
    if file.repo == NVIDIA:
        return PurePath(file.path).parts[-2:]
    return (PurePath(file.repo).name, file.path) if file.folder == "clip_vision" else None


def local_name(file: HubFile, names: Iterable[str]) -> str | None:
    """Which of a models folder's file names is this file, or None."""
    return next((name for name in names if known_file(name) is file), None)
