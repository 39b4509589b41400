"""ComfyUI's own modules and the pack inside the test process, for what the HTTP API cannot show.

Nothing of ComfyUI's is imported before `load` is called, so that tests which do not need ComfyUI run without it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import pytest
import torch

import comfy_env
from pid_core import decode, load_network
from pid_core.sampling.comfy_noise import comfy_noise, comfy_step_noise
from support.tiny import save_tiny, tiny_state_dict
from support.tiny_gemma import SIZES

PACK = "pidkit_pack"
SEED = 7
# ComfyUI's own network at the sizes of tiny.py; they are fixed in its code.
CORE_SIZES = {
    "hidden_size": 32,
    "num_groups": 2,
    "pixel_hidden_size": 4,
    "pixel_attn_hidden_size": 24,
    "pixel_num_groups": 2,
    "patch_depth": 4,
    "pixel_depth": 2,
    "txt_embed_dim": 24,
    "txt_max_length": 12,
    "lq_hidden_dim": 16,
    "lq_num_res_blocks": 2,
    "lq_interval": 2,
}


@functools.cache
def load(cpu: bool = True) -> ModuleType:
    """Import ComfyUI (for the CPU unless told otherwise) and the pack beside it; returns the pack's package.

    Raises FileNotFoundError where there is no ComfyUI, ImportError where this Python lacks its requirements.
    """
    comfyui, _ = comfy_env.find_comfyui()
    sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = cpu
    root = comfy_env.ROOT
    spec = importlib.util.spec_from_file_location(PACK, root / "__init__.py", submodule_search_locations=[str(root)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)
    return module


class Inside:
    """The pack and ComfyUI in this process."""

    def __init__(self, folder):
        self.pack = load().__name__
        self.folder = folder
        self.nodes = self.module("nodes")
        self.model = self.module("nodes.comfy.model")
        self.samplers = importlib.import_module("comfy.samplers")
        self.sample_module = importlib.import_module("comfy.sample")
        self.management = importlib.import_module("comfy.model_management")

    def module(self, name):
        """A module of the pack."""
        return importlib.import_module(f"{self.pack}.{name}")

    def load_clip(self, path):
        """CLIPLoader's object, type pixeldit, for a tiny_gemma file."""
        import comfy.sd

        options = {"gemma2_2b_model_config": SIZES}
        return comfy.sd.load_clip([str(path)], clip_type=comfy.sd.CLIPType.PIXELDIT, model_options=options)

    def load(self, family="flux", version="v1", *, file_dtype=torch.float32, changes=None, **options):
        """A tiny checkpoint as our MODEL and as the core's network (float32).

        changes: fields of PiDConfig. options: those of load_model.
        """
        # a file of its own each time: an earlier model may still have its file mapped
        path = self.folder / f"{len(list(self.folder.iterdir()))}_{family}_{version}.safetensors"
        save_tiny(path, family, version, caption=3, dtype=file_dtype, **(changes or {}))
        return self.model.load_model(str(path), **options), load_network(path)

    def load_core(self, family="flux", version="v1"):
        """The weights of `load` as ComfyUI's own PiD model, or None where this ComfyUI does not know the version."""
        detection = importlib.import_module("comfy.model_detection")
        sd = importlib.import_module("comfy.sd")
        detect = detection.detect_unet_config
        with mock.patch.object(detection, "detect_unet_config", lambda *a, **k: detect(*a, **k) | CORE_SIZES):
            if version == "v1.5" and not hasattr(sys.modules["comfy.ldm.pixeldit.pid"].PidNet, "_pre_pixel_blocks"):
                return None
            patcher = sd.load_diffusion_model_state_dict(tiny_state_dict(family, version))
        assert type(patcher.model).__name__ == "PiD"
        return patcher

    def decode(self, patcher, latent, *, node_id=None, **inputs):
        """PiD Decode's images, [B, H, W, 3]. latent: a tensor, or a LATENT. node_id: as which node of a graph."""
        node = self.nodes.PiDKitDecode
        if node_id is not None:
            node = type("Node", (node,), {"hidden": SimpleNamespace(unique_id=node_id, dynprompt=None)})
        batch = latent if isinstance(latent, dict) else {"samples": latent}
        with torch.inference_mode():
            return node.execute(patcher, batch, **{"degrade_sigma": 0.0, "steps": 4, "seed": SEED} | inputs).args[0]

    def conditioning(self, patcher, latent, sigma=0.0, *, positive=None, negative=None):
        node = self.nodes.PiDKitConditioning
        out = node.execute(
            latent={"samples": latent},
            latent_format="auto",
            degrade_sigma=sigma,
            latent_noise="keep",
            noise_seed=0,
            positive=positive,
            negative=negative,
            model=patcher,
        )
        return out.args

    def sample(
        self,
        patcher,
        positive,
        negative,
        canvas,
        *,
        cfg=1.0,
        steps=4,
        sampler="lcm",
        scheduler="simple",
        **kw,
    ):
        pixels = canvas["samples"]
        noise = self.sample_module.prepare_noise(pixels, SEED)
        with torch.inference_mode():
            return self.sample_module.sample(
                patcher,
                noise,
                steps,
                cfg,
                sampler,
                scheduler,
                positive,
                negative,
                pixels,
                seed=SEED,
                disable_pbar=True,
                **kw,
            )


def by_core(net, lq, sigma=0.0, caption=None, steps=4, *, seed=SEED, size=None, **options):
    """The decode of `sample` and PiD Decode without ComfyUI, with ComfyUI's noise: [B, 3, H, W]."""
    shape = (lq.shape[0], 3, *(size or net.config.output_size(*lq.shape[-2:])))
    noise = {"noise": comfy_noise(shape, seed), "step_noise": comfy_step_noise(shape, seed, steps - 1)}
    return decode(net, lq, caption, sigma, steps=steps, size=size, **noise, **options)


def lq_of(conditioning):
    return conditioning[0][1]["lq_latent"]


def inside_or_skip(models: Path) -> Inside:
    """For fixtures: skips the test where ComfyUI cannot be imported, and fails it in CI. models: a folder for them."""
    try:
        return Inside(models)
    except (FileNotFoundError, ImportError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"ComfyUI cannot be imported: {error}")
        pytest.skip(f"NOT TESTED inside ComfyUI: {error}")
