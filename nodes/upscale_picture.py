"""What PiD Upscale does once its files are here and the picture is made. Not for the canvas."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder
from torch import Tensor

from ..pid_core.hub.model_sets import ModelSet, get_set
from ..pid_core.images.framing import Framing, plan_framing
from ..pid_core.images.quality import estimate_quality, suggest_sigma
from ..pid_core.images.strengths import AUTO, OWN, STRENGTHS
from .comfy.node_text import show_on_node
from .comfy.pid_models import config_of

# what is only handed on is not waited for
HANDED_ON = {"lazy": True, "raw_link": True}
MARGIN = 0.05  # of degrade_sigma, by which an estimate may be off


class PiDKitUpscalePicture(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitUpscalePicture",
            display_name="PiD Upscale, the picture",
            category="PiD/picture",
            description="A part of PiD Upscale: use that.",
            is_dev_only=True,
            inputs=[
                io.Image.Input("image"),
                io.Model.Input("model", lazy=True),
                io.Vae.Input("vae", optional=True, **HANDED_ON),
                io.Clip.Input("clip", optional=True, **HANDED_ON),
                io.String.Input("model_set"),
                io.String.Input("target"),
                io.Float.Input("factor"),
                io.String.Input("strength"),
                io.Float.Input("own_strength"),
                io.String.Input("text"),
                io.Int.Input("seed", max=0xFFFFFFFFFFFFFFFF),
                io.String.Input("colour_hold"),
                io.Float.Input("fidelity"),
            ],
            outputs=[io.Image.Output()],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            enable_expand=True,
        )

    @classmethod
    def check_lazy_status(cls, strength: str, **_) -> list[str]:
        return ["model"] if strength == AUTO else []

    @classmethod
    def execute(
        cls,
        image: Tensor,
        model_set: str,
        target: str,
        factor: float,
        strength: str,
        seed: int,
        model: ModelPatcher | None = None,
        vae: list | None = None,
        clip: list | None = None,
        text: str = "",
        own_strength: float = 0.2,
        colour_hold: str = "auto",
        fidelity: float = 0.0,
    ) -> io.NodeOutput:
        chosen = get_set(model_set)
        height, width = image.shape[1:3]
        framing = plan_framing(height, width, chosen.family, target=target, factor=factor)
        sigmas = _sigmas(image, strength, own_strength, model)
        notes = [*_notes(framing, chosen, text), *_too_strong(image, chosen, strength, sigmas)]
        show_on_node(cls, framing.describe(), *notes, _describe(strength, sigmas))
        if colour_hold == "auto":
            colour_hold = "none" if chosen.checkpoint is None else "low_frequencies"
        graph = GraphBuilder()
        wires = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]
        prepare = graph.node(
            "PiDKitPrepareImage",
            "prepare",
            image=wires["image"],
            target=target,
            family=chosen.family,
            fit="pad",
            factor=factor,
        )
        decode = graph.node(
            "PiDKitDecode",
            "decode",
            model=wires["model"],
            latent=prepare.out(2),
            framing=prepare.out(1),
            degrade_sigma=0.0,
            latent_noise=chosen.latent_noise,
            sigma_list=sigmas,
            steps=0,
            seed=seed,
            colour_hold=colour_hold,
            fidelity=fidelity,
        )
        if vae is not None:
            prepare.set_input("vae", vae)
        if clip is not None:
            decode.set_input("clip", clip)
            decode.set_input("text", text)
        return io.NodeOutput(decode.out(0), expand=graph.finalize())


def _sigmas(image: Tensor, strength: str, own: float, model: ModelPatcher | None) -> list[float]:
    """degrade_sigma for each picture of the batch. model: what will decode them, for auto."""
    if strength == AUTO:
        invents = model is not None and config_of(model.model).invents
        return [suggest_sigma(estimate_quality(picture), invents=invents) for picture in image]
    return [own if strength == OWN else STRENGTHS[strength]] * image.shape[0]


def _too_strong(image: Tensor, chosen: ModelSet, strength: str, sigmas: list[float]) -> list[str]:
    """The bundled model takes what is more than a picture's noise for haze, and keeps it."""
    if chosen.checkpoint is not None or strength == AUTO:
        return []
    fitting = [suggest_sigma(estimate_quality(picture), invents=False) for picture in image]
    if all(sigma <= most + MARGIN for sigma, most in zip(sigmas, fitting, strict=True)):
        return []
    return [f"the bundled model cannot invent: more than {max(fitting):g} only makes this picture paler"]


def _describe(strength: str, sigmas: list[float]) -> str:
    values = sigmas if len(set(sigmas)) > 1 else sigmas[:1]
    return f"strength {', '.join(f'{sigma:g}' for sigma in values)} ({strength})"


def _notes(framing: Framing, chosen: ModelSet, text: str) -> list[str]:
    notes = []
    if framing.output.height < framing.source.height:
        notes.append("the result is smaller than the picture: a larger target, or factor, keeps all of it")
    if chosen.checkpoint is None and text.strip():
        notes.append("the bundled model reads no text")
    return notes
