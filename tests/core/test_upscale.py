"""The command `upscale` with a checkpoint of a VAE's family, and something that stands in for VAE and text encoder."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pid_core import load_network
from pid_core.__main__ import main
from pid_core.captions.text import Caption, read_caption, write_caption
from pid_core.commands import bridges
from pid_core.images.framing import finish_image, plan_framing, prepare_image
from pid_core.latents.families import LATENT_FAMILIES
from pid_core.latents.files import SavedLatent, latent_bytes
from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.rgb import to_image
from pid_core.sampling.decode import decode
from pid_core.upscale import upscaler
from support.tiny import save_tiny, tiny_config, tiny_state_dict

WIDTH = 24  # of the tiny checkpoints' captions
GEMMA = {
    "model.embed_tokens.weight": torch.zeros(2, WIDTH),
    "model.layers.0.post_feedforward_layernorm.weight": torch.zeros(2),
    "spiece_model": torch.zeros(2, dtype=torch.uint8),
}


def a_vae(tensor="conv_in", channels=16, ndim=4, halves=("encoder", "decoder")):
    return {f"{half}.{tensor}.weight": torch.zeros(2, channels, *[1] * (ndim - 2)) for half in halves}


class FakeBridge:
    """Latents and captions that can be told from others; writes down what is asked of it."""

    def __init__(self, family, log):
        self.row, self.log = LATENT_FAMILIES[family], log

    def encode_picture(self, image):
        self.log.append("picture")
        down = self.row.down
        cells = image.movedim(-1, 1).unfold(2, down, down).unfold(3, down, down).mean((-1, -2))
        return cells.repeat(1, -(-self.row.channels // 3), 1, 1)[:, : self.row.channels]

    def encode_text(self, text):
        self.log.append(f"text {text!r}")
        return torch.full((1, 5, WIDTH), len(text) / 10)

    def free(self):
        self.log.append("free")


@pytest.fixture
def log(monkeypatch, tmp_path):
    """What happens, in its order: the bridge's calls, and when a network's weights are loaded."""
    done = []

    def loaded(*args, **options):
        done.append("network")
        return load_network(*args, **options)

    monkeypatch.setattr(bridges.BridgeFiles, "open", lambda files, device: FakeBridge(files.family, done))
    monkeypatch.setattr(bridges, "find_comfyui", lambda named=None: tmp_path)
    monkeypatch.setattr(upscaler, "load_network", loaded)
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "sd.py").touch()
    return done


@pytest.fixture
def folder(tmp_path):
    """photo.png, flux.safetensors, vae.safetensors, gemma.safetensors, caption.safetensors, noisy.latent."""
    pixels = np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    save_tiny(tmp_path / "flux.safetensors", "flux")
    save_file(a_vae(), tmp_path / "vae.safetensors")
    save_file(GEMMA, tmp_path / "gemma.safetensors")
    write_caption(tmp_path / "caption.safetensors", Caption(torch.randn(1, 5, WIDTH), "waves"))
    noisy = SavedLatent(torch.randn(1, 16, 2, 3), "flux", 0.25, (14, 23))
    (tmp_path / "noisy.latent").write_bytes(latent_bytes(noisy))
    return tmp_path


def upscale(folder, *arguments, model="flux.safetensors", out="out.png"):
    """The exit code. Arguments with a dot in them are files of the folder."""
    named = [str(folder / one) if "." in one and not one[0].isdecimal() else one for one in arguments]
    return main(["upscale", *named, "--model", str(folder / model), "-o", str(folder / out), "--device", "cpu"])


def picture(folder, out="out.png"):
    return np.asarray(Image.open(folder / out))


def eight_bits(image):
    return (image.clamp(0, 1) * 255).round().byte().numpy()


def test_text_then_picture_then_network_each_alone_in_memory(folder, log):
    files = ["--vae", "vae.safetensors", "--clip", "gemma.safetensors"]
    assert upscale(folder, "photo.png", *files, "--text", "a fox", "--sigma", "0.3", "--seed", "5", "--steps", "2") == 0
    assert log == ["text 'a fox'", "free", "picture", "free", "network"]
    image = torch.from_numpy(np.asarray(Image.open(folder / "photo.png")).astype(np.float32) / 255)[None]
    framing = plan_framing(9, 13, "flux", target="factor")
    lq = prepare_lq(FakeBridge("flux", []).encode_picture(prepare_image(image, framing)), "flux", 0.3, seed=5)
    options = {"steps": 2, "seed": 5, "size": framing.decoded}
    pixels = decode(
        load_network(folder / "flux.safetensors"), lq.latent, torch.full((1, 5, WIDTH), 0.5), 0.3, **options
    )
    assert (picture(folder) == eight_bits(finish_image(to_image(pixels), framing, image)[0])).all()


def test_a_latent_that_was_stopped_early_keeps_its_noise_and_size(folder, log):
    assert upscale(folder, "--latent", "noisy.latent", "--caption", "caption.safetensors", "--steps", "1") == 0
    assert log == ["network"]
    out = picture(folder)
    assert out.shape == (56, 92, 3)
    (folder / "out.png").unlink()
    clean = torch.randn(1, 16, 2, 3)
    (folder / "clean.latent").write_bytes(latent_bytes(SavedLatent(clean)))
    arguments = ["--latent", "clean.latent", "--caption", "caption.safetensors", "--steps", "1"]
    assert upscale(folder, *arguments, "--family", "flux", "--sigma", "0.5", "--seed", "3") == 0
    lq = prepare_lq(clean, "flux", 0.5, seed=3)
    caption = read_caption(folder / "caption.safetensors").states
    pixels = decode(load_network(folder / "flux.safetensors"), lq.latent, caption, 0.5, steps=1, seed=3)
    assert (picture(folder) == eight_bits(to_image(pixels)[0])).all()


def test_a_target_is_an_area(folder, log, monkeypatch):
    sizes = []

    def drawn(net, latent, size=None, **_):
        sizes.append(size)
        return torch.zeros(1, 3, *size)

    monkeypatch.setattr(upscaler, "decode", drawn)
    files = ["--vae", "vae.safetensors", "--caption", "caption.safetensors"]
    assert upscale(folder, "photo.png", *files, "--target", "2K") == 0
    height, width = picture(folder).shape[:2]
    assert abs(height * width / 2048**2 - 1) < 0.01 and abs(width / height - 13 / 9) < 0.01
    assert log == ["picture", "free", "network"] and sizes[0][0] >= height


NEEDS = ["--vae", "vae.safetensors", "--caption", "caption.safetensors"]
REFUSED = {
    "no VAE": (
        ["photo.png", "--caption", "caption.safetensors"],
        "flux.safetensors decodes latents of flux, not pictures: give the VAE of flux (ae.safetensors) with --vae, or "
        "a latent with --latent",
    ),
    "no text": (["photo.png", "--vae", "vae.safetensors"], "needs a text: give PiD's text encoder with --clip and"),
    "text without encoder": (["photo.png", *NEEDS, "--text", "a fox"], "name PiD's text encoder with --clip"),
    "two texts": (["photo.png", *NEEDS, "--clip", "gemma.safetensors"], "--clip and --caption are both given"),
    "nothing": (NEEDS, "there is nothing to enlarge: name a picture, or a latent with --latent"),
    "two sources": (["photo.png", "--latent", "noisy.latent"], "a picture and --latent are both given"),
    "a VAE for a latent": (["--latent", "noisy.latent", *NEEDS], "a latent needs no VAE"),
    "a factor for a latent": (["--latent", "noisy.latent", "--factor", "2"], "leave --factor and --target out"),
    "a batch": (["--latent", "batch.latent", *NEEDS[2:]], "the file holds 2 latents, and one is decoded at a time"),
    "another family's latent": (["--latent", "sdxl.latent", *NEEDS[2:]], "said to be of sdxl"),
    "another level": (["--latent", "noisy.latent", *NEEDS[2:], "--sigma", "0.5"], "stopped early at 0.25"),
    "SDXL's VAE": (
        ["photo.png", "--vae", "sdxl_vae.safetensors", *NEEDS[2:]],
        "sdxl_vae.safetensors is the VAE of sdxl (decoder.conv_in.weight of 4 channels), and the checkpoint takes "
        "latents of flux (decoder.conv_in.weight of 16 channels): give the VAE of flux, ae.safetensors",
    ),
    "Qwen-Image's VAE": (
        ["photo.png", "--vae", "qwen.safetensors", *NEEDS[2:]],
        "qwen.safetensors is the VAE of qwenimage (decoder.conv1.weight of 16 channels, 5 dimensions), and",
    ),
    "a VAE of SD3 by its name": (["photo.png", "--vae", "sd3_vae.safetensors", *NEEDS[2:]], "is the VAE of sd3"),
    "half a VAE": (["photo.png", "--vae", "half.safetensors", *NEEDS[2:]], "decodes, and no encoder"),
    "no VAE at all": (
        ["photo.png", "--vae", "gemma.safetensors", *NEEDS[2:]],
        "is no VAE of a family that PiD decodes",
    ),
    "no file": (["photo.png", "--vae", "gone.safetensors", *NEEDS[2:]], "no such file: gone.safetensors"),
    "no text encoder": (
        ["photo.png", *NEEDS[:2], "--clip", "vae.safetensors"],
        "vae.safetensors is not the text encoder that PiD was trained with, Gemma-2-2b: give gemma_2_2b_it_elm_bf16",
    ),
    "no tokenizer": (["photo.png", *NEEDS[:2], "--clip", "mute.safetensors"], "is Gemma-2 without its tokenizer"),
    "another width": (
        ["photo.png", *NEEDS[:2], "--clip", "wide.safetensors"],
        "makes captions 7 wide, and the checkpoint takes 24",
    ),
    "a caption of another width": (
        ["photo.png", *NEEDS[:2], "--caption", "wide_caption.safetensors"],
        "needs captions [B, tokens, 24], got [1, 3, 7]",
    ),
    "another family": (["photo.png", *NEEDS, "--family", "sd3"], "was made for flux, not for sd3: leave --family out"),
    "steps": (["photo.png", *NEEDS, "--steps", "5"], "steps is 5"),
    "sigma": (["photo.png", *NEEDS, "--sigma", "2"], "between 0 and 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_found_before_anything_is_loaded(folder, log, capsys, name):
    (folder / "batch.latent").write_bytes(latent_bytes(SavedLatent(torch.randn(2, 16, 2, 2), "flux")))
    (folder / "sdxl.latent").write_bytes(latent_bytes(SavedLatent(torch.randn(1, 4, 2, 2), "sdxl")))
    for file, tensors in {
        "sdxl_vae": a_vae(channels=4),
        "sd3_vae": a_vae(),
        "qwen": a_vae("conv1", ndim=5),
        "half": a_vae(halves=("decoder",)),
        "mute": {key: value for key, value in GEMMA.items() if key != "spiece_model"},
        "wide": GEMMA | {"model.embed_tokens.weight": torch.zeros(2, 7)},
    }.items():
        save_file(tensors, folder / f"{file}.safetensors")
    write_caption(folder / "wide_caption.safetensors", Caption(torch.ones(1, 3, 7)))
    arguments, words = REFUSED[name]
    assert upscale(folder, *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert log == [] and not (folder / "out.png").exists()


def test_a_family_that_the_file_does_not_tell_is_asked_for(folder, log, capsys):
    config = {"pid_config": json.dumps(asdict(tiny_config("flux")) | {"family": None})}
    save_file(tiny_state_dict("flux"), folder / "untold.safetensors", config)
    latent = ["--latent", "noisy.latent", *NEEDS[2:], "--steps", "1"]
    assert upscale(folder, *latent, model="untold.safetensors") == 1
    assert "untold.safetensors does not say which family's latents it takes: say so with --family" in (
        capsys.readouterr().err
    )
    assert upscale(folder, *latent, "--family", "flux", model="untold.safetensors") == 0


def test_the_bundled_models_family_takes_no_vae_and_no_text_encoder(folder, log, capsys):
    save_tiny(folder / "rgb.safetensors", "rgb", caption=3)
    assert upscale(folder, "photo.png", "--vae", "vae.safetensors", model="rgb.safetensors") == 1
    assert "rgb.safetensors takes pictures as they are: leave --vae out" in capsys.readouterr().err
    assert log == []


@pytest.mark.parametrize(("kind", "words"), [("pixeldit", "it draws from text alone"), ("undistilled", "undistilled")])
def test_a_checkpoint_that_is_no_decoder_is_refused_by_its_header(folder, log, capsys, kind, words):
    changes = {"schedule": "undistilled"} if kind == "undistilled" else {}
    save_tiny(folder / "other.safetensors", "pixeldit" if kind == "pixeldit" else "flux", **changes)
    assert upscale(folder, "photo.png", *NEEDS, model="other.safetensors") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pid_core: other.safetensors: ") and words in line and log == []


def test_memory_is_planned_with_the_weights_before_they_are_loaded(folder, log, monkeypatch, capsys):
    """What suffices for the decode alone does not for both."""
    whole = upscaler.Upscaler.load(folder / "flux.safetensors", torch.device("cpu"))
    weights = 4 * sum(one.numel() for one in whole.net.parameters())
    monkeypatch.setattr(upscaler, "free_memory", lambda device: free)
    size, free = plan_framing(9, 13, "flux", target="factor").decoded, 1e12
    need = whole.plan(size, 4).memory
    free = need + weights / 2
    assert whole.plan(size, 4).memory == need
    log.clear()
    assert upscale(folder, "photo.png", *NEEDS) == 1
    assert "too little memory for" in capsys.readouterr().err and log == []
    free = need + 2 * weights
    assert upscale(folder, "photo.png", *NEEDS, "--steps", "1") == 0


def test_without_comfyui_the_command_says_what_to_name(folder, log, monkeypatch, capsys):
    monkeypatch.setattr(bridges, "find_comfyui", lambda named=None: None)
    monkeypatch.setattr(bridges, "find_spec", lambda name: None)
    assert upscale(folder, "photo.png", *NEEDS) == 1
    assert 'name its folder with --comfyui PATH, or pip install ".[diffusers]"' in capsys.readouterr().err
    monkeypatch.setattr(bridges, "find_comfyui", lambda named=None: folder / "models")
    assert upscale(folder, "photo.png", *NEEDS) == 1
    assert "holds ComfyUI's models but not its code" in capsys.readouterr().err and log == []
