"""Time and memory of a large picture in context windows, through a real ComfyUI on the CPU.

    python -m benchmarks.large_canvas [--side 8192] [--steps 4] [--out picture.png]

Lays photos side by side, a quarter of the side large, and runs example_workflows/api/pid_context_window_demo.json on
them. Prints the plan, the seconds, and the most memory the server process ever held (VmHWM: with files mapped into it).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from benchmarks.photos import load_photos

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import comfy_env  # noqa: E402
from comfy_server import ComfyServer, temporary_folder  # noqa: E402


def mosaic(side: int) -> Image.Image:
    """Photos in rows until a square of this side is full."""
    photos = [photo for _, photo in load_photos()]
    rows, height, index = [], 0, 0
    while height < side:
        row, width = [], 0
        while width < side:
            photo = photos[index % len(photos)][:, :288]
            row, width, index = [*row, photo], width + photo.shape[2], index + 1
        rows.append(torch.cat(row, dim=2)[:, :, :side])
        height += 288
    pixels = (torch.cat(rows, dim=1)[:, :side] * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def most_memory(pid: int) -> float:
    """GB that a process held at most."""
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--out", type=Path, default=None, help="where to write the picture")
    args = parser.parse_args()
    graph = json.loads(
        (ROOT / "example_workflows" / "api" / "pid_context_window_demo.json").read_text(encoding="utf-8")
    )
    file = io.BytesIO()
    mosaic(args.side // 4).save(file, "PNG")
    comfyui, pack = comfy_env.find_comfyui()
    with (
        temporary_folder() as folder,
        ComfyServer(comfyui, comfy_env.python(), Path(folder), pack=pack) as server,
    ):
        print(f"memory before: {most_memory(server.pid):.2f} GB", flush=True)
        for node in graph.values():
            if node["class_type"] == "LoadImage":
                node["inputs"]["image"] = server.upload_image(file.getvalue(), "mosaic.png")
            if node["class_type"] == "KSampler":
                node["inputs"]["steps"] = args.steps
        start = time.monotonic()

        def tell(kind: str, data: dict) -> None:
            if kind == "text":
                print(data["text"], flush=True)
            if kind == "progress":
                took, memory = time.monotonic() - start, most_memory(server.pid)
                print(f"  {data['value']}/{data['max']} {took:.0f} s, {memory:.2f} GB", flush=True)

        done = server.queue(graph, on_event=tell, timeout=4 * 3600)
        print(f"{args.side} x {args.side}, {args.steps} steps: {time.monotonic() - start:.0f} s")
        print(f"most memory: {most_memory(server.pid):.2f} GB")
        if args.out:
            args.out.write_bytes(server.image_files(done)[0])


if __name__ == "__main__":
    main()
