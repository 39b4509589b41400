"""Draws example_workflows/NAME.jpg, which the template browser shows: results of the bundled model where a workflow
runs on it, else a drawing of what comes out, labelled as such. `make thumbnails`, or with NAME ... only those.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache, partial

import torch
from PIL import Image, ImageDraw, ImageFont

from comfy_env import ROOT
from lighthouse import lighthouse
from workflow_graphs import PAINTED

sys.path.insert(0, str(ROOT))
from pid_core import NANO_PATH, decode, load_network, touch_up
from pid_core.hub.model_sets import BUNDLED_SET
from pid_core.images.check import check_picture
from pid_core.images.quality import estimate_quality, suggest_sigma
from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.rgb import to_image, to_pixels, to_rgb_latent
from pid_core.latents.sigma_map import SigmaMap, SigmaMask

FOLDER = ROOT / "example_workflows"
SIDE, LARGEST = 512, 60_000  # pixels, bytes of a file
CENTRES = ((0.3, 0.4), (0.5, 0.4), (0.45, 0.35))  # of what is shown of the three example pictures
INK, SHADE = (255, 255, 255), (0, 0, 0)


@cache
def network():
    return load_network(NANO_PATH)


@cache
def photo(name: str, node: int = 0) -> Image.Image:
    """The picture that a workflow reads, the first or a later one."""
    names = [entry["inputs"]["image"] for entry in api(name).values() if entry["class_type"] == "LoadImage"]
    names = names or sorted(path.name for path in FOLDER.glob("pidkit_photo*.png"))  # of PiD Next Picture
    with Image.open(FOLDER / names[node]) as file:
        return file.convert("RGB")


def api(name: str) -> dict:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def steps(name: str) -> int | None:
    """How many a workflow takes; None where it leaves that to the checkpoint."""
    counts = [entry["inputs"]["steps"] for entry in api(name).values() if "steps" in entry["inputs"]]
    return (counts[0] or None) if counts else None


def latent_noise(name: str) -> str:
    """What a workflow does with the noise of its latents."""
    given = (node["inputs"].get("latent_noise") for node in api(name).values())
    return next((value for value in given if value), BUNDLED_SET.latent_noise)


@cache
def restored(name: str, node: int = 0, sigma: float = 0.0) -> Image.Image:
    """Its picture, four times as large by the bundled model with the workflow's own number of steps."""
    latent = to_rgb_latent(values(photo(name, node))[None])
    lq = prepare_lq(latent, "rgb", sigma_map(name) or sigma, latent_noise=latent_noise(name))
    pixels = decode(network(), lq.latent, degrade_sigma=lq.sigma, steps=steps(name), seed=0)
    return Image.fromarray((to_image(pixels)[0] * 255).round().byte().numpy())


def sigma_map(name: str) -> SigmaMap | None:
    """That of a workflow with PiD Sigma Map, by the paint on its picture."""
    (node, *_) = [entry["inputs"] for entry in api(name).values() if entry["class_type"] == "PiDKitSigmaMap"] or [None]
    if node is None:
        return None
    return SigmaMap((node["base_sigma"],), (SigmaMask(paint(), node["sigma_inside"], node["feather"]),))


def paint() -> torch.Tensor:
    """What is painted on the example picture for it, [1, H, W]."""
    with Image.open(FOLDER / PAINTED) as file:
        return 1 - values(file.getchannel("A").convert("RGB"))[None, ..., 0]


def values(picture: Image.Image) -> torch.Tensor:
    """[H, W, 3] in [0, 1]."""
    levels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return levels.view(picture.height, picture.width, 3).float() / 255


def suggested(picture: Image.Image) -> float:
    """degrade_sigma that PiD Sigma Tuner suggests for it, with the bundled model."""
    return suggest_sigma(estimate_quality(values(picture)), invents=network().config.invents)


def window(picture: Image.Image, centre: tuple[float, float], part: float, size: tuple[int, int]) -> Image.Image:
    """The part of a picture around a point (fractions), as high as that part of its height, at this size."""
    height = part * picture.height
    width = height * size[0] / size[1]
    left = min(max(centre[0] * picture.width - width / 2, 0), picture.width - width)
    top = min(max(centre[1] * picture.height - height / 2, 0), picture.height - height)
    return picture.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))


def write(card: Image.Image, text: str, at: tuple[float, float], size: int = 24, anchor: str = "la") -> None:
    pen = ImageDraw.Draw(card)
    pen.text(at, text, INK, ImageFont.load_default(size), anchor, stroke_width=max(2, size // 9), stroke_fill=SHADE)


def before_and_after(name: str, centre: tuple[float, float], part: float, node: int = 0) -> Image.Image:
    """Left the picture as it was, right by the bundled model."""
    sizes = ((SIDE // 2, SIDE), (SIDE // 2, SIDE))
    card = Image.new("RGB", (SIDE, SIDE))
    whole = [window(picture, centre, part, (SIDE, SIDE)) for picture in (photo(name, node), restored(name, node))]
    for i, (picture, size) in enumerate(zip(whole, sizes, strict=True)):
        card.paste(picture.crop((i * size[0], 0, (i + 1) * size[0], SIDE)), (i * size[0], 0))
    ImageDraw.Draw(card).line((SIDE / 2, 0, SIDE / 2, SIDE), INK, 3)
    write(card, "before", (16, SIDE - 16), anchor="ld")
    write(card, "4x", (SIDE - 16, SIDE - 16), 36, anchor="rd")
    return card


def touched(name: str, centre: tuple[float, float], part: float) -> Image.Image:
    """Left the enlarged picture, right the same with its painted part drawn again."""
    (node,) = [entry["inputs"] for entry in api(name).values() if entry["class_type"] == "PiDKitTouchUp"]
    whole, latent = restored(name), to_rgb_latent(values(photo(name))[None])
    lq = prepare_lq(latent, "rgb", node["degrade_sigma"], latent_noise=node["latent_noise"])
    mask = torch.nn.functional.interpolate(paint()[None], size=whole.size[::-1], mode="bilinear").clamp(0, 1)
    options = {"degrade_sigma": lq.sigma, "seed": node["seed"], "feather": node["feather"]}
    pixels = touch_up(network(), to_pixels(values(whole)[None]), lq.latent, mask, **options)
    again = Image.fromarray((to_image(pixels)[0] * 255).round().byte().numpy())
    card, half = Image.new("RGB", (SIDE, SIDE)), SIDE // 2
    for i, picture in enumerate((whole, again)):
        card.paste(window(picture, centre, part, (half, SIDE)), (i * half, 0))
    ImageDraw.Draw(card).line((half, 0, half, SIDE), INK, 3)
    write(card, "before", (16, SIDE - 16), anchor="ld")
    write(card, "drawn again", (SIDE - 16, SIDE - 16), anchor="rd")
    return card


def checked(name: str, centre: tuple[float, float], part: float) -> Image.Image:
    """`before_and_after`, with the first figures of PiD Check."""
    card = before_and_after(name, centre, part)
    found = check_picture(values(restored(name)), values(photo(name))).check
    lines = (f"{found.close.agreement:.0f} dB from the source", f"edges {found.sharpness:.1f} times as steep")
    for i, line in enumerate((*lines, "structure changed nowhere" if found.place is None else "structure changed")):
        write(card, line, (SIDE - 16, 16 + 34 * i), anchor="ra")
    return card


def windows(name: str) -> Image.Image:
    """The enlarged picture with overlapping windows over it, one of them in full light."""
    picture = window(restored(name), (0.33, 0.4), 0.75, (SIDE, SIDE))
    card = Image.blend(picture, Image.new("RGB", (SIDE, SIDE)), 0.45)
    pen, side, step = ImageDraw.Draw(card), 206, 153
    boxes = [
        (x, y, x + side, y + side) for y in range(0, SIDE - side + 1, step) for x in range(0, SIDE - side + 1, step)
    ]
    for box in boxes:
        pen.rectangle(box, outline=(200, 200, 200), width=2)
    card.paste(picture.crop(boxes[4]), boxes[4][:2])
    pen.rectangle(boxes[4], outline=(255, 200, 40), width=4)
    write(card, "in windows", (16, SIDE - 16), anchor="ld")
    return card


def each(
    name: str,
    sigmas: tuple[float, ...] | None = None,
    label: str = "{sigma:g}",
    size: int = 30,
    title: str = "before",
) -> Image.Image:
    """The three example pictures, above as they were, below each with a strength of its own, and a label.

    sigmas: None for what is suggested.
    """
    sigmas = sigmas or tuple(suggested(photo(name, i)) for i in range(len(CENTRES)))
    card = Image.new("RGB", (SIDE, SIDE), (20, 20, 22))
    box, gap = ((SIDE - 8) // 3, SIDE // 2 - 2), 4
    for i, (sigma, centre) in enumerate(zip(sigmas, CENTRES, strict=True)):
        x = i * (box[0] + gap)
        card.paste(window(photo(name, i), centre, 0.75, box), (x, 0))
        card.paste(window(restored(name, i, sigma), centre, 0.75, box), (x, box[1] + gap))
        write(card, label.format(sigma=sigma, number=i + 1), (x + 12, SIDE - 12), size, anchor="ld")
    write(card, title, (SIDE - 12, 10), anchor="ra")
    return card


def sweep(name: str, sigmas: tuple[float, ...]) -> Image.Image:
    """One picture at four strengths."""
    card = Image.new("RGB", (SIDE, SIDE), (20, 20, 22))
    side = SIDE // 2 - 2
    for i, sigma in enumerate(sigmas):
        at = (i % 2 * (side + 4), i // 2 * (side + 4))
        card.paste(window(restored(name, 0, sigma), (0.45, 0.3), 0.6, (side, side)), at)
        write(card, f"{sigma:g}", (at[0] + 12, at[1] + side - 10), 30, anchor="ld")
    return card


def schematic(name: str, *, title: str, small: str, large: str, hue: float, noisy: bool = False) -> Image.Image:
    """A small latent and the large picture drawn from it: a drawing by code, not a result."""
    scene = lighthouse(SIDE, hue)
    card = scene.copy()
    pen = ImageDraw.Draw(card)
    write(card, title, (SIDE - 20, 18), 38, anchor="ra")  # the template browser has its badge at the left
    write(card, large, (SIDE - 18, SIDE - 44), 30, anchor="rd")
    write(card, "schematic drawing, not a result", (SIDE - 18, SIDE - 14), 16, anchor="rd")
    if small:
        side, at = SIDE // 4, (22, SIDE - 22 - SIDE // 4)
        latent = scene.resize((16, 16), Image.Resampling.BOX)
        if noisy:
            noise = Image.effect_noise((16, 16), 90).convert("RGB")
            latent = Image.blend(latent, noise, 0.4)
        box = (*at, at[0] + side, at[1] + side)
        card.paste(latent.resize((side, side), Image.Resampling.NEAREST), at)
        pen.rectangle(box, outline=INK, width=3)
        write(card, small, (at[0] + 1, at[1] - 8), 18, anchor="ld")
    return card


def generator(title: str, hue: float, **more) -> Callable[[str], Image.Image]:
    values = {"small": "latent of 1024 x 1024", "large": "4096 x 4096"} | more
    return partial(schematic, title=title, hue=hue, **values)


PICTURES: dict[str, Callable[[str], Image.Image]] = {
    "pid_upscale": partial(before_and_after, centre=(0.33, 0.4), part=0.75),
    "pid_upscale_demo": partial(before_and_after, centre=(0.66, 0.38), part=0.6),
    "pid_upscale_and_check": partial(checked, centre=(0.45, 0.35), part=0.7),
    "pid_context_window_demo": windows,
    "pid_folder_to_4k": partial(each, sigmas=(0.0,) * 3, label="{number} of 3", size=24, title="a folder"),
    "pid_folder_auto_strength": partial(each, label="auto: {sigma:g}", size=24, title="a folder"),
    "pid_tune_per_image": partial(each, sigmas=(0.0, 0.0, 0.1)),
    "pid_sigma_sweep": partial(sweep, sigmas=(0.0, 0.1, 0.2, 0.3)),
    "pid_paint_sigma": partial(before_and_after, centre=(0.31, 0.4), part=0.6),
    "pid_touch_up": partial(touched, centre=(0.31, 0.34), part=0.5),
    "pid_with_flux_upscale_picture": generator("Photo to 2K", 0.0, small="photo", large="2048 x 2048"),
    "pid_with_flux_to_4k": generator("FLUX.1", 0.1),
    "pid_with_flux_early_stop": generator("FLUX.1, 24 of 28 steps", 0.2, small="noisy latent", noisy=True),
    "pid_with_flux2_klein_to_4k": generator("FLUX.2 Klein", 0.3),
    "pid_with_z_image_turbo_to_4k": generator("Z-Image-Turbo", 0.4),
    "pid_with_sd3_to_4k": generator("SD 3.5", 0.5),
    "pid_with_sdxl_to_4k": generator("SDXL", 0.6),
    "pid_with_qwen_image_to_4k": generator("Qwen-Image", 0.7),
    "pid_with_dinov2_to_2k": generator("DINOv2", 0.75, small="512 x 512", large="2048 x 2048"),
    "pid_with_siglip_to_2k": generator("SigLIP 2", 0.85, small="256 x 256", large="2048 x 2048"),
    "pid_with_cfg_undistilled_flux": generator("25 steps, cfg 5", 0.8, small="photo", large="four times"),
    "pid_with_pixeldit_text_to_image": generator("PixelDiT", 0.9, small="", large="text to 1024 x 1024"),
}


def save(card: Image.Image, name: str) -> None:
    """As JPEG, no larger than LARGEST."""
    path = FOLDER / f"{name}.jpg"
    for quality in range(90, 50, -5):
        card.save(path, quality=quality, subsampling=0, optimize=True)
        if path.stat().st_size <= LARGEST:
            break
    print(path)


def main(names: list[str]) -> int:
    for name in names or PICTURES:
        card = PICTURES[name](name)
        for file in (name, f"{name}.app"):
            if (FOLDER / f"{file}.json").exists():
                save(card, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
