"""PiDKitModel: a PiD checkpoint as a ComfyUI MODEL."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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

from ...pid_core import PiDConfig, read_checkpoint
from ...pid_core.checkpoints.reading import CAPTION_KEY, CONFIG_KEY, Checkpoint, config_tensor
from ...pid_core.errors import WrongCaptionError
from ...pid_core.latents.checks import wrong_channels
from ...pid_core.latents.mirror import extend
from ...pid_core.log import log
from ...pid_core.model.devices import without_float64
from ...pid_core.model.guard import PROJECTOR, finite_or_repeat, taken_for_granted
from ...pid_core.model.lq import sigma_of_patches
from ...pid_core.model.modulation import Level, Modulations
from ...pid_core.printable import printable
from ...pid_core.tensor_files import Stamp
from ...pid_core.windows.memory import MemoryModel
from ...pid_core.windows.run import crop_features, crop_sigma
from .canvases import canvases
from .comfy_internals import dtype_as_built, runs_quantised
from .compiled import OFF, around_call, compile_network
from .latent_windows import CONDLatent, Latents
from .network import ComfyPiDNetwork, weights_changed
from .picture_size import CANVAS_KEY
from .progress import KEY as PROGRESS_KEY
from .progress import current_run, show_frame, watched
from .quantised import QUANT_CONFIG, check_formats, dequantise
from .remedies import explain, explained
from .sampling import outer_sample, predict_noise, sampling_for
from .window_memory import call_memory, run_memory

KEY = "pidkit"
SUPPORTED_DTYPES = [torch.bfloat16, torch.float32]
# Files up to this many bytes are read into memory at once: what becomes of them on the disk is then all the same.
SMALL_FILE = 256_000_000
# Networks up to this many parameters gain nothing from a shorter dtype.
SMALL = 50_000_000


class PiDModelConfig(comfy.supported_models_base.BASE):
    """What ComfyUI wants to know of a model before it exists."""

    unet_extra_config: dict = {}
    latent_format = comfy.latent_formats.PixelDiTPixel
    supported_inference_dtypes = SUPPORTED_DTYPES

    def __init__(self, config: PiDConfig):
        super().__init__({"config": config})


class PiDKitModel(BaseModel):
    """Runs a PiD network on pixel canvases [B, 3, H, W].

    Takes `lq_latent` [B or 1, C, h, w] (normalised) and `degrade_sigma` [B or 1], or a map [B or 1, 1, h, w], from the
    conditioning, the keys that ComfyUI's own PiDConditioning writes. The noisy image, the timestep and degrade_sigma
    stay float32 whatever the inference dtype is: rounded to bfloat16, 0.866 would be another noise level.
    """

    def __init__(self, model_config: PiDModelConfig, default_caption: Tensor | None):
        super().__init__(model_config, ModelType.FLOW, unet_model=ComfyPiDNetwork)
        self.config: PiDConfig = model_config.unet_config["config"]
        self.model_sampling = sampling_for(self.config)
        self.default_caption = default_caption
        self.file: MappedFile | None = None  # None: all weights are in memory
        self.unpacked = 0  # quantised layers of the file that ComfyUI cannot run so
        self._modulations: tuple[Tensor | None, Modulations] | None = None  # of the run with these sigmas
        self._latents: list[tuple[Tensor, Tensor]] = []  # as it came, and as it goes through the run
        self._trunk: list[tuple] = []  # (latent, what else they depend on, features) of the projector's last runs
        self._is_one_run = False
        self._had_hooks = False
        self.run_memory: MemoryModel | None = None  # of the run that is being loaded

    def extra_conds(self, **kwargs) -> dict:
        images, device = kwargs["noise"].shape[0], kwargs.get("device")  # where all is moved here, once for the run
        out = super().extra_conds(**kwargs)
        caption = self._caption(kwargs.get("cross_attn"))
        if caption is not None:
            _check_count("the caption", caption.shape[0], images)
            # CONDCrossAttn would repeat a shorter caption's tokens, and the network counts tokens
            out["c_crossattn"] = comfy.conds.CONDRegular(without_float64(caption).to(device))
        lq_latent = kwargs.get("lq_latent")
        if lq_latent is not None and not self.config.has_latent:
            raise ValueError(
                "the conditioning carries a latent, but this checkpoint is PixelDiT, which draws from text alone: "
                "load a PiD checkpoint to decode the latent, or connect the text without PiD Latent Conditioning"
            )
        if lq_latent is not None:
            size = kwargs.get(CANVAS_KEY)
            check_canvas(self.config, lq_latent, kwargs["noise"].shape, size)
            _check_count("the latent in the conditioning", lq_latent.shape[0], images)
            out["lq_latent"] = CONDLatent(self._one_of(lq_latent, device))
            out["degrade_sigma"] = _sigma_cond(kwargs.get("degrade_sigma", 0.0), lq_latent, images, device)
            if size is not None:
                out[CANVAS_KEY] = comfy.conds.CONDConstant(tuple(size))
        return out

    def _one_of(self, latent: Tensor, device: torch.device | None) -> Tensor:
        """The latent on the device; the same tensor for all that are equal."""
        for source, on_device in self._latents:
            if source.device == latent.device and torch.equal(source, latent):
                return on_device
        self._latents = [*self._latents[-3:], (latent, without_float64(latent).to(device))]
        return self._latents[-1][1]

    def _caption(self, caption: Tensor | None) -> Tensor | None:
        default = self.default_caption
        if default is None or (caption is not None and caption.shape[-1] == self.config.caption_width):
            return caption
        if caption is not None:
            log.info(
                "the text is %d wide, this checkpoint takes %d; its own caption is used instead",
                caption.shape[-1],
                self.config.caption_width,
            )
        return default

    def _apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
        lq, degrade_sigma = kwargs.pop("lq_latent", None), kwargs.pop("degrade_sigma", None)
        lq = Latents((lq,)) if isinstance(lq, Tensor) else lq
        size = kwargs.pop(CANVAS_KEY, None)
        self._check_call(lq, c_crossattn)
        hooked = self._begin_call()
        net = self.diffusion_model
        levels = self._levels(t)
        options = transformer_options or {}
        context = c_crossattn.to(x.device)
        network_in = self.model_sampling.calculate_input(t, x)
        if lq is not None:
            if lq.windows is None:
                check_canvas(self.config, lq.latents[0], x.shape, size)
                network_in = extend(network_in, *self.config.output_size(*lq.latents[0].shape[-2:]))
            kwargs["lq_features"] = self._features(lq, network_in, t)
            kwargs["degrade_sigma"] = self._sigmas(degrade_sigma, network_in)

        progress = current_run()
        # a hook may change weights between two calls of a run
        kwargs["level"] = None if hooked else self._level(levels, t.dtype, options.get("sample_sigmas"))
        if progress is not None:
            kwargs["on_part"] = progress.in_call(network_in.shape)

        def run() -> Tensor:
            return net(
                network_in,
                self.model_sampling.timestep(t).float(),
                context=context,
                transformer_options=options,
                **kwargs,
            )

        with around_call(self):
            try:
                out = finite_or_repeat(net, run, lambda: _step(levels[0], options), image=x, caption=context)
            except WrongCaptionError as error:
                raise explained(error) from None
        out = out[..., : x.shape[-2], : x.shape[-1]]
        if self.config.prediction == "x0":
            return out
        return self.model_sampling.calculate_denoised(t, out, x)

    def _check_call(self, lq: Latents | None, text: Tensor | None) -> None:
        if lq is None and self.config.has_latent:
            raise ValueError(
                "a conditioning without a latent reached the PiD model: pass positive and, with cfg above 1, "
                "negative through PiD Latent Conditioning"
            )
        if text is None:
            raise ValueError(
                "a conditioning without text reached the PiD model, and its checkpoint has no caption: connect PiD "
                "Caption to positive"
            )
        if self.file is not None:
            self.file.check()

    def _begin_call(self) -> bool:
        """Bring the network to what ComfyUI says of it by now. Returns whether hooks change its weights."""
        net, dtype = self.diffusion_model, self.get_dtype_inference()
        if net.compute_dtype != dtype:
            net.compute_dtype = dtype
        hooked = self.current_patcher is not None and self.current_patcher.current_hooks is not None
        if hooked or self._had_hooks:
            weights_changed()  # a hook may do it between two calls, and its going does
        self._had_hooks = hooked
        return hooked

    def _levels(self, t: Tensor) -> list[float]:
        """The noise levels t [B] of a call's images.

        To read them would be to wait for the GPU: they are taken for those of the run's present step, which is checked
        with the call's result.
        """
        run = current_run()
        level = None if run is None else run.level
        if level is not None and taken_for_granted(t == level):
            return [level] * len(t)
        levels = t.cpu().tolist()
        if run is not None and level is not None and any(value != level for value in levels):
            run.lose_count()
        return levels

    def _level(self, levels: list[float], dtype: torch.dtype, sigmas: Tensor | None) -> Level | None:
        """Where a call at these noise levels, one per image, is in its run of sigmas; None where they differ."""
        if len(set(levels)) > 1:
            return None
        if self._modulations is None or self._modulations[0] is not sigmas:
            run = [] if sigmas is None else self.model_sampling.timestep(sigmas[:-1]).float().cpu().tolist()
            self._modulations = sigmas, Modulations(run)
        timestep = self.model_sampling.timestep(torch.tensor(levels[0], dtype=dtype)).float()
        return self._modulations[1].at(float(timestep))

    def _features(self, lq: Latents, x: Tensor, t: Tensor) -> Tensor:
        """The projector's features for the images x [B, 3, H, W] at time t: [B, tokens, C]."""
        size = tuple(x.shape[-2:]) if lq.size is None else lq.size
        images = x.shape[0] // (len(lq.latents) * len(lq.windows or (None,)))
        parts = [self._encode_lq(latent, size, x.device, t).expand(images, -1, -1) for latent in lq.latents]
        if lq.windows is not None:
            parts = [crop_features(part, lq.windows, size, self.config.patch_size) for part in parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _sigmas(self, sigma: Tensor | Latents, x: Tensor) -> Tensor:
        """degrade_sigma for the images x [B, 3, H, W]: [B], of maps one for each patch, [B, tokens]."""
        if isinstance(sigma, Tensor):
            return sigma.to(x.device, torch.float32)
        size, patch = tuple(x.shape[-2:]) if sigma.size is None else sigma.size, self.config.patch_size
        images = x.shape[0] // (len(sigma.latents) * len(sigma.windows or (None,)))
        parts = [
            sigma_of_patches(each.to(x.device, torch.float32), size[0] // patch, size[1] // patch).expand(images, -1)
            for each in sigma.latents
        ]
        return torch.cat(parts if sigma.windows is None else [crop_sigma(p, sigma.windows, size, patch) for p in parts])

    def _encode_lq(self, lq_latent: Tensor, size: Sequence[int], device: torch.device, t: Tensor) -> Tensor:
        """The projector's features; those of an earlier call where nothing they depend on has changed."""
        patcher = self.current_patcher
        hooks = None if patcher is None else patcher.current_hooks
        # a hook may change the projector's weights between two steps
        key = (*size, device, *(() if hooks is None else (hooks, float(t.flatten()[0]))))
        for latent, old_key, features in self._trunk:
            if latent is lq_latent and key == old_key:
                return features
        # two, so that positive and negative may have latents of their own
        self._trunk = self._trunk[-1:]
        net, progress = self.diffusion_model, current_run()
        on_part = None if progress is None else progress.in_trunk()
        latent = lq_latent.to(device, torch.float32)
        features = finite_or_repeat(
            net, lambda: net.encode_lq(latent, *size, on_part), lambda: PROJECTOR, at_once=True, latent=latent
        )
        self._trunk.append((lq_latent, key, features))
        return features

    def memory_required(self, input_shape, cond_shapes=None) -> float:
        """Bytes above the weights for one network call on images [B, 3, H, W], with what is held beside it."""
        images, _, height, width = input_shape
        memory = self.run_memory or call_memory(self, self.current_patcher)
        return memory.needed(images, height, width, self.diffusion_model.driver.pixel_cache)

    def state_dict_for_saving(self, *args, **kwargs) -> dict:
        """What ComfyUI's Save Model writes: with the configuration and caption, which else would be lost."""
        tensors = super().state_dict_for_saving(*args, **kwargs)
        tensors[CONFIG_KEY] = config_tensor(self.config)
        if self.default_caption is not None:
            tensors[CAPTION_KEY] = self.default_caption[0]
        return tensors

    def begin_run(self) -> None:
        if not self._is_one_run:
            self.forget_run()
            self.diffusion_model.repeated.clear()
            weights_changed()

    def end_run(self) -> None:
        self.forget_run()
        self.diffusion_model.driver.pixel_cache = None

    def forget_run(self) -> None:
        if not self._is_one_run:
            self._trunk, self._latents, self._modulations = [], [], None

    @contextlib.contextmanager
    def as_one_run(self):
        """Makes one run of several: features that fit again are not worked out again. Patches must stay the same."""
        self.begin_run()
        self._is_one_run = True
        try:
            yield
        finally:
            self._is_one_run = False
            self.forget_run()

    def resize_cond_for_context_window(self, cond_key, cond_value, window, x_in, device, retain_index_list=()):
        """Cut the latent, and a map of degrade_sigma, to a context window's part of the canvas."""
        of_cells = cond_key in ("lq_latent", "degrade_sigma") and cond_value.cond.ndim == 4
        if not of_cells or window.dim not in (2, 3):
            return None
        cell = self.config.latent_cell
        cells = sorted({i // cell for i in window.index_list if i // cell < cond_value.cond.shape[window.dim]})
        index = torch.tensor(cells, device=cond_value.cond.device)
        part = cond_value.cond.index_select(window.dim, index)
        # the projector runs once for each of them, and knows a latent by its tensor
        return cond_value._copy_with(self._one_of(part, device) if cond_key == "lq_latent" else part.to(device))


def _sigma_cond(sigma, lq_latent: Tensor, images: int, device: torch.device | None) -> comfy.conds.CONDRegular:
    """degrade_sigma in a conditioning: a number, one per image, or a map of the latent's cells."""
    sigma = torch.as_tensor(sigma, dtype=torch.float32)
    if sigma.ndim != 4:
        sigma = sigma.reshape(-1)
        _check_count("degrade_sigma", sigma.shape[0], images)
        return comfy.conds.CONDRegular(sigma.to(device))
    if sigma.shape[1:] != (1, *lq_latent.shape[-2:]):
        raise ValueError(
            f"the map of degrade_sigma has {sigma.shape[-1]} x {sigma.shape[-2]} cells, the latent in the conditioning "
            f"{lq_latent.shape[-1]} x {lq_latent.shape[-2]}: make both with one PiD Latent Conditioning"
        )
    _check_count("the map of degrade_sigma", sigma.shape[0], images)
    return CONDLatent(sigma.to(device))


def check_canvas(
    config: PiDConfig, lq_latent: Tensor, shape: Sequence[int], size: tuple[int, int] | None = None
) -> None:
    """Raise ValueError in one line where the latent is not this checkpoint's, or a canvas [B, 3, H, W] not its size.

    size: (height, width) of a canvas for the picture alone, without what the latent was padded with.
    """
    if lq_latent.ndim != 4 or lq_latent.shape[1] != config.latent_channels:
        raise ValueError(
            f"in the conditioning {explain(wrong_channels(lq_latent.shape[1], config.latent_channels))}"
            if lq_latent.ndim == 4
            else f"the latent in the conditioning must have shape [B, C, h, w], got {list(lq_latent.shape)}: connect "
            "an image latent"
        )
    height, width = whole = config.output_size(*lq_latent.shape[-2:])
    if size is not None and all(0 <= a - b < config.latent_cell for a, b in zip(whole, size, strict=True)):
        height, width = size
    if tuple(shape[-2:]) not in ((height, width), whole):
        raise ValueError(
            f"the canvas is {shape[-1]} x {shape[-2]} pixels, but the latent decodes to "
            f"{width} x {height}: use the canvas that PiD Latent Conditioning gives, or one of that size"
        )


def plan_memory(executor, patcher, noise_shape, *args, **kwargs):
    """Wrapper around the loading of the model for a run: what the run needs beside its network calls is counted too."""
    base: PiDKitModel = patcher.model
    if base.file is not None:
        base.file.check()
    if len(noise_shape) != 4:
        raise ValueError(f"the canvas has shape {list(noise_shape)}: use the one that PiD Latent Conditioning gives")
    run, windowed = current_run(), "context_handler" in kwargs.get("model_options", {})
    canvas_count = canvases(None, 1, windowed) if run is None else run.canvases(windowed)
    base.run_memory = memory = run_memory(patcher, noise_shape, canvas_count)
    try:
        if not windowed:
            height, width = noise_shape[2:]
            base.diffusion_model.driver.pixel_cache = pixel_cache = memory.fitting_cache(height, width)
            show_frame(memory, height, width, pixel_cache)
        return executor(patcher, noise_shape, *args, **kwargs)
    finally:
        base.run_memory = None


def _step(level: float, transformer_options: dict) -> str:
    """Names a network call for messages: which step of the schedule where that can be told, and the noise level."""
    sigmas = transformer_options.get("sample_sigmas")
    levels = [] if sigmas is None else sigmas.cpu().tolist()
    step = f"step {levels.index(level) + 1} of {len(levels) - 1}, " if level in levels else ""
    return f"{step}the network at noise level {level:g}"


def _check_count(what: str, count: int, images: int) -> None:
    if count not in (1, images):
        raise ValueError(f"{what} is for {count} images, the canvas holds {images}: give one, or one per image")


def load_model(
    path: str,
    dtype: torch.dtype | None = None,
    family: str | None = None,
    schedule: str | None = None,
    compile: str = OFF,
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL from a checkpoint file. Raises ValueError or FileNotFoundError in one line if it is none.

    compile: off, blocks or whole. What is compiled has its weights on the device, so they are not streamed.
    """
    stamp = Stamp.of(path)
    mapped = not comfy.utils.DISABLE_MMAP and stamp is not None and stamp.size > SMALL_FILE
    checkpoint = read_checkpoint(path, family=family, schedule=schedule, dequantise=dequantise, mapped=mapped)
    patcher = wrap(checkpoint, dtype, disable_dynamic or compile != OFF)
    if compile != OFF:
        compile_network(patcher, compile)
    if mapped and stamp is not None:
        patcher.model.file = MappedFile(path, stamp)
    patcher.cached_patcher_init = (load_model, (path, dtype, family, schedule, compile))
    return patcher


class MappedFile(NamedTuple):
    """The file that weights are read from while they are used. Reading where it was cut short ends the process."""

    path: str
    stamp: Stamp

    def check(self) -> None:
        """Raise ValueError in one line where the file is no longer the one that was loaded."""
        if Stamp.of(self.path) != self.stamp:
            raise ValueError(
                f"{printable(Path(self.path).name)} was changed or removed since it was loaded, and its weights are "
                "read while they are used: run again once the file is whole; if it is not loaded anew then, free "
                "ComfyUI's model and node cache"
            )


def wrap(
    checkpoint: Checkpoint, dtype: torch.dtype | None = None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """Build the model around a checkpoint's tensors.

    dtype None: what ComfyUI picks for device and size, and quantised weights stay so; else every weight becomes it.
    """
    management = comfy.model_management
    weights, quantised = checkpoint.state_dict, checkpoint.quantised
    check_formats(quantised)
    if dtype is not None:
        for layer in list(quantised):
            weights[f"{layer}.weight"] = dequantise(weights[f"{layer}.weight"], quantised.pop(layer)).to(dtype)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    model_config = PiDModelConfig(checkpoint.config)
    model_config.quant_config = QUANT_CONFIG if quantised else None
    dtype = dtype or _pick_dtype(weights, quantised=bool(quantised))
    manual_cast = management.unet_manual_cast(None if quantised else dtype, load_device, SUPPORTED_DTYPES)
    model_config.set_inference_dtype(dtype, manual_cast)
    caption = checkpoint.default_caption
    model = PiDKitModel(model_config, None if caption is None else caption.float())
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    network = model.diffusion_model
    for layer in list(quantised):
        if not runs_quantised(network.get_submodule(layer)):
            model.unpacked += 1
            weights[f"{layer}.weight"] = dequantise(weights[f"{layer}.weight"], quantised.pop(layer))
    # the dynamic patcher converts on the way to the device; elsewhere it is done now, one tensor at a time
    for name in [] if patcher.is_dynamic() else list(weights):
        path, _, leaf = name.rpartition(".")
        built = dtype_as_built(network.get_submodule(path), leaf)
        weights[name] = weights[name].to(built or weights[name].dtype)
    weights |= {f"{layer}.{leaf}": tensor for layer, side in quantised.items() for leaf, tensor in side.items()}
    # names were checked when the file was read; a quantised layer may not ask for all that the file says of it
    try:
        network.load_state_dict(weights, strict=not quantised, assign=True)
    except Exception as error:
        if not quantised:
            raise
        reason = printable(" ".join(str(error).split()), 200)
        raise ValueError(f"ComfyUI cannot take the file's quantised weights ({reason}): use the bf16 file") from None
    network.requires_grad_(False)
    weights.clear()
    if not management.is_device_cpu(offload_device):
        model.to(offload_device)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, PROGRESS_KEY, watched)
    patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise)
    patcher.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, plan_memory)
    patcher.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, lambda p: p.model.begin_run())
    patcher.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, lambda p: p.model.end_run())
    return patcher


def _pick_dtype(weights: dict[str, Tensor], quantised: bool = False) -> torch.dtype:
    parameters = comfy.utils.calculate_parameters(weights)
    if parameters <= SMALL:
        return torch.float32
    return comfy.model_management.unet_dtype(
        model_params=parameters,
        supported_dtypes=SUPPORTED_DTYPES,
        weight_dtype=None if quantised else comfy.utils.weight_dtype(weights),
    )
