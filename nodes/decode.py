"""PiD Decode: a latent straight to an image, in place of VAE Decode."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io
from torch import Tensor

from ..pid_core.captions.fingerprint import digest
from ..pid_core.errors import NonFiniteError
from ..pid_core.images.framing import check_decoded, unfinish_image
from ..pid_core.latents.rgb import from_rgb_latent, to_pixels
from ..pid_core.latents.sigma_map import SigmaMap
from ..pid_core.log import log
from ..pid_core.printable import printable
from ..pid_core.windows.plan import OVERLAP, TooLittleMemoryError
from ..pid_core.windows.run import is_out_of_memory
from .comfy.latent_tags import slice_latent
from .comfy.node_text import show_on_node
from .comfy.noise import BatchNoise, RowNoise
from .comfy.picture_size import picture_size
from .comfy.pid_models import describe_steps, steps_for, steps_input
from .comfy.progress import watching
from .comfy.sampling import sampler_seed
from .comfy.window_handler import WindowSettings
from .shared.decoding import check_student, in_need, one_of, sample, windows_key, with_windows
from .shared.finishing import finish_if_possible, hold_if_possible, image_of
from .shared.guide import Guide, guide_for
from .shared.image_cache import drawn_in_need, runs_in_need
from .shared.inputs import (
    ABSENT,
    Framed,
    colour_hold_input,
    fidelity_input,
    framing_input,
    hold_input,
    latent_format_input,
    latent_noise_input,
    sigma_input,
    sigma_list_input,
    start_at_input,
    text_inputs,
    window_overlap_input,
    window_size_input,
)
from .shared.jobs import Job, Shared, row_of
from .shared.lq_conditioning import LQConditioning, condition, describe
from .shared.per_image import are_unfinished, decode_each
from .shared.sigma_maps import fitted, sigma_of_each
from .shared.text_encoder import caption_of, caption_problem, needed_inputs


class PiDKitDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitDecode",
            display_name="PiD Decode",
            category="PiD",
            description="Decodes a latent to an image four times the size VAE Decode would give. The same as PiD "
            "Latent Conditioning, KSampler (lcm, simple, cfg 1) and VAE Decode, in one node.",
            search_aliases=["pid", "vae decode", "pixel diffusion decoder", "upscale", "super resolution"],
            inputs=[
                io.Model.Input("model", tooltip="A PiD model, from PiD Loader."),
                io.Latent.Input(
                    "latent", tooltip="The latent to decode: from a sampler, VAE Encode or PiD RGB Latent."
                ),
                sigma_input(),
                steps_input(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Seed of all noise: that of the image, and that added to the latent.",
                ),
                latent_format_input(optional=True, advanced=True),
                latent_noise_input(optional=True, advanced=True),
                io.Combo.Input(
                    "window_mode",
                    options=["auto", "off", "manual"],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="Large pictures in overlapping windows. auto: where the whole frame does not fit the "
                    "memory or the sizes the checkpoint was trained on, the cheapest windows that do. off: always the "
                    "whole frame. manual: windows of the size below. Windows already on the model are used as they "
                    "are.",
                ),
                window_size_input("window_size", "with window_mode manual.", optional=True, advanced=True),
                window_overlap_input(
                    "window_overlap",
                    ". More hides borders better and takes longer: the text on the node says what half of it would "
                    "save.",
                    optional=True,
                    advanced=True,
                ),
                colour_hold_input("none", optional=True),
                fidelity_input(optional=True, advanced=True),
                *text_inputs("What the picture shows."),
                sigma_list_input(),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="For colour_hold, fidelity, hold and start_at: VAE Decode of the latent, or the picture it "
                    "was made from. Not needed with framing, nor with PiD RGB Latent.",
                ),
                framing_input(
                    optional=True,
                    tooltip="From PiD Prepare Image: its padding or cropping is undone here, and its picture is the "
                    "reference.",
                ),
                io.Image.Input(
                    "start_image",
                    optional=True,
                    tooltip="The picture that start_at above 1 begins from, such as an earlier result; one, or one per "
                    "image. Any size, the same shape. Take another seed than made it.",
                ),
                # behind the others: workflows store values of inputs by their place
                hold_input(optional=True, advanced=True),
                start_at_input(
                    4,
                    "The picture is start_image, else the reference. Needs steps above 1.",
                    optional=True,
                    advanced=True,
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The decoded images.")],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, text: str | None = "", clip=ABSENT, positive=ABSENT) -> bool | str:
        return caption_problem(text or "", clip is not ABSENT, positive is not ABSENT) or True

    @classmethod
    def check_lazy_status(cls, clip=None, text: str = "", **_) -> list[str]:
        return needed_inputs(cls.hidden, clip, text)

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        return runs_in_need(cls.hidden)

    @classmethod
    def execute(
        cls,
        model,
        latent: dict,
        degrade_sigma: float,
        steps: int,
        seed: int,
        latent_format: str = "auto",
        latent_noise: str = "add",
        window_mode: str = "auto",
        window_size: int = 2048,
        window_overlap: int = OVERLAP,
        colour_hold: str = "none",
        fidelity: float = 0.0,
        positive: list | None = None,
        clip=None,
        text: str = "",
        sigma_list: list | float | SigmaMap | None = None,
        reference: Tensor | None = None,
        framing: Framed | None = None,
        hold: float = 0.0,
        start_at: int = 1,
        start_image: Tensor | None = None,
    ) -> io.NodeOutput:
        check_student(model)
        images = latent["samples"].shape[0]
        level = degrade_sigma if sigma_list is None else sigma_list
        sigma_lines: list[str] = []
        if isinstance(level, SigmaMap):
            level, sigma_lines = fitted(level, images, framing and framing.framing)
        sigmas = sigma_of_each(level, images)
        caption, caption_lines = caption_of(cls.hidden, positive, clip, text)
        conditioning = condition(
            latent,
            model,
            latent_format=latent_format,
            sigma=level,
            latent_noise=latent_noise,
            seed=seed,
            positive=caption,
        )
        steps = steps_for(model, steps)
        title, *lines = [*describe(conditioning), *sigma_lines, *caption_lines]
        # all that can be wrong is found before the decode, which may take minutes
        canvas = conditioning.canvas["samples"]
        if framing is not None:
            check_decoded((canvas.shape[0], *canvas.shape[2:]), framing.framing, framing.source)
            lines.append(framing.framing.describe())
            if start_image is not None:
                start_image = unfinish_image(start_image, framing.framing)
        guide = guide_for(
            canvas.shape,
            steps,
            lambda: _reference(reference, framing, latent, conditioning.lq.family.name),
            colour_hold=colour_hold,
            fidelity=fidelity,
            hold=hold,
            start_at=start_at,
            start_image=start_image,
        )
        lines += guide.lines
        show_on_node(cls, title, *lines)

        node_id = cls.hidden.unique_id if cls.hidden else None
        settings = WindowSettings(window_size, window_overlap)
        windowed = with_windows(model, settings, window_mode, node_id)
        draw = _Draw(windowed, steps, seed, guide, framing)
        run, how = steps + 1 - guide.start.at, windows_key(window_mode, settings)
        shared = Shared(model, caption, run, latent_format, latent_noise, how, guide.settings)
        jobs = _jobs(latent, sigmas, conditioning, seed, guide, framing)
        cache = sigmas is not None and sigma_list is not None
        latent_name = f"{conditioning.lq.family.name} latent, {describe_steps(steps)}"
        with watching(node_id, latent_name, title, *lines) as watch:
            if sigmas is None:
                image, notes = _batch(draw, shared, jobs, conditioning, node_id)
            else:
                done = decode_each(shared, jobs, draw, cache=cache, in_need=lambda: in_need(windowed), node_id=node_id)
                image, notes = done.images, [done.summary] if cache or not done.drawn or done.resumed else []
        if draw.in_need:
            drawn_in_need(cls.hidden)
        repeated = getattr(model.model.diffusion_model, "repeated", [])
        again = [f"repeated in float32, because it gave NaN: {'; '.join(repeated)}"] if repeated else []
        show_on_node(cls, *watch.lines(), *notes, *draw.notes, *again)
        return io.NodeOutput(image)


class _Draw:
    """Draws one image, or all of a batch at once, and finishes what was drawn.

    `notes`: lines about what could not be done with a finished decode. `in_need`: whether some run had too little
    memory for proper windows.
    """

    def __init__(self, windowed, steps: int, seed: int, guide: Guide, framing: Framed | None):
        self.windowed, self.steps, self.seed = windowed, steps, seed
        self._guide, self._framing = guide, framing
        self.notes: dict[str, None] = {}
        self.in_need = False

    def __call__(self, index: int | None, conditioning: LQConditioning, callback=None, noise: RowNoise | None = None):
        """[B, H, W, 3] in [0, 1]. index: of the image in the batch, None: all of it."""
        guide = self._guide
        hold = guide.hold if guide.hold is None or index is None else guide.hold.of(index)
        pixels = sample(
            self.windowed, conditioning, self.steps, self.seed, callback, noise, guide.start.of(index), hold
        )
        self.in_need = self.in_need or in_need(self.windowed)
        if guide.colours is not None:
            self._note(hold_if_possible(pixels, row_of(guide.colours, index), guide.colour_hold, guide.fidelity))
        image = image_of(pixels)
        if self._framing is None:
            return image
        source = row_of(self._framing.source, index)
        image, lines = finish_if_possible(image, self._framing.framing, source)
        self._note(lines)
        return image

    def _note(self, lines) -> None:
        self.notes.update(dict.fromkeys(lines))


def _jobs(
    latent: dict,
    sigmas: list[float] | list[SigmaMap] | None,
    conditioning: LQConditioning,
    seed: int,
    guide: Guide,
    framing: Framed | None,
) -> list[Job]:
    """One per image. sigmas: None for a batch, where the noise of an image depends on where it stands."""
    count = latent["samples"].shape[0]
    place = [(("of a batch", i, count),) if sigmas is None else () for i in range(count)]
    values: Sequence[float | SigmaMap] = sigmas or [float(conditioning.lq.sigma[i]) for i in range(count)]
    return [
        Job(slice_latent(latent, i), sigma, seed, i, (*_mark(guide, framing, i), *place[i]))
        for i, sigma in enumerate(values)
    ]


def _batch(
    draw: _Draw, shared: Shared, jobs: list[Job], conditioning: LQConditioning, node_id: str | None
) -> tuple[Tensor, list[str]]:
    """All images at once, or one by one where that fails or did so before; and lines for the node."""
    notes = []
    if not are_unfinished(shared, jobs):
        try:
            return draw(None, conditioning), []
        except (NonFiniteError, TooLittleMemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            notes.append("drawn one by one, because all at once failed")
            log.warning("%s; the images are drawn one by one", printable(error, 300))
    noise = BatchNoise(shared.model, tuple(conditioning.canvas["samples"].shape), sampler_seed(draw.seed))
    done = decode_each(
        shared,
        jobs,
        lambda index, one, callback: draw(index, one, callback, noise.of(index)),
        cache=False,
        condition_at=lambda index: one_of(conditioning, index),
        in_need=lambda: in_need(draw.windowed),
        node_id=node_id,
    )
    return done.images, [*notes, done.summary]


def _mark(guide: Guide, framing: Framed | None, index: int) -> tuple:
    """What of one image alone changes its result, beside latent and sigma."""
    marks = guide.mark(index)
    return marks if framing is None else (*marks, framing.framing, digest(row_of(framing.source, index)))


def _reference(reference: Tensor | None, framed: Framed | None, latent: dict, family: str) -> Tensor | None:
    """The picture to hold to and to begin from, [B, 3, h, w] in [-1, 1], where there is one."""
    if reference is not None:
        return to_pixels(reference)
    if framed is not None:
        return to_pixels(framed.image)
    if family == "rgb":
        size, _ = picture_size(latent)
        pixels = from_rgb_latent(latent["samples"])
        return pixels if size is None else pixels[..., : size.height, : size.width]
    return None
