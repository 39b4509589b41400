"""PiD Upscale: a picture in, a larger one out.

It expands into the nodes that do the work, so that ComfyUI keeps what they loaded and made for the next run. By default
ComfyUI drops after every node what this prompt has not asked for yet, so the loaders are asked for before the picture
is made: hence the lazy image, and PiDKitUpscalePicture, which waits for it.
"""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..pid_core.assets import BUNDLED
from ..pid_core.hub.catalogue import HubFile
from ..pid_core.hub.model_sets import BUNDLED_SET, get_set, model_sets
from ..pid_core.images.colour import COLOUR_HOLDS
from ..pid_core.images.framing import TARGETS
from ..pid_core.images.strengths import AUTO, OWN, STRENGTHS
from ..pid_core.latents.lq_input import TRAINED_SIGMA
from .comfy.node_text import show_on_node
from .shared.inputs import fidelity_input
from .shared.known_files import generation, licence_input, local_choice, not_accepted, obtain
from .shared.text_encoder import TYPE


class PiDKitUpscale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitUpscale",
            display_name="PiD Upscale",
            category="PiD",
            description="Makes a picture larger, of any size and shape. Model, VAE and text encoder come with the "
            "model set, and are fetched where they are missing.",
            search_aliases=["upscale", "super resolution", "enlarge", "4k", "2k", "restore", "pid"],
            inputs=[
                io.Image.Input(
                    "image",
                    lazy=True,  # files and licences come first, then whatever makes the picture
                    raw_link=True,
                    tooltip="The picture, or a batch of them. Transparency is kept.",
                ),
                io.Combo.Input(
                    "model_set",
                    options=list(model_sets()),
                    default=BUNDLED_SET.name,
                    tooltip="bundled: the small model of this pack, no download, no text. The others are NVIDIA's PiD "
                    "with the VAE of that name and PiD's text encoder, fetched on the first run (about 8 GB). For a "
                    "picture made by a generator take its family; for a photo any does.",
                ),
                io.Combo.Input(
                    "target",
                    options=[*TARGETS, "factor"],
                    default="2K",
                    tooltip="Size of the result. 2K and 4K: the area of 2048 x 2048 or 4096 x 4096 in the picture's "
                    "own shape. factor: a multiple of the picture, to the pixel.",
                ),
                io.Float.Input(
                    "factor",
                    default=4.0,
                    min=0.25,
                    max=16.0,
                    step=0.05,
                    tooltip="How many times as large each side becomes, with target factor. 4 shows the model all the "
                    "picture has; below, the picture is made smaller first.",
                ),
                io.Combo.Input(
                    "strength",
                    options=[*STRENGTHS, AUTO, OWN],
                    default="faithful",
                    tooltip="How much is drawn anew. faithful (0): stays with the picture. repair (0.3): for a damaged "
                    "or soft one. rebuild (0.6): invents much. auto: measured from the noise and blur of every picture "
                    "(bundled: noise only). own value: the number below.",
                ),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the picture shows, in plain words. May be empty. The bundled model reads none.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    advanced=True,
                    tooltip="Another seed draws other fine detail.",
                ),
                licence_input(),
                io.Float.Input(
                    "own_strength",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip=f"degrade_sigma with strength own value, 0 to 1. PiD was trained up to {TRAINED_SIGMA:g}.",
                ),
                io.Combo.Input(
                    "colour_hold",
                    options=["auto", *COLOUR_HOLDS],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="Takes colours from the picture and leaves detail alone. auto: low_frequencies for "
                    "NVIDIA's models, none for the bundled one. See PiD Colour Hold.",
                ),
                fidelity_input(optional=True, advanced=True),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, enlarged to exactly the size asked for.")
            ],
            hidden=[io.Hidden.unique_id],
            enable_expand=True,
        )

    @classmethod
    def execute(
        cls,
        image: list,
        model_set: str,
        accept_licence: bool = False,
        **settings,
    ) -> io.NodeOutput:
        chosen = get_set(model_set)
        names = obtain(cls, chosen.files(_is_here), accept_licence)
        show_on_node(cls)
        graph = GraphBuilder()
        picture = graph.node("PiDKitUpscalePicture", "picture", image=image, model_set=model_set, **settings)
        checkpoint = BUNDLED
        if names:
            checkpoint, vae, encoder = names
            picture.set_input("vae", graph.node("VAELoader", "vae", vae_name=vae).out(0))
            picture.set_input("clip", graph.node("CLIPLoader", "clip", clip_name=encoder, type=TYPE).out(0))
        model = graph.node("PiDKitLoader", "model", model_name=checkpoint, dtype="auto", family=chosen.family)
        picture.set_input("model", model.out(0))
        return io.NodeOutput(picture.out(0), expand=graph.finalize())

    @classmethod
    def validate_inputs(cls, model_set: str | None = None, accept_licence: bool | None = False) -> bool | str:
        if model_set is None:  # it comes by a link
            return True
        return not_accepted(get_set(model_set).files(_is_here), accept_licence) or True

    @classmethod
    def fingerprint_inputs(cls, model_set: str | None = None, **_) -> list:
        # a file that was replaced is loaded again, one that was deleted is fetched again
        if model_set is None:  # it comes by a link
            return []
        return [generation(file) for file in get_set(model_set).files(_is_here)]


def _is_here(file: HubFile) -> bool:
    return local_choice(file) is not None
