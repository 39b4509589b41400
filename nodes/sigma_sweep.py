"""PiD Sigma Sweep: one picture at many values of degrade_sigma, side by side."""

from __future__ import annotations

import itertools

from comfy_api.latest import io
from torch import Tensor

from ..pid_core.captions.fingerprint import digest
from ..pid_core.images.per_picture import parse_sigmas
from ..pid_core.latents.lq_input import TRAINED_SIGMA
from ..pid_core.latents.sigma_map import SigmaMap
from .comfy.latent_tags import slice_latent
from .comfy.node_text import show_on_node
from .comfy.pid_models import describe_steps, steps_for, steps_input
from .comfy.progress import watching
from .comfy.window_handler import WindowSettings
from .shared.contact_sheet import contact_sheet
from .shared.decoding import check_student, in_need, sample, windows_key, with_windows
from .shared.finishing import image_of
from .shared.image_cache import drawn_in_need, runs_in_need
from .shared.inputs import SigmaList, latent_format_input, latent_noise_input
from .shared.jobs import Job, Shared
from .shared.lq_conditioning import LQConditioning, describe
from .shared.per_image import condition_job, decode_each
from .shared.pictures import save_picture
from .shared.sigma_maps import fitted

MOST = 64  # results in one sweep
TILE, LARGE = 768, 4096  # longest sides in pixels: of a tile on the node, and of a result that is compared
SEEDS = 2**64


class PiDKitSigmaSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitSigmaSweep",
            display_name="PiD Sigma Sweep",
            category="PiD/sampling",
            description="Decodes one picture at several values of degrade_sigma (and with several seeds), to choose "
            "by eye. Click a result to set that picture's value in the PiD Sigma Tuner it is connected to.",
            search_aliases=["pid", "degrade sigma", "grid", "xy plot", "contact sheet", "compare"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="A PiD model, from PiD Loader."),
                io.Latent.Input("latent", tooltip="The latent that is decoded, with the picture to try out in it."),
                io.Int.Input(
                    "picture",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="Which picture of the batch, counted from 1 as in PiD Sigma Tuner. 1 by default.",
                ),
                io.String.Input(
                    "sigmas",
                    default="0, 0.2, 0.4, 0.6, 0.8",
                    tooltip="Values of degrade_sigma to try, 0 to 1 each, with commas between. Trained up to "
                    f"{TRAINED_SIGMA:g}.",
                ),
                io.String.Input(
                    "seeds",
                    default="0",
                    tooltip="Seeds to try, with commas between: every sigma with every seed. 0 by default. Use the "
                    "seed of PiD Decode to see what it will draw.",
                ),
                steps_input(),
                latent_format_input(optional=True, advanced=True),
                latent_noise_input(optional=True, advanced=True),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="The text: CLIP Text Encode with PiD's encoder (CLIPLoader, type pixeldit). Not needed "
                    "with a model that brings its own caption, such as pid_nano.",
                ),
                SigmaList.Input(
                    "sigma_list",
                    optional=True,
                    tooltip="From PiD Sigma Tuner: a click on a result sets the picture's value there. From PiD Sigma "
                    "Map: the values are tried inside its mask, and a click sets sigma_inside there.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="One result per sigma and seed, in the order tried."),
                io.Image.Output(
                    display_name="contact_sheet",
                    tooltip="All results in one labelled picture, a row per seed, scaled down to fit.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, sigmas: list | tuple = (None,), seeds: list | tuple = (None,)) -> bool | str:
        try:
            _trials(*("0" if values[0] is None else values[0] for values in (sigmas, seeds)))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        return runs_in_need(cls.hidden)

    @classmethod
    def execute(
        cls,
        model: list,
        latent: list[dict],
        picture: list[int],
        sigmas: list[str],
        seeds: list[str],
        steps: list[int],
        latent_format: list[str] | tuple = ("auto",),
        latent_noise: list[str] | tuple = ("add",),
        positive: list | tuple = (None,),
        sigma_list: list | None = None,
    ) -> io.NodeOutput:
        check_student(model[0])
        trials = _trials(sigmas[0], seeds[0])
        one, row, place = _picture(latent, picture[0])
        painted = _map_of(sigma_list, latent, place, row)
        settings = WindowSettings()
        windows_mark = windows_key("auto", settings)
        number = steps_for(model[0], steps[0])
        shared = Shared(model[0], positive[0], number, latent_format[0], latent_noise[0], windows_mark)
        jobs = [Job(one, painted.with_value(sigma) if painted else sigma, seed, row) for seed, sigma in trials]
        strongest = condition_job(shared, jobs[max(range(len(trials)), key=lambda index: trials[index][1])])
        title, *lines = describe(strongest)
        node_id = cls.hidden.unique_id if cls.hidden else None
        windowed = with_windows(model[0], settings, "auto", node_id)

        runs_short = []  # whether each run had too little memory for proper windows

        def draw(index: int, conditioning: LQConditioning, callback) -> Tensor:
            pixels = sample(windowed, conditioning, number, jobs[index].seed, callback)
            runs_short.append(in_need(windowed))
            return image_of(pixels)

        def name_of(index: int) -> str:
            seed, sigma = trials[index]
            return f"result {index + 1} of {len(jobs)} (sigma {sigma:g}, seed {seed})"

        with watching(node_id, f"{strongest.lq.family.name} latent, {describe_steps(number)}", title, *lines) as watch:
            done = decode_each(shared, jobs, draw, name_of=name_of, in_need=lambda: in_need(windowed), node_id=node_id)
        if any(runs_short):
            drawn_in_need(cls.hidden)
        tiles = [
            {
                "sigma": sigma,
                "seed": str(seed),
                "image": save_picture(image, f"sweep_{name}", TILE),
                "large": save_picture(image, f"sweep_{name}_large", LARGE, exact=True),
            }
            for (seed, sigma), image, name in zip(trials, done.images, map(digest, done.images), strict=True)
        ]
        seed_count = len({seed for seed, _ in trials})
        labels = [_label(sigma, seed if seed_count > 1 else None) for seed, sigma in trials]
        sheet = contact_sheet(done.images, labels, columns=len(trials) // seed_count)
        show_on_node(cls, *watch.lines(), done.summary)
        return io.NodeOutput(
            done.images,
            sheet,
            ui={"pidkit_tiles": tiles, "pidkit_picture": [picture[0]], "pidkit_columns": [len(trials) // seed_count]},
        )


def _trials(sigmas: str, seeds: str) -> list[tuple[int, float]]:
    """(seed, sigma) of every result, row by row. Raises ValueError naming the input."""
    values = list(dict.fromkeys(parse_sigmas(sigmas)))
    seed_values = list(
        dict.fromkeys(_seed(text) for text in seeds.replace(";", ",").replace(" ", ",").split(",") if text)
    )
    if not values or not seed_values:
        raise ValueError(f"{'seeds' if values else 'sigmas'} is empty: give at least one number")
    count = len(values) * len(seed_values)
    if count > MOST:
        raise ValueError(
            f"{len(values)} sigmas with {len(seed_values)} seeds are {count} results, at most {MOST} are possible: "
            "take some away from sigmas or seeds"
        )
    return list(itertools.product(seed_values, values))


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= SEEDS:
        raise ValueError(f"seeds must be whole numbers from 0 to 2^64 - 1, got {text!r}")
    return int(text)


def _map_of(sigma_list: list | None, latent: list[dict], place: int, row: int) -> SigmaMap | None:
    """What PiD Sigma Map says of the picture in this row of the latent in this place; None where it says nothing."""
    one = sigma_list[min(place, len(sigma_list) - 1)] if sigma_list else None
    # PiD Sigma Tuner gives a map only for latents that something is painted on
    return fitted(one, len(latent[place]["samples"]))[0].of_picture(row) if isinstance(one, SigmaMap) else None


def _picture(latent: list[dict], number: int) -> tuple[dict, int, int]:
    """The LATENT of one picture counted from 1 through all batches, its row in its own, and which of them that is."""
    place = number - 1
    for index, one in enumerate(latent):
        count = one["samples"].shape[0]
        if place < count:
            return slice_latent(one, place), place, index
        place -= count
    raise ValueError(f"picture is {number}, latent holds {number - 1 - place}: choose one of them")


def _label(sigma: float, seed: int | None) -> str:
    return f"{sigma:g}" if seed is None else f"{sigma:g}, seed {seed}"
