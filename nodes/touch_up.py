"""PiD Touch Up: a part of a finished picture drawn again, several times to choose from."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..pid_core.captions.fingerprint import digest
from ..pid_core.latents.rgb import to_pixels
from ..pid_core.latents.sigma_map import SigmaMap
from ..pid_core.sampling.touch_up import FEATHER, Part
from .comfy.holding import is_held
from .comfy.latent_tags import slice_latent
from .comfy.node_text import show_on_node
from .comfy.pid_models import config_of, describe_steps, steps_for, steps_input
from .comfy.progress import watching
from .comfy.window_handler import WindowSettings
from .shared.decoding import check_student, in_need, windows_key, with_windows
from .shared.finishing import image_of
from .shared.image_cache import drawn_in_need, runs_in_need
from .shared.inputs import ABSENT, latent_format_input, latent_noise_input, sigma_input, sigma_list_input, text_inputs
from .shared.jobs import Job, Shared, row_of
from .shared.lq_conditioning import LQConditioning, condition, describe
from .shared.per_image import decode_each
from .shared.pictures import save_picture
from .shared.sigma_maps import fitted, sigma_of_each
from .shared.text_encoder import caption_of, caption_problem, needed_inputs
from .shared.touching_up import fitted_mask, sample_part

MOST = 16  # variations
LARGE = 2048  # longest side in pixels of a picture on the node
AROUND = 0.25  # of the mask's size: what a picture on the node shows beside it
SEEDS = 2**64


class PiDKitTouchUp(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitTouchUp",
            display_name="PiD Touch Up",
            category="PiD/sampling",
            description="Draws a part of a finished picture again, with another degrade_sigma, seed, text or number of "
            "steps. All outside the mask and its feather stays as it is, to the bit, and only the part around the mask "
            "is worked on. Click a variation to keep it.",
            search_aliases=["pid", "inpaint", "detail", "redraw", "fix", "mask", "variations", "face"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The finished picture, as PiD Decode gave it."),
                io.Model.Input("model", tooltip="A PiD model, from PiD Loader."),
                io.Latent.Input("latent", tooltip="The latent that the picture was decoded from."),
                io.Mask.Input(
                    "mask",
                    tooltip="What is drawn again: from ComfyUI's mask editor (right click on Load Image), a segmenter "
                    "or a face detector. Of any size; one, or one per picture.",
                ),
                sigma_input(),
                steps_input(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=SEEDS - 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Seed of the first variation, for all its noise; the next ones take the seeds after it. "
                    "Another than the picture was decoded with gives other details.",
                ),
                io.Int.Input(
                    "variations",
                    default=1,
                    min=1,
                    max=MOST,
                    tooltip=f"How many are drawn to choose from, 1 to {MOST}, 1 by default. The node shows them.",
                ),
                io.Int.Input(
                    "keep",
                    default=1,
                    min=1,
                    max=MOST,
                    tooltip="Which variation comes out, counted from 1; 1 by default. A click on one sets it, and the "
                    "next run does not draw them again.",
                ),
                latent_format_input(optional=True, advanced=True),
                latent_noise_input(optional=True, advanced=True),
                io.Int.Input(
                    "feather",
                    default=FEATHER,
                    min=0,
                    max=1024,
                    step=4,
                    optional=True,
                    advanced=True,
                    tooltip="Pixels of the picture, around the mask, over which new and old blend, 0 to 1024, "
                    f"{FEATHER} by default.",
                ),
                *text_inputs("What the part shows."),
                sigma_list_input(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture with the variation that is kept."),
                io.Mask.Output(display_name="mask", tooltip="The mask as it was used: scaled, with its feather."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(
        cls, text: str | None = "", clip=ABSENT, positive=ABSENT, variations: int | None = 1, keep: int | None = 1
    ) -> bool | str:
        problem = caption_problem(text or "", clip is not ABSENT, positive is not ABSENT)
        return problem or _keep_problem(variations or MOST, keep or 1) or True

    @classmethod
    def check_lazy_status(cls, clip=None, text: str = "", **_) -> list[str]:
        return needed_inputs(cls.hidden, clip, text)

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        return runs_in_need(cls.hidden)

    @classmethod
    def execute(
        cls,
        image: Tensor,
        model,
        latent: dict,
        mask: Tensor,
        degrade_sigma: float,
        steps: int,
        seed: int,
        variations: int = 1,
        keep: int = 1,
        feather: int = FEATHER,
        latent_format: str = "auto",
        latent_noise: str = "add",
        positive: list | None = None,
        clip=None,
        text: str = "",
        sigma_list: list | float | SigmaMap | None = None,
    ) -> io.NodeOutput:
        check_student(model)
        _check_held(model)
        problem = _keep_problem(variations, keep)
        if problem is not None:
            raise ValueError(problem)
        image = image[..., :3]
        caption, caption_lines = caption_of(cls.hidden, positive, clip, text)
        images, level = latent["samples"].shape[0], degrade_sigma if sigma_list is None else sigma_list
        sigma_lines: list[str] = []
        if isinstance(level, SigmaMap):
            level, sigma_lines = fitted(level, images)
        conditioning = condition(
            latent,
            model,
            latent_format=latent_format,
            sigma=level,
            latent_noise=latent_noise,
            seed=seed,
            positive=caption,
        )
        height, width = conditioning.canvas["samples"].shape[-2:]
        _check_picture(image, images, height, width)
        mask, mask_lines = fitted_mask(mask.to(image.device), images, height, width)
        part = Part.of(mask, feather, config_of(model.model))
        if part is None:
            show_on_node(cls, "the mask is empty: nothing to do, the picture is unchanged", *mask_lines)
            return io.NodeOutput(image, mask[:, 0], ui={"pidkit_tiles": [], "pidkit_keep": [keep]})

        title, *lines = [*describe(conditioning), *_about(part, mask), *mask_lines, *sigma_lines, *caption_lines]
        show_on_node(cls, title, *lines)
        steps = steps_for(model, steps)
        node_id = cls.hidden.unique_id if cls.hidden else None
        settings = WindowSettings()
        draw = _Draw(with_windows(model, settings, "auto", node_id), part, image, steps)
        shared = Shared(model, caption, steps, latent_format, latent_noise, windows_key("auto", settings))
        sigmas = sigma_of_each(level, images) or [float(value) for value in conditioning.lq.sigma]
        seeds = [(seed + i) % SEEDS for i in range(variations)]
        draw.jobs = jobs = [
            Job(slice_latent(latent, i), sigmas[i], one, i, draw.mark(i)) for i in range(images) for one in seeds
        ]
        with watching(
            node_id, f"{conditioning.lq.family.name} latent, {describe_steps(steps)}", title, *lines
        ) as watch:
            done = decode_each(
                shared,
                jobs,
                draw,
                name_of=lambda i: f"variation {i % variations + 1} of {variations} (seed {jobs[i].seed})",
                in_need=lambda: in_need(draw.windowed),
                node_id=node_id,
            )
        if draw.in_need:
            drawn_in_need(cls.hidden)
        show_on_node(cls, *watch.lines(), done.summary)
        drawn = done.images.unflatten(0, (images, variations))
        tiles = [_tile(part, image, drawn[:, i], one) for i, one in enumerate(seeds)]
        soft = torch.zeros(len(part.mask), height, width, device=mask.device)
        part.of_picture(soft).copy_(part.mask[:, 0])
        return io.NodeOutput(
            part.put(image.movedim(-1, 1), drawn[:, keep - 1].movedim(-1, 1)).movedim(1, -1).contiguous(),
            soft,
            ui={"pidkit_tiles": tiles, "pidkit_keep": [keep]},
        )


class _Draw:
    """Draws one variation of one picture: its part, [1, h, w, 3] in [0, 1].

    jobs: of all there are. in_need: whether some run had too little memory for proper windows.
    """

    def __init__(self, windowed, part: Part, image: Tensor, steps: int):
        self.windowed, self._steps = windowed, steps
        self._parts = [part._replace(mask=row_of(part.mask, i)) for i in range(len(image))]
        self._finished = part.of_picture(image.movedim(-1, 1)).movedim(1, -1)
        self.jobs: list[Job] = []
        self.in_need = False

    def mark(self, row: int) -> tuple:
        """What of a picture decides what is drawn, beside its latent."""
        part = self._parts[row]
        return ("touch up", part.window, digest(part.inside), digest(row_of(self._finished, row)))

    def __call__(self, index: int, conditioning: LQConditioning, callback) -> Tensor:
        job = self.jobs[index]
        part, finished = self._parts[job.row], self._finished[job.row : job.row + 1]
        if not bool(part.inside.any()):  # another picture of the batch has a mask
            return finished
        pixels = sample_part(self.windowed, conditioning, part, to_pixels(finished), self._steps, job.seed, callback)
        self.in_need = self.in_need or in_need(self.windowed)
        return image_of(pixels)


def _keep_problem(variations: int, keep: int) -> str | None:
    if keep <= variations:
        return None
    return f"keep is {keep}, variations is {variations}: choose one of them, or draw more"


def _check_held(model) -> None:
    """A hold is to the whole picture; the part that is drawn would be held to all of it."""
    if is_held(model.model_options):
        raise ValueError(
            "the model is held to a whole picture by PiD Hold, and PiD Touch Up draws a part: connect the model from "
            "before PiD Hold"
        )


def _check_picture(image: Tensor, images: int, height: int, width: int) -> None:
    if len(image) != images:
        raise ValueError(f"image holds {len(image)} pictures, latent {images}: give every picture its latent")
    if tuple(image.shape[1:3]) != (height, width):
        raise ValueError(
            f"image is {image.shape[2]} x {image.shape[1]}, but its latent decodes to {width} x {height}: give the "
            "picture as PiD Decode gave it without framing, before it is cropped or scaled, and the latent it was "
            "decoded from"
        )


def _about(part: Part, mask: Tensor) -> list[str]:
    share = 100 * float((mask > 0).float().mean())
    return [f"{share:.2g} % of the picture is drawn again, in a part of {part.size[1]} x {part.size[0]}"]


def _tile(part: Part, image: Tensor, drawn: Tensor, seed: int) -> dict:
    """What the node shows of a variation [B, h, w, 3], of the first picture: the mask and what is around it."""
    mask = row_of(part.mask, 0)
    finished = part.of_picture(image[:1].movedim(-1, 1))
    shown = torch.where(mask > 0, mask * drawn[:1].movedim(-1, 1) + (1 - mask) * finished, finished)[0]
    rows, cols = _view(part.inside)
    shown = shown[:, rows, cols].movedim(0, -1)
    name = f"touch_up_{digest(shown)}"
    picture = save_picture(shown, name, LARGE, exact=True)
    return {"seed": str(seed), "image": picture}


def _view(inside: Tensor) -> tuple[slice, slice]:
    """Rows and columns of a part that hold what changes [B, 1, h, w], and some more."""
    marked = inside.flatten(0, 1).any(dim=0)
    spans = []
    for axis in (0, 1):
        places = torch.nonzero(marked.any(dim=1 - axis))
        first, last = int(places[0]), int(places[-1]) + 1
        more = max(8, int(AROUND * (last - first)))
        spans.append(slice(max(0, first - more), last + more))
    return spans[0], spans[1]
