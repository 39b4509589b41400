"""Context Window (PiD): large pictures in windows, in both directions."""

from __future__ import annotations

from comfy_api.latest import io

from ..pid_core.windows.plan import FUSE_METHODS, plan_windows
from .comfy.node_text import show_on_node
from .comfy.regions import RegionalCaption, Regions
from .comfy.window_handler import WindowSettings, add_windows
from .shared.inputs import window_overlap_input, window_size_input


class PiDKitContextWindow(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitContextWindow",
            display_name="Context Window (PiD)",
            category="PiD/sampling",
            description="Decodes a large picture in overlapping windows, which need far less memory and, from about "
            "3000 pixels a side, less time than the whole frame. Works with every sampler.",
            search_aliases=["tile", "tiled", "windows", "4k", "8k", "low vram", "pixel diffusion decoder"],
            inputs=[
                io.Model.Input("model", tooltip="A PiD model, from PiD Loader or Load Diffusion Model."),
                io.Combo.Input(
                    "mode",
                    options=["auto", "manual"],
                    default="auto",
                    tooltip="auto: the cheapest windows that fit the free memory and the sizes the checkpoint was "
                    "trained on. manual: windows of at most the size below.",
                ),
                window_size_input(
                    "size",
                    tooltip="for manual. Rounded down to whole latent cells. NVIDIA's 2K checkpoints were trained "
                    "around 2048; pid_nano works at 128 to 512.",
                ),
                window_overlap_input(
                    "overlap",
                    tooltip=", rounded up to whole latent cells. More hides borders better and takes longer, for every "
                    "overlap is drawn twice: the text on the node says what half of it would save. 0 shows the "
                    "borders.",
                ),
                io.Combo.Input(
                    "fuse",
                    options=list(FUSE_METHODS),
                    default="pyramid",
                    advanced=True,
                    tooltip="How overlapping windows are weighed. pyramid: by the distance to the window's edge. "
                    "linear and cosine: ramps inside the overlaps. flat: plain mean, which can show borders.",
                ),
                io.Latent.Input(
                    "canvas",
                    optional=True,
                    tooltip="The canvas of PiD Latent Conditioning, to see the plan on this node before sampling. "
                    "Changes nothing else.",
                ),
                Regions.Input(
                    "regions", optional=True, tooltip="Texts for parts of the picture, from PiD Regional Caption."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model, which runs in windows from here on.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, mode: str | None = None, size: int | None = None, overlap: int | None = None
    ) -> bool | str:
        if mode == "manual" and size is not None and overlap is not None and overlap >= size:
            return f"overlap {overlap} must be smaller than size {size}: lower overlap or raise size"
        return True

    @classmethod
    def execute(
        cls,
        model,
        mode: str,
        size: int,
        overlap: int,
        fuse: str,
        canvas: dict | None = None,
        regions: list[RegionalCaption] | None = None,
    ) -> io.NodeOutput:
        settings = WindowSettings(size, overlap, fuse, auto=mode == "auto")
        node_id = cls.hidden.unique_id if cls.hidden else None
        windowed, handler = add_windows(model, settings, regions or (), node_id)
        if canvas is not None:
            shape = canvas["samples"].shape
            if len(shape) != 4 or shape[1] != 3:
                raise ValueError(
                    f"the canvas has shape {list(shape)}: connect the canvas that PiD Latent Conditioning gives"
                )
            images, _, height, width = shape
            memory = handler.memory(windowed, images)
            show_on_node(cls, *handler.describe(memory, handler.plan(memory, height, width)).lines())
        elif not settings.auto:
            # what is wrong with the settings on any canvas is said here, not in the sampler
            cell = handler.config.latent_cell
            side = max(size // cell, 1) * cell
            show_on_node(cls, *plan_windows(side, side, size, overlap, align=cell).notes)
        return io.NodeOutput(windowed)
