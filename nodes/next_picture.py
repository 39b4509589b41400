"""PiD Next Picture: a folder, one picture with every run, until all are done."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..pid_core.batch.folder import Entry, entries_in
from ..pid_core.captions.fingerprint import digest
from ..pid_core.images.files import Picture
from ..pid_core.printable import printable
from .comfy.node_text import show_on_node
from .shared.folders import results_folder, source_folder
from .shared.pictures import save_picture
from .shared.walks import Step, next_step

SHOWN = 512  # longest side of the picture on the node, in pixels
LINES = 5  # of a kind on the node; the log and the run's record have all


class PiDKitNextPicture(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitNextPicture",
            display_name="PiD Next Picture",
            category="PiD/files",
            description="Hands out the next picture of a folder with every run, until all are done: queue as many runs "
            "as there are pictures, or use Run (Instant), which stops at the end. What cannot be read is skipped.",
            search_aliases=["batch", "folder", "directory", "load images", "next image", "queue"],
            inputs=[
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder in ComfyUI's input folder, or the whole path of any folder. Empty: the input "
                    "folder itself. With [output] behind it: one in the output folder.",
                ),
                io.String.Input(
                    "output_folder",
                    default="PiDKit/large",
                    tooltip="Where results go, in ComfyUI's output folder. Connect filename_prefix to Save Image: a "
                    "picture whose result lies there is done.",
                ),
                io.Boolean.Input(
                    "skip_done",
                    default=True,
                    tooltip="On: pictures whose results are there are left out, also after a restart. To make one "
                    "again, delete its result. Off: all of them, from the first on.",
                ),
                io.String.Input(
                    "pattern",
                    default="*",
                    optional=True,
                    advanced=True,
                    tooltip="Which pictures, by name: *.jpg, cat*. Upper and lower case count. **/* goes into the "
                    "folders below too, and results lie in folders of the same names.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="The picture, upright; with 16 bits a colour and transparency where the file has them.",
                ),
                io.String.Output(
                    display_name="filename_prefix",
                    tooltip="output_folder and the picture's name: for filename_prefix of Save Image.",
                ),
                io.String.Output(display_name="position", tooltip='Its place in the folder, such as "3 of 17".'),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, folder: str | None = "", output_folder: str | None = "", pattern: str | None = "*"
    ) -> bool | str:
        if folder is not None and output_folder is not None and pattern is not None:  # none comes by a link
            _entries(folder, output_folder, pattern)
        return True

    @classmethod
    def execute(cls, folder: str, output_folder: str, skip_done: bool, pattern: str = "*") -> io.NodeOutput:
        results, before = results_folder(output_folder)
        entries = _entries(folder, output_folder, pattern)
        step = next_step(cls.hidden.unique_id, source_folder(folder), results, entries, skip_done)
        found = {"done": step.done, "of": len(entries), "skipped": step.skipped, "failed": step.failed}
        if step.picture is None:
            line = _nothing_left(step, entries)
            show_on_node(cls, line, *_problems(step, before))
            # nothing that hangs on them runs, and the run ends well: js/next_picture.js ends Run (Instant)
            blocked = [ExecutionBlocker(None)] * 3
            return io.NodeOutput(*blocked, ui={"pidkit_next": [found | {"nothing_left": line}]})
        entry, position = entries[step.index], f"{step.index + 1} of {len(entries)}"
        prefix, image = before + entry.name, _image(step.picture)
        height, width = image.shape[1:3]
        line = f"{position}: {printable(entry.path.name)}, {width} x {height}"
        show_on_node(cls, line, *step.picture.notes, *_problems(step, before))
        shown = save_picture(step.picture.image, f"{digest(step.picture.image)}_{SHOWN}", SHOWN)
        found |= {"position": position, "filename_prefix": prefix}
        return io.NodeOutput(image, prefix, position, ui={"images": [shown], "pidkit_next": [found]})

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        return uuid.uuid4().hex  # every run is another picture's


def _entries(folder: str, output_folder: str, pattern: str) -> list[Entry]:
    """Raises ValueError in one line where there is nothing to hand out, or where results would be taken for more."""
    source, (results, _) = source_folder(folder), results_folder(output_folder)
    if results.is_dir() and results.samefile(source):
        raise ValueError(
            "output_folder is the folder of the pictures itself, where results would be enlarged again: type another"
        )
    return entries_in(source, pattern, results)


def _image(picture: Picture) -> torch.Tensor:
    """[1, H, W, 3], or 4 channels where parts are transparent."""
    if picture.alpha is None:
        return picture.image[None]
    return torch.cat([picture.image, picture.alpha[..., None]], dim=-1)[None]


def _nothing_left(step: Step, entries: Sequence[Entry]) -> str:
    others = [f"{len(step.skipped)} skipped"] * bool(step.skipped) + [f"{len(step.failed)} failed"] * bool(step.failed)
    line = ", ".join([f"{step.done} of {len(entries)} done", *others])
    return f"nothing left: {line}" + ("; run again to try what failed" if step.failed else "")


def _problems(step: Step, before: str) -> list[str]:
    lines = _some([f"skipped: {line}" for line in step.skipped]) + _some([f"failed: {line}" for line in step.failed])
    if step.unsaved:
        name = printable(before + step.unsaved[-1])
        lines.append(f"nothing was saved as {name}: connect filename_prefix to Save Image, or it counts as not done")
    return lines


def _some(lines: list[str]) -> list[str]:
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], f"and {len(lines) - LINES + 1} more, see the log"]
