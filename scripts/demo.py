"""The demo: the bundled photo to four times its size, through a real ComfyUI where there is one.

Writes output/demo_4x.png, and output/demo_before_after.png: another photo, made four times smaller, enlarged by the
same workflow and shown beside its original. Without ComfyUI the core alone draws the same pictures: same settings,
same noise.
"""

from __future__ import annotations

import copy
import io
import json
import sys
from pathlib import Path

import torch
from PIL import Image

import beside_original
import comfy_env
from beside_original import as_tensor, to_picture
from comfy_env import ROOT

PHOTO = ROOT / "example_workflows" / "pidkit_photo.png"
GRAPH = ROOT / "example_workflows" / "api" / "pid_upscale_demo.json"
OUTPUT = ROOT / "output"


def node(graph: dict, class_type: str) -> dict:
    """The inputs of the graph's one node of this class."""
    return next(entry["inputs"] for entry in graph.values() if entry["class_type"] == class_type)


def show(text: str, end: str = "\n") -> None:
    print(f"\rdemo: {text}", end=end, flush=True)


def through_comfyui(graph: dict, small: Image.Image) -> list[Image.Image]:
    """Runs the graph in a ComfyUI of its own, with the photo that it names and with `small`; returns what it saved."""
    from comfy_server import ComfyServer, temporary_folder

    comfyui, pack = comfy_env.find_comfyui()
    cpu = not torch.cuda.is_available()
    other = copy.deepcopy(graph)
    with temporary_folder() as folder:
        show(f"starting ComfyUI on {'the CPU' if cpu else 'the GPU'}")
        with ComfyServer(comfyui, comfy_env.python(), Path(folder), pack=pack, cpu=cpu) as server:
            file = io.BytesIO()
            small.save(file, "PNG")
            node(other, "LoadImage")["image"] = server.upload_image(file.getvalue(), "demo_small.png")
            return [through_server(server, each) for each in (graph, other)]


def through_server(server, graph: dict) -> Image.Image:
    """Runs the graph in a running ComfyServer; returns the saved image."""
    titles = {key: entry.get("_meta", {}).get("title", entry["class_type"]) for key, entry in graph.items()}

    def report(kind: str, data: dict) -> None:
        if kind == "executing" and data.get("node"):
            show(titles.get(data["node"], data["node"]))
        elif kind == "progress":
            done, whole = data["value"], data["max"]
            bar = "#" * round(24 * done / whole)
            show(f"  [{bar:<24}] {done}/{whole}", end="\n" if done == whole else "")

    files = server.image_files(server.queue(graph, on_event=report, timeout=3600))
    return Image.open(io.BytesIO(files[0])).convert("RGB")


def through_the_core(graph: dict, photo: Image.Image) -> Image.Image:
    """The same picture by `pid_core` alone: the graph's settings, ComfyUI's noise."""
    from pid_core import NANO_PATH, decode, degrade, load_network
    from pid_core.sampling.comfy_noise import comfy_noise, comfy_step_noise

    sampler, conditioning = node(graph, "KSampler"), node(graph, "PiDKitConditioning")
    seed, steps, sigma = sampler["seed"], sampler["steps"], conditioning.get("degrade_sigma", 0.0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = load_network(NANO_PATH, device=device)
    pixels = as_tensor(photo)
    latent = torch.nn.functional.pixel_unshuffle(pixels * 2 - 1, 2)
    if sigma and conditioning.get("latent_noise", "add") == "add":
        latent = degrade(latent, sigma, "rgb", conditioning.get("noise_seed", 0))
    shape = (1, 3, 4 * pixels.shape[2], 4 * pixels.shape[3])
    image = decode(
        net,
        latent.to(device),
        degrade_sigma=sigma,
        steps=steps,
        noise=comfy_noise(shape, seed).to(device),
        step_noise=comfy_step_noise(shape, seed, steps - 1, device),
        callback=lambda done, whole, _: show(f"  step {done}/{whole}", end="\n" if done == whole else ""),
    )
    # SaveImage cuts off below the 8-bit level and does not round.
    levels = ((image[0].permute(1, 2, 0) + 1) / 2 * 255).clamp(0, 255).byte()
    return Image.fromarray(levels.cpu().numpy())


def main() -> int:
    graph = json.loads(GRAPH.read_text(encoding="utf-8"))
    small = to_picture(beside_original.small_one())
    with Image.open(PHOTO) as file:
        photo = file.convert("RGB")
    try:
        comfy_env.find_comfyui()
    except (FileNotFoundError, ValueError) as error:
        show(f"NO COMFYUI: {error}")
        show("the core alone decodes instead, to the same pictures")
        result, restored = (through_the_core(graph, picture) for picture in (photo, small))
    else:
        from comfy_server import PromptError, ServerError

        try:
            result, restored = through_comfyui(graph, small)
        except (PromptError, ServerError) as error:
            show(str(error))
            return 1
    OUTPUT.mkdir(exist_ok=True)
    picture, sheet = OUTPUT / "demo_4x.png", OUTPUT / "demo_before_after.png"
    result.save(picture)
    show(f"{photo.width} x {photo.height} -> {result.width} x {result.height}: {picture}")
    beside_original.draw(as_tensor(restored), node(graph, "KSampler")["steps"]).save(sheet)
    show(f"a photo made four times smaller, restored, and its original: {sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
