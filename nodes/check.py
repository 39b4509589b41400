"""PiD Check: what became of a picture, in figures and as a heat picture."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..pid_core.captions.fingerprint import digest
from ..pid_core.images.agreement import check_source
from ..pid_core.images.check import Checked, check_picture
from ..pid_core.images.speckles import remove_speckles
from ..pid_core.images.structure import heat_picture
from .comfy.node_text import show_on_node
from .shared.borders import window_borders
from .shared.inputs import CheckFigures, Framed, framing_input
from .shared.jobs import row_of
from .shared.pictures import save_picture
from .shared.sources import source_of

PREVIEW = 1024  # longest side on the node, in pixels
METADATA = "pid_check"  # in the PNG, beside ComfyUI's own prompt and workflow


class PiDKitCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitCheck",
            display_name="PiD Check",
            category="PiD/picture",
            description="Compares a result with the picture it was made from: how close it stays, its colours, "
            "sharpness, speckles and window borders, and where its structure was changed rather than refined.",
            search_aliases=["compare", "quality", "difference", "psnr", "speckles", "fireflies", "hallucination"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The result: from PiD Decode, PiD Upscale, VAE Decode or any other."),
                io.Boolean.Input(
                    "remove_speckles",
                    default=False,
                    tooltip="Off by default: the image passes through as it is. On: single bright pixels that the "
                    "source knows nothing of are filled from those around them; no other pixel changes.",
                ),
                io.Image.Input(
                    "source",
                    optional=True,
                    tooltip="The picture it was made from, of any size but the same shape. One, or one per image. Not "
                    "needed with framing or latent.",
                ),
                framing_input(
                    optional=True, tooltip="From PiD Prepare Image: its picture is the source. For a finished result."
                ),
                io.Latent.Input(
                    "latent", optional=True, tooltip="The latent it was decoded from, as the source, with vae."
                ),
                io.Vae.Input("vae", optional=True, tooltip="Decodes latent. Not needed for that of PiD RGB Latent."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The PiD model that drew it, as it goes into PiD Decode or KSampler: the borders of its "
                    "windows are looked at.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The image, without speckles if remove_speckles is on."),
                io.Image.Output(
                    display_name="heat", tooltip="The image in grey, and in red where its structure was changed."
                ),
                CheckFigures.Output(display_name="check", tooltip="The figures by name, for other nodes."),
                io.String.Output(display_name="report", tooltip="The figures as text."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        remove_speckles: bool = False,
        source: Tensor | None = None,
        framing: Framed | None = None,
        latent: dict | None = None,
        vae=None,
        model=None,
    ) -> io.NodeOutput:
        reference = source_of(source, framing, latent, vae)
        check_source(image, reference)
        borders = window_borders(model, image, framing)
        found, heats, cleaned = [], image.new_empty((*image.shape[:3], 3)), image
        if remove_speckles:
            cleaned = image.clone()
        for i, one in enumerate(image):
            checked = check_picture(one, row_of(reference, i)[0], borders.lines)
            heats[i] = heat_picture(one, checked.changed)
            if remove_speckles:
                cleaned[i] = _clean(one, checked)
            found.append(checked)
        lines = [*_lines(found, remove_speckles), *borders.notes]
        figures = [
            one.check.figures() | {"speckles_removed": one.speckles.number if remove_speckles else 0} for one in found
        ]
        show_on_node(cls, *lines)
        _into_metadata(cls, figures)
        previews = [save_picture(heat, f"check_{digest(heat)}", PREVIEW) for heat in heats]
        return io.NodeOutput(cleaned, heats, {"images": figures}, "\n".join(lines), ui={"images": previews})


def _clean(image: Tensor, checked: Checked) -> Tensor:
    return remove_speckles(image, checked.speckles)


def _lines(found: list[Checked], removed: bool) -> list[str]:
    """What is shown: a line per figure for one image, a line per image for several."""
    every = []
    for one in found:
        lines = one.check.describe()
        if removed:
            lines.append(f"{one.speckles.number} speckles removed")
        every.append(lines)
    if len(every) == 1:
        return every[0]
    return [f"image {number}: {', '.join(lines)}" for number, lines in enumerate(every, start=1)]


def _into_metadata(node: type[io.ComfyNode], figures: list[dict]) -> None:
    """Beside the workflow, for whatever saves a picture later in this run; by node, for there may be several."""
    shared = node.hidden.extra_pnginfo if node.hidden else None
    if isinstance(shared, dict):
        shared[METADATA] = {**shared.get(METADATA, {}), str(node.hidden.unique_id): figures}
