"""Nodes that stand in for models too large for a test. The test server loads this folder as a pack."""

import threading

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch


class TestText:
    """Random text of any width, as a text encoder would give it."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"width": ("INT",)}, "optional": {k: ("INT",) for k in ("tokens", "pooled", "seed")}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "run"
    CATEGORY = "tests"

    def run(self, width, tokens=5, pooled=8, seed=0):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, tokens, width, generator=generator)
        return ([[text, {"pooled_output": torch.randn(1, pooled, generator=generator)}]],)


# ComfyUI's model class, its ModelType, and its network's sizes: small, or none, and then it predicts a clean zero.
SKELETON = {"disable_unet_model_creation": True, "hidden_size": 3072}
GENERATORS = {
    "sdxl": (
        comfy.supported_models.SDXL,
        "EPS",
        {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": 64,
            "num_res_blocks": [1, 1],
            "channel_mult": [1, 2],
            "transformer_depth": [0, 1],
            "transformer_depth_middle": 1,
            "transformer_depth_output": [1, 1, 0, 0],
            "context_dim": 16,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": True,
            "num_classes": "sequential",
            "adm_in_channels": 2816,
            "use_temporal_attention": False,
            "legacy": False,
        },
    ),
    "zimage": (
        comfy.supported_models.ZImage,
        "FLOW",
        {
            "image_model": "lumina2",
            "patch_size": 2,
            "in_channels": 16,
            "dim": 256,
            "n_layers": 1,
            "n_refiner_layers": 1,
            "n_heads": 8,
            "n_kv_heads": 8,
            "qk_norm": True,
            "cap_feat_dim": 16,
            "axes_dims": [8, 12, 12],
            "axes_lens": [64, 64, 64],
            "rope_theta": 256.0,
            "time_scale": 1000.0,
            "z_image_modulation": True,
            "pad_tokens_multiple": 32,
            "ffn_dim_multiplier": 8 / 3,
        },
    ),
    "sd3": (comfy.supported_models.SD3, "FLOW", SKELETON),
    "flux2": (comfy.supported_models.Flux2, "FLUX", SKELETON),
    "qwenimage": (comfy.supported_models.QwenImage, "FLOW", SKELETON),
}


class TestGenerator:
    """A generator's MODEL with its own latents and noise levels."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"kind": (list(GENERATORS),)}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"
    CATEGORY = "tests"

    def run(self, kind):
        config_class, model_type, sizes = GENERATORS[kind]
        config = config_class(dict(sizes))
        config.set_inference_dtype(torch.float32, None)
        device = comfy.model_management.get_torch_device()
        if sizes is SKELETON:
            model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType[model_type])
            model.diffusion_model = torch.nn.Linear(1, 1)
            model.diffusion_model.dtype = torch.float32
        else:
            model = config.get_model({}, device=device)
            fill(model.diffusion_model)
        patcher = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)
        if sizes is SKELETON:
            patcher.set_model_unet_function_wrapper(lambda _, args: torch.zeros_like(args["input"]))
        return (patcher,)


def fill(network):
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        value = value / value[0].numel() ** 0.5 if value.ndim > 1 else 0.1 * value
        parameter.data = value + 1 if value.ndim == 1 and name.endswith("weight") else value


class TestEncode:
    """A FLUX.1 latent of a picture, without its VAE."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"pixels": ("IMAGE",)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "run"
    CATEGORY = "tests"

    def run(self, pixels):
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        return ({"samples": small.repeat(1, 6, 1, 1)[:, :16]},)


class TestVAE:
    """A VAE for latents of 16 channels: its decoder's first layer is all there is."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    RETURN_TYPES = ("VAE",)
    FUNCTION = "run"
    CATEGORY = "tests"

    def run(self):
        return (self,)

    def decode(self, samples):
        return torch.nn.Conv2d(16, 3, 1)(samples).movedim(1, -1)


class TestEndless:
    """A picture that is worked on until the run is interrupted."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "tests"

    def run(self, image):
        while True:
            comfy.model_management.throw_exception_if_processing_interrupted()
            threading.Event().wait(0.01)  # leaves the processor to what interrupts


STAND_INS = (TestText, TestGenerator, TestEncode, TestVAE, TestEndless)
NODE_CLASS_MAPPINGS = {stand_in.__name__: stand_in for stand_in in STAND_INS}
