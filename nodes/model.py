"""PiDKitModel: a PiD checkpoint as a ComfyUI MODEL."""

from __future__ import annotations

import logging

import comfy.conds
import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.model_base import BaseModel, ModelType
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from ..pid_core import PiDConfig, read_checkpoint
from ..pid_core.checkpoint import CAPTION_KEY, CONFIG_KEY, Checkpoint, config_tensor
from .network import ComfyPiDNetwork
from .sampling import outer_sample, sampling_for

KEY = "pidkit"
SUPPORTED_DTYPES = [torch.bfloat16, torch.float32]
# Networks up to this many parameters gain nothing from a shorter dtype.
SMALL = 50_000_000


class PiDModelConfig(comfy.supported_models_base.BASE):
    """What ComfyUI wants to know of a model before it exists."""

    unet_extra_config = {}
    latent_format = comfy.latent_formats.PixelDiTPixel
    supported_inference_dtypes = SUPPORTED_DTYPES

    def __init__(self, config: PiDConfig):
        super().__init__({"config": config})
        # ComfyUI's own figure for the released sizes is 0.04; the pixel stream takes most of it.
        per_pixel = max(config.pixel_hidden_size / 16, config.hidden_size / 1536 * (16 / config.patch_size) ** 2)
        self.memory_usage_factor = 0.04 * per_pixel


class PiDKitModel(BaseModel):
    """Runs a PiD network on pixel canvases [B, 3, H, W].

    Takes `lq_latent` [B or 1, C, h, w] (normalised) and `degrade_sigma` [B or 1] from the conditioning, the
    keys that ComfyUI's own PiDConditioning writes. The noisy image, the timestep and degrade_sigma stay
    float32 whatever the inference dtype is: rounded to bfloat16, 0.866 would be another noise level.
    """

    def __init__(self, model_config: PiDModelConfig, default_caption: Tensor | None):
        super().__init__(model_config, ModelType.FLOW, unet_model=ComfyPiDNetwork)
        self.config: PiDConfig = model_config.unet_config["config"]
        self.model_sampling = sampling_for(self.config)
        self.default_caption = default_caption
        self._lq = None  # (latent, canvas size, features) of the projector's last run

    def extra_conds(self, **kwargs) -> dict:
        images = kwargs["noise"].shape[0]
        out = super().extra_conds(**kwargs)
        caption = self._caption(kwargs.get("cross_attn"))
        if caption is not None:
            _check_count("the caption", caption.shape[0], images)
            # CONDCrossAttn would repeat a shorter caption's tokens, and the network counts tokens
            out["c_crossattn"] = comfy.conds.CONDRegular(caption)
        lq_latent = kwargs.get("lq_latent")
        if lq_latent is not None and not self.config.has_latent:
            raise ValueError(
                "the conditioning carries a latent, but this checkpoint is PixelDiT, which draws from text alone: "
                "load a PiD checkpoint to decode the latent, or connect the text without PiD Conditioning"
            )
        if lq_latent is not None:
            self._check_canvas(lq_latent, kwargs["noise"])
            _check_count("the latent in the conditioning", lq_latent.shape[0], images)
            sigma = torch.as_tensor(kwargs.get("degrade_sigma", 0.0), dtype=torch.float32).reshape(-1)
            _check_count("degrade_sigma", sigma.shape[0], images)
            out["lq_latent"] = comfy.conds.CONDRegular(lq_latent)
            out["degrade_sigma"] = comfy.conds.CONDRegular(sigma)
        return out

    def _caption(self, caption: Tensor | None) -> Tensor | None:
        default = self.default_caption
        if default is None or (caption is not None and caption.shape[-1] == self.config.caption_width):
            return caption
        if caption is not None:
            logging.info(
                f"PiD: the text is {caption.shape[-1]} wide, this checkpoint takes "
                f"{self.config.caption_width}; its own caption is used instead"
            )
        return default

    def _check_canvas(self, lq_latent: Tensor, canvas: Tensor) -> None:
        config = self.config
        if lq_latent.ndim != 4 or lq_latent.shape[1] != config.latent_channels:
            raise ValueError(
                f"the latent in the conditioning has shape {list(lq_latent.shape)}; this checkpoint needs "
                f"[B, {config.latent_channels}, h, w]: use the VAE it was made for"
            )
        height, width = config.output_size(*lq_latent.shape[-2:])
        if tuple(canvas.shape[-2:]) != (height, width):
            raise ValueError(
                f"the canvas is {canvas.shape[-1]} x {canvas.shape[-2]} pixels, but the latent decodes to "
                f"{width} x {height}: use the canvas that PiD Conditioning gives, or one of that size"
            )

    def _apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
        lq_latent, degrade_sigma = kwargs.pop("lq_latent", None), kwargs.pop("degrade_sigma", None)
        if lq_latent is None and self.config.has_latent:
            raise ValueError(
                "a conditioning without a latent reached the PiD model: pass positive and, with cfg above 1, "
                "negative through PiD Conditioning"
            )
        if c_crossattn is None:
            raise ValueError("a conditioning without text reached the PiD model, and its checkpoint has no caption")
        net = self.diffusion_model
        if net.compute_dtype != self.get_dtype_inference():
            net.compute_dtype = self.get_dtype_inference()
        if lq_latent is not None:
            self._check_canvas(lq_latent, x)
            kwargs["lq_features"] = self._encode_lq(lq_latent.to(x.device, torch.float32), x)
            kwargs["degrade_sigma"] = degrade_sigma.to(x.device, torch.float32)
        out = net(
            self.model_sampling.calculate_input(t, x),
            self.model_sampling.timestep(t).float(),
            context=c_crossattn.to(x.device),
            transformer_options=transformer_options or {},
            **kwargs,
        )
        if self.config.prediction == "x0":
            return out
        return self.model_sampling.calculate_denoised(t, out, x)

    def _encode_lq(self, lq_latent: Tensor, x: Tensor) -> Tensor:
        """The projector's features; those of the last call where latent and canvas are the same as then."""
        size, patcher = x.shape[-2:], self.current_patcher
        if patcher is not None and patcher.current_hooks is not None:
            # a hook may change the projector's weights between two steps
            return self.diffusion_model.encode_lq(lq_latent, *size)
        if self._lq is not None:
            latent, old_size, features = self._lq
            if size == old_size and latent.device == x.device and torch.equal(latent, lq_latent):
                return features
        self._lq = None
        features = self.diffusion_model.encode_lq(lq_latent, *size)
        self._lq = (lq_latent, size, features)
        return features

    def state_dict_for_saving(self, *args, **kwargs) -> dict:
        """What ComfyUI's Save Model writes: with the configuration and caption, which else would be lost."""
        tensors = super().state_dict_for_saving(*args, **kwargs)
        tensors[CONFIG_KEY] = config_tensor(self.config)
        if self.default_caption is not None:
            tensors[CAPTION_KEY] = self.default_caption[0]
        return tensors

    def forget_lq(self) -> None:
        self._lq = None

    def resize_cond_for_context_window(self, cond_key, cond_value, window, x_in, device, retain_index_list=()):
        """Cut the latent to a context window's part of the canvas."""
        if cond_key != "lq_latent" or window.dim not in (2, 3):
            return None
        cell = self.config.latent_cell
        cells = sorted({i // cell for i in window.index_list if i // cell < cond_value.cond.shape[window.dim]})
        index = torch.tensor(cells, device=cond_value.cond.device)
        return cond_value._copy_with(cond_value.cond.index_select(window.dim, index).to(device))


def _check_count(what: str, count: int, images: int) -> None:
    if count not in (1, images):
        raise ValueError(f"{what} is for {count} images, the canvas holds {images}: give one, or one per image")


def load_model(
    path: str,
    dtype: torch.dtype | None = None,
    family: str | None = None,
    schedule: str | None = None,
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL from a checkpoint file. Raises ValueError or FileNotFoundError in one line if it is none."""
    patcher = wrap(read_checkpoint(path, family=family, schedule=schedule), dtype, disable_dynamic)
    patcher.cached_patcher_init = (load_model, (path, dtype, family, schedule))
    return patcher


def wrap(
    checkpoint: Checkpoint, dtype: torch.dtype | None = None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """Build the model around a checkpoint's tensors. dtype None: what ComfyUI picks for device and size."""
    management = comfy.model_management
    weights = checkpoint.state_dict
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    model_config = PiDModelConfig(checkpoint.config)
    dtype = dtype or _pick_dtype(weights)
    manual_cast = management.unet_manual_cast(dtype, load_device, SUPPORTED_DTYPES)
    model_config.set_inference_dtype(dtype, manual_cast)
    caption = checkpoint.default_caption
    model = PiDKitModel(model_config, None if caption is None else caption.float())
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    network = model.diffusion_model
    # the dynamic patcher converts on the way to the device; elsewhere it is done now, one tensor at a time
    for name in [] if patcher.is_dynamic() else list(weights):
        weights[name] = weights[name].to(_own_dtype(network, name))
    network.load_state_dict(weights, strict=True, assign=True)
    network.requires_grad_(False)
    weights.clear()
    if not management.is_device_cpu(offload_device):
        model.to(offload_device)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    for moment in (CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_CLEANUP):
        patcher.add_callback_with_key(moment, KEY, lambda p: p.model.forget_lq())
    return patcher


def _own_dtype(network: torch.nn.Module, name: str) -> torch.dtype:
    """The dtype this parameter was built with: some layers stay float32 in every dtype of the network."""
    path, _, leaf = name.rpartition(".")
    module = network.get_submodule(path)
    # ComfyUI keeps it beside the parameter, which its lazy layers do not have yet
    return getattr(module, f"{leaf}_comfy_model_dtype", None) or getattr(module, leaf).dtype


def _pick_dtype(weights: dict[str, Tensor]) -> torch.dtype:
    parameters = comfy.utils.calculate_parameters(weights)
    if parameters <= SMALL:
        return torch.float32
    return comfy.model_management.unet_dtype(
        model_params=parameters,
        supported_dtypes=SUPPORTED_DTYPES,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
