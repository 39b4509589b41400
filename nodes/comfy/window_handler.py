"""WindowHandler: runs a PiD model window by window inside any of ComfyUI's samplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import comfy.conds
import comfy.model_management
from comfy.context_windows import ContextHandlerABC
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...pid_core.latents.mirror import extend
from ...pid_core.log import log
from ...pid_core.model.cost import forward_flops
from ...pid_core.windows.memory import MemoryModel
from ...pid_core.windows.plan import (
    OVERLAP,
    SMALLEST,
    NoPlanError,
    TooLittleMemoryError,
    Window,
    WindowPlan,
    plan_flops,
    plan_price,
    plan_windows,
)
from ...pid_core.windows.regions import region_of
from ...pid_core.windows.run import WindowRun, crop
from . import progress
from .latent_windows import CONDLatent
from .model import PiDKitModel, check_canvas
from .node_text import send_text
from .picture_size import CANVAS_KEY
from .pid_models import config_of, with_checks
from .regions import RegionalCaption
from .status import Status
from .student import nothing_like
from .window_memory import memory_of

KEY = "pidkit_windows"
INSIDE = "pidkit_inside"  # in a model's options: the canvas's pixels that are drawn, bool [B or 1, 1, H, W]
CORNER = "pidkit_corner"  # the same: (top, left) in pixels of a canvas that is a part of a larger picture
Conds = Sequence[list[dict] | None]  # one list of conditionings for positive, one for negative


@dataclass(frozen=True)
class WindowSettings:
    """What the node is set to; lengths in pixels of the output. auto: size is chosen, not taken from here."""

    size: int = 2048
    overlap: int = OVERLAP
    fuse: str = "pyramid"
    auto: bool = True


def add_windows(
    model: ModelPatcher, settings: WindowSettings, regions: Sequence[RegionalCaption], node_id: str | None
) -> tuple[ModelPatcher, WindowHandler]:
    """A clone of a PiD model that runs in windows. Raises ValueError in one line for a model that cannot."""
    if not config_of(model.model).has_latent:
        raise ValueError(
            "the model is PixelDiT, which draws from text alone: every window would be another picture: "
            "load a PiD checkpoint with PiD Loader"
        )
    other = model.model_options.get("context_handler")
    if other is not None:
        raise ValueError(
            f"the model already has context windows ({type(other).__name__}): remove the other Context Window node"
        )
    handler = WindowHandler(model, settings, regions, node_id)
    model = with_checks(model).clone()
    model.model_options["context_handler"] = handler
    model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, prepare_sampling)
    if not isinstance(model.model, PiDKitModel):  # ours has it already
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, progress.KEY, progress.watched)
    return model, handler


def prepare_sampling(executor, patcher: ModelPatcher, noise_shape, conds, *args, **kwargs):
    """Wrapper around the loading of the model for a run: plans the windows, and asks for one batch's memory."""
    handler = kwargs["model_options"].get("context_handler")
    if not isinstance(handler, WindowHandler):
        raise ValueError(
            f"another context window node ({type(handler).__name__}) comes after Context Window (PiD) and replaced it: "
            "remove one of the two"
        )
    return executor(patcher, handler.begin(patcher, noise_shape, conds), conds, *args, **kwargs)


class WindowHandler(ContextHandlerABC):
    """One node's context windows. `begin` plans a run, `execute` does one step of it.

    The canvas has one noise field, which is ComfyUI's own; the windows' x0 predictions are fused at every step.
    """

    def __init__(
        self,
        model: ModelPatcher,
        settings: WindowSettings,
        regions: Sequence[RegionalCaption] = (),
        node_id: str | None = None,
    ):
        self.config = config_of(model.model)
        self.settings, self.node_id = settings, node_id
        self._ours = isinstance(model.model, PiDKitModel)
        self._captions = tuple(regions)
        self._run: WindowRun | None = None
        self._regions: tuple[RegionalCaption, ...] = ()  # those of this run
        self._positive: set = set()  # ids of the conditionings they replace the text of
        self.status: Status | None = None  # what is shown of this run

    @property
    def in_need(self) -> bool:
        """Whether memory was so short in the last run that its windows are smaller than they ought to be."""
        return self._run is not None and (self._run.shrunk or (self.settings.auto and self._too_small(self._run.plan)))

    def _too_small(self, plan: WindowPlan) -> bool:
        least = self.config.window_min
        return any(side < min(least, whole) for side, whole in zip(plan.size, (plan.height, plan.width), strict=True))

    def memory(self, patcher: ModelPatcher, images: int) -> MemoryModel:
        """What `plan` and `describe` ask, for a run on `images` canvases."""
        return memory_of(patcher, self.config, images)

    def plan(self, memory: MemoryModel, height: int, width: int, overlap: int | None = None) -> WindowPlan:
        """The windows for canvases of height x width pixels. Raises ValueError in one line.

        overlap: instead of what the node is set to.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        settings = self.settings
        overlap = settings.overlap if overlap is None else overlap
        if not settings.auto:
            plan = plan_windows(height, width, settings.size, overlap, align=self.config.latent_cell)
            return replace(plan, pixel_cache=memory.fitting_cache(*plan.size))
        try:
            return memory.plan(height, width, overlap)
        except NoPlanError as error:
            raise TooLittleMemoryError(_too_little(memory, height, width, error)) from None

    def begin(self, patcher: ModelPatcher, shape: Sequence[int], conds: dict[str, list[dict]]) -> list[int]:
        """Plan a run on a canvas [B, 3, H, W]; returns the shape of one batch of windows, [n * B, 3, h, w]."""
        run = self._begin(patcher, shape, conds)
        return [run.window_batch * shape[0], shape[1], *run.plan.size]

    def _begin(self, patcher: ModelPatcher, shape: Sequence[int], conds: dict[str, list[dict]]) -> WindowRun:
        for cond in (cond for group in conds.values() for cond in group):
            if cond.get("lq_latent") is not None:
                check_canvas(self.config, cond["lq_latent"], shape, cond.get(CANVAS_KEY))
        images, _, *size = shape
        height, width = self._whole(*size)
        memory = self.memory(patcher, images)
        plan = self.plan(memory, height, width)
        self._positive = {cond["uuid"] for cond in conds.get("positive", ())}
        if self._ours:
            patcher.model.diffusion_model.driver.pixel_cache = plan.pixel_cache
        self._regions, notes = self._usable_regions(patcher, images, plan)
        batch = memory.batch(plan)
        self._run = started = WindowRun(
            plan,
            fuse=self.settings.fuse,
            window_batch=batch,
            say=self._out_of_memory,
            on_windows=self._tick,
            least=self.config.window_min // SMALLEST,
            free=comfy.model_management.soft_empty_cache,
            wanted=_wanted(patcher.model_options.get(INSIDE)),
        )
        run = progress.current_run()
        if run is not None:
            run.use(plan)
        status = replace(self.describe(memory, plan, batch), size=(size[0], size[1]))
        expected = None if run is None else run.expected
        status = replace(status, expected=expected, warnings=(*status.warnings, *notes))
        self._show(status)
        log.info("%s", "; ".join(status.lines()))
        work, whole = plan_flops(plan, self.config), forward_flops(self.config, height, width)
        log.debug("%s a step, %s in one frame", _flop(work), _flop(whole))
        return started

    def describe(self, memory: MemoryModel, plan: WindowPlan, batch: int | None = None) -> Status:
        """The plan in words: windows and predicted memory."""
        batch = batch or memory.batch(plan)
        size, warnings = (plan.height, plan.width), plan.notes
        details: tuple[str, ...] = ()
        if plan.count > 1:
            details = (
                f"{plan.cols} across, {plan.rows} down, overlap at least {plan.overlap} px"
                + self._half_the_overlap(memory, plan),
                f"{batch} at a time",
            )
        if self.settings.auto:  # what was rounded is news only to who chose it
            details, least = (*details, *plan.notes), self.config.window_min
            short = self._too_small(plan)
            line = f"memory is short: windows are smaller than the {least} px this checkpoint was trained on"
            warnings = (line,) if short else ()
        return Status(plan, size, memory.of_plan(plan, batch), memory.images, warnings=warnings, details=details)

    def _half_the_overlap(self, memory: MemoryModel, plan: WindowPlan) -> str:
        """What half of a plan's overlap would save, in words, where it is worth some."""
        half = plan.overlap // 2 // plan.align * plan.align
        if not half:
            return ""
        try:
            other = self.plan(memory, plan.height, plan.width, half)
        except ValueError:
            return ""
        kind = memory.device.type
        share = plan_price(other, self.config, kind) / plan_price(plan, self.config, kind)
        return f" (with {half} about {share:.1f} of the time)" if share < 0.95 else ""

    def should_use_context(self, model: BaseModel, conds: Conds, x_in: Tensor, timestep, model_options: dict) -> bool:
        return True

    def get_resized_cond(self, cond_in: list[dict], x_in: Tensor, window: Sequence[Window], device=None) -> list[dict]:
        """Conditionings of the whole canvas, cut to the windows of one batch."""
        return [self._cut(cond, list(window), x_in) for cond in cond_in]

    def execute(
        self, calc_cond_batch, model: BaseModel, conds: Conds, x_in: Tensor, timestep: Tensor, model_options: dict
    ) -> list[Tensor]:
        """x0 predictions [B, 3, H, W], one per entry of conds; zeros for an entry that is None."""
        run, whole = self._run, self._whole(*x_in.shape[-2:])
        if run is None or (run.plan.height, run.plan.width) != whole:
            # reached by a way that does not go through ComfyUI's loading
            run = self._begin(model.current_patcher, x_in.shape, {"positive": conds[0] or []})
        present = [i for i, cond in enumerate(conds) if cond is not None]
        canvas = extend(x_in, *whole)

        def predict(windows: list[Window]) -> list[Tensor]:
            comfy.model_management.throw_exception_if_processing_interrupted()
            if run.plan.count == 1 and self._region(windows[0]) is None:
                out = calc_cond_batch(model, conds, x_in, timestep, model_options)
            else:
                cut = [None if cond is None else self.get_resized_cond(cond, canvas, windows) for cond in conds]
                times = timestep.repeat(len(windows))
                out = calc_cond_batch(model, cut, crop(canvas, windows), times, model_options)
            return [out[i] for i in present]

        fused = dict(zip(present, run.step(predict, self._region), strict=True)) if present else {}
        nothing = nothing_like(x_in, x_in.device)
        return [fused[i][..., : x_in.shape[-2], : x_in.shape[-1]] if i in fused else nothing for i in range(len(conds))]

    def _whole(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a canvas with the padding that its latent has: whole latent cells."""
        cell = self.config.latent_cell
        return -(-height // cell) * cell, -(-width // cell) * cell

    def _cut(self, cond: dict, windows: list[Window], x_in: Tensor) -> dict:
        for key, name in (("area", "an area"), ("control", "a ControlNet")):
            if cond.get(key) is not None:
                raise ValueError(
                    f"a conditioning has {name}, which Context Window (PiD) cannot cut into windows: take it off, or "
                    "use PiD Regional Caption"
                )
        values, (images, _, height, width) = dict(cond["model_conds"]), x_in.shape
        cond = cond | {"model_conds": values}
        if "mask" in cond:
            mask = cond["mask"].expand(images, -1, -1) if cond["mask"].shape[0] == 1 else cond["mask"]
            cond["mask"] = crop(extend(mask[:, None], height, width), windows)[:, 0]
        if "lq_latent" in values:
            latent = values["lq_latent"].cond
            if self._ours:
                for key in ("lq_latent", "degrade_sigma"):
                    if isinstance(values[key], CONDLatent):
                        values[key] = CONDLatent(values[key].cond, tuple(windows), (height, width))
            else:
                latent = latent.expand(images, -1, -1, -1) if latent.shape[0] == 1 else latent
                values["lq_latent"] = comfy.conds.CONDRegular(crop(latent, windows, self.config.latent_cell))
        region = self._region(windows[0])
        if region is not None and cond["uuid"] in self._positive:
            caption, mask = self._regions[region].caption, self._regions[region].mask
            values["c_crossattn"] = comfy.conds.CONDRegular(caption)
            values.pop("attention_mask", None)
            if mask is not None:
                values["attention_mask"] = comfy.conds.CONDRegular(mask)
        return cond

    def _region(self, window: Window) -> int | None:
        return region_of(window, [entry.region for entry in self._regions])

    def _usable_regions(self, patcher: ModelPatcher, images: int, plan: WindowPlan):
        """The regional captions of this run, and lines that say what becomes of them."""
        width = self.config.caption_width
        for number, entry in enumerate(self._captions, start=1):
            count, _, caption_width = entry.caption.shape
            if caption_width != width and getattr(patcher.model, "default_caption", None) is not None:
                return (), ["this checkpoint brings its own caption and reads no other: regional captions do nothing"]
            if caption_width != width:
                raise ValueError(
                    f"regional caption {number} is {caption_width} wide, this checkpoint takes {width}: encode it with "
                    "PiD Caption, as the text of the whole picture"
                )
            if count not in (1, images):
                raise ValueError(
                    f"regional caption {number} is for {count} images, the canvas holds {images}: give one"
                    ", or one per image"
                )
        if not self._captions:
            return (), []
        top, left = patcher.model_options.get(CORNER, (0, 0))
        captions = [entry.seen_from(top, left) for entry in self._captions]
        used = [region_of(window, [entry.region for entry in captions]) for window in plan.windows]
        lines = []
        for index in range(len(captions)):
            count = used.count(index)
            lines.append(
                f"regional caption {index + 1}: {count} of {plan.count} windows"
                if count
                else f"regional caption {index + 1} is not used: its rectangle covers half of no window"
            )
        return tuple(entry.on(patcher.load_device) for entry in captions), lines

    def _tick(self, done: int, count: int) -> None:
        run = progress.current_run()
        if run is not None:
            run.at_window(done, count)

    def _out_of_memory(self, line: str) -> None:
        log.warning("windows: %s", line)
        if self.status is not None:
            self._show(replace(self.status, warnings=(*self.status.warnings, line)))

    def _show(self, status: Status) -> None:
        self.status, run = status, progress.current_run()
        if run is not None:
            run.watch.show(status)
        if run is None or run.watch.node_id != self.node_id:
            send_text(self.node_id, *status.lines(status.expected))


def _wanted(inside: Tensor | None) -> Callable[[Window], bool] | None:
    """Whether a window is to run: where only some pixels are drawn, those without any need not."""
    if inside is None:
        return None
    return lambda window: bool(crop(inside, [window]).any())


def _too_little(memory: MemoryModel, height: int, width: int, error: NoPlanError) -> str:
    images = memory.images
    picture = f"{width} x {height}" if images == 1 else f"{images} pictures of {width} x {height}"
    fewer = "decode fewer pictures at once, " if images > 1 else ""
    shorter = ", or set dtype to bfloat16 on the loader" if (memory.dtype_bytes or 0) > 2 else ""
    return (
        f"too little memory for {picture}: {memory.shortage(error)}: {fewer}make the picture smaller or close other "
        f"programs{shorter}"
    )


def _flop(count: float) -> str:
    return f"{count / 1e12:.3g} TFLOP" if count >= 1e11 else f"{count / 1e9:.3g} GFLOP"
