"""The command line behind ComfyUI's own VAE and text encoder, without its server, against what the nodes make."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import comfy_env
from pid_bridges.comfyui import ComfyBridge
from pid_bridges.diffusers import DiffusersBridge
from pid_core import decode, load_network
from pid_core.__main__ import main
from pid_core.captions.text import Caption, write_caption
from pid_core.commands.bridges import vae_file
from pid_core.images.framing import finish_image, plan_framing
from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.rgb import to_image
from support.tiny import save_tiny
from support.tiny_gemma import SIZES, save_encoder
from support.tiny_vae import save_family_vae

FAMILIES = ("flux", "sdxl", "qwenimage")
TEXT = "a red fox in the snow"
TEXTS = ["", " ", "portrait (smiling:1.5), \\(8k\\) embedding:EasyNegative 狐", "waves " * 400]
STEPS, SEED = 2, 11
CPU = torch.device("cpu")
# As a user's shell starts it, but for the sizes of Gemma-2, which ComfyUI fixes.
DRIVER = """
import functools, json, sys
import pid_bridges.comfyui as bridge
from pid_core.__main__ import main

whole = bridge.import_comfy

def small(folder, device):
    comfy = whole(folder, device)
    import comfy.text_encoders.llama as llama
    llama.Gemma2_2B_Config = functools.partial(llama.Gemma2_2B_Config, **json.loads(sys.argv[1]))
    return comfy

bridge.import_comfy = small
assert "comfy" not in sys.modules
codes = [main(arguments) for arguments in json.loads(sys.argv[2])]
leaked = sorted(name for name in ("nodes", "server", "execution", "folder_paths") if name in sys.modules)
print(json.dumps([codes, leaked]))
"""


@pytest.fixture(scope="module")
def comfyui_folder(comfyui):
    return comfy_env.find_comfyui()[0]


@pytest.fixture(scope="module")
def files(comfyui, tmp_path_factory):
    """A picture, a text encoder, and for each family a VAE and a checkpoint without a caption of its own."""
    folder = tmp_path_factory.mktemp("bridges")
    pixels = np.random.default_rng(2).integers(0, 256, (17, 22, 3), dtype=np.uint8)
    Image.fromarray(np.kron(pixels, np.ones((3, 3, 1), np.uint8))).save(folder / "photo.png")
    save_encoder(folder / "gemma.safetensors")
    for family in FAMILIES:
        save_family_vae(folder / f"{family}_vae.safetensors", family)
        save_tiny(folder / f"{family}.safetensors", family)
    return folder


@pytest.fixture
def small_gemma(comfyui, monkeypatch):
    import comfy.text_encoders.llama as llama

    monkeypatch.setattr(llama, "Gemma2_2B_Config", functools.partial(llama.Gemma2_2B_Config, **SIZES))


def image_of(files):
    return torch.from_numpy(np.asarray(Image.open(files / "photo.png")).astype(np.float32) / 255)[None]


@pytest.fixture(scope="module")
def by_nodes(comfyui, files):
    """by_nodes(family): the latent of PiD Prepare Image behind VAELoader, and the picture it was made from."""
    import comfy.sd
    import comfy.utils

    @functools.cache
    def encoded(family):
        path = str(files / f"{family}_vae.safetensors")
        prepare = comfyui.nodes.PiDKitPrepareImage.execute
        with torch.inference_mode():
            tensors, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
            vae = comfy.sd.VAE(sd=tensors, metadata=metadata)
            prepared, _, latent = prepare(image_of(files), "factor", family, "pad", 4.0, vae).args
        return latent["samples"].clone(), prepared.clone()

    return encoded


@pytest.fixture(scope="module")
def drawn(files, comfyui_folder):
    """What the command line makes of the picture behind Flux' and Qwen-Image's VAE, in one process of its own."""
    write_caption(files / "caption.safetensors", Caption(torch.randn(1, 300, 24), "waves"))
    common = [str(files / "photo.png"), "--steps", str(STEPS), "--seed", str(SEED), "--device", "cpu"]
    texts = {
        "flux": ["--clip", str(files / "gemma.safetensors"), "--text", TEXT],
        "qwenimage": ["--caption", str(files / "caption.safetensors")],
    }
    runs = [
        [*common, *_named(files, family), *text, "--comfyui", str(comfyui_folder)] for family, text in texts.items()
    ]
    command = [sys.executable, "-W", "error", "-c", DRIVER, json.dumps(SIZES), json.dumps(runs)]
    done = subprocess.run(command, cwd=comfy_env.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(out=done.stdout.splitlines(), err=done.stderr)


def _named(files, family):
    return [
        *("--model", str(files / f"{family}.safetensors")),
        *("--vae", str(files / f"{family}_vae.safetensors")),
        *("-o", str(files / f"{family}.png")),
    ]


def expected(by_nodes, files, family, caption):
    """The same picture by the node's latent and the core's decode: [H, W, 3] uint8."""
    image, (latent, _) = image_of(files), by_nodes(family)
    framing = plan_framing(*image.shape[1:3], family, target="factor")
    lq = prepare_lq(latent, family)
    net = load_network(files / f"{family}.safetensors")
    pixels = decode(net, lq.latent, caption, steps=STEPS, seed=SEED, size=framing.decoded)
    whole = finish_image(to_image(pixels), framing, image)[0]
    return (whole * 255).round().byte().numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_latent_is_the_nodes(by_nodes, comfyui_folder, files, family):
    wanted, prepared = by_nodes(family)
    bridge = ComfyBridge(comfyui_folder, CPU, vae=files / f"{family}_vae.safetensors")
    found = bridge.encode_picture(prepared)
    assert found.std() > 0.01 and found.dtype == torch.float32 and not found.is_inference()
    assert torch.equal(found, wanted.reshape(found.shape))
    bridge.free()
    assert torch.equal(bridge.encode_picture(torch.cat([prepared, prepared.flip(1)]))[:1], found)


@pytest.mark.parametrize("text", [TEXT, *TEXTS])
def test_the_caption_is_pid_captions(comfyui, comfyui_folder, files, small_gemma, text, caplog):
    bridge = ComfyBridge(comfyui_folder, CPU, clip=files / "gemma.safetensors")
    with torch.inference_mode():
        clip = comfyui.load_clip(files / "gemma.safetensors")
        (((wanted, _),),) = comfyui.nodes.PiDKitCaption.execute(text, False, clip).args
    caplog.clear()
    found = bridge.encode_text(text)
    assert found.shape == (1, 300, 24) and torch.equal(found, wanted)
    assert ("the text is too long: its last" in caplog.text) == (len(text) > 1000)


def test_a_picture_goes_through_comfyuis_vae_without_its_server(by_nodes, comfyui_folder, files, small_gemma, drawn):
    assert json.loads(drawn.out[-1]) == [[0, 0], []]
    assert [Path(line).name for line in drawn.out[:-1]] == ["flux.png", "qwenimage.png"]
    lines = [line for line in drawn.err.splitlines() if "FLOP/s" not in line]
    assert lines[:3] == ["encoding the text", "encoding the picture", lines[2]] and "66 x 51 -> 264 x 204" in lines[2]
    caption = ComfyBridge(comfyui_folder, CPU, clip=files / "gemma.safetensors").encode_text(TEXT)
    assert np.array_equal(np.asarray(Image.open(files / "flux.png")), expected(by_nodes, files, "flux", caption))
    saved = load_file(files / "caption.safetensors")["caption"]
    assert np.array_equal(
        np.asarray(Image.open(files / "qwenimage.png")), expected(by_nodes, files, "qwenimage", saved)
    )


def test_batch_draws_the_same(comfyui_folder, files, drawn, tmp_path):
    command = [sys.executable, "-m", "pid_core", "batch", str(files / "photo.png"), "--out", str(tmp_path)]
    command += [*_named(files, "qwenimage")[:4], "--caption", str(files / "caption.safetensors"), "--name", "{stem}"]
    command += ["--steps", str(STEPS), "--seed", str(SEED), "--threads", "1", "--comfyui", str(comfyui_folder)]
    done = subprocess.run(command, cwd=comfy_env.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, wanted = (np.asarray(Image.open(path)) for path in (tmp_path / "photo.png", files / "qwenimage.png"))
    assert np.array_equal(found, wanted)


def test_it_finds_the_comfyui_around_the_pack(by_nodes, comfyui_folder, files, tmp_path):
    """By the path in custom_nodes, from another folder, with nothing said of ComfyUI."""
    caption = torch.randn(1, 300, 24)
    write_caption(tmp_path / "caption.safetensors", Caption(caption, "waves"))
    pack = comfyui_folder / "custom_nodes" / comfy_env.find_comfyui()[1]
    command = [sys.executable, str(pack), "upscale", str(files / "photo.png"), *_named(files, "sdxl")]
    command += ["--caption", str(tmp_path / "caption.safetensors"), "--steps", str(STEPS), "--seed", str(SEED)]
    env = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    done = subprocess.run([*command, "--device", "cpu"], cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.asarray(Image.open(files / "sdxl.png")), expected(by_nodes, files, "sdxl", caption))


def test_a_damaged_vae_is_refused(comfyui, comfyui_folder, files, tmp_path, caplog):
    """ComfyUI logs what is missing, and encodes with random weights."""
    weights = load_file(files / "qwenimage_vae.safetensors")
    del weights["encoder.middle.0.residual.2.weight"]
    save_file(weights, tmp_path / "half.safetensors")
    bridge = ComfyBridge(comfyui_folder, CPU, vae=tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match="half.safetensors lacks weights that belong to it") as refused:
        bridge.encode_picture(torch.rand(1, 32, 32, 3))
    assert "encoder.middle.0.residual.2.weight" in str(refused.value) and "\n" not in str(refused.value)
    assert not caplog.text


def test_weights_of_another_shape_are_one_line(comfyui, comfyui_folder, files, tmp_path):
    weights = load_file(files / "qwenimage_vae.safetensors")
    weights["encoder.conv1.weight"] = torch.zeros(9, 3, 3, 3, 3)
    save_file(weights, tmp_path / "odd.safetensors")
    bridge = ComfyBridge(comfyui_folder, CPU, vae=tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="odd.safetensors cannot be loaded by ComfyUI; it is damaged") as refused:
        bridge.encode_picture(torch.rand(1, 32, 32, 3))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_makes_the_same_latent(by_nodes, files, family):
    wanted, prepared = by_nodes(family)
    bridge = DiffusersBridge(CPU, vae=files / f"{family}_vae.safetensors")
    found = bridge.encode_picture(prepared)
    assert torch.allclose(found, wanted.reshape(found.shape), atol=2e-5) and not found.is_inference()
    bridge.free()
    assert torch.equal(bridge.encode_picture(torch.cat([prepared, prepared.flip(1)]))[:1], found)


@pytest.mark.parametrize("text", [TEXT, *TEXTS])
def test_transformers_makes_the_same_caption(comfyui_folder, files, small_gemma, text, caplog):
    wanted = ComfyBridge(comfyui_folder, CPU, clip=files / "gemma.safetensors").encode_text(text)
    caplog.clear()
    found = DiffusersBridge(CPU, clip=files / "gemma.safetensors").encode_text(text)
    assert torch.allclose(found, wanted, atol=1e-4) and wanted.std() > 0.1
    assert ("the text is too long: its last" in caplog.text) == (len(text) > 1000)


def test_diffusers_takes_a_folder_of_its_own_and_flux_2(by_nodes, files, tmp_path):
    """As diffusers writes a VAE, and Flux.2's, whose cells are two by two and normalised."""
    from diffusers import AutoencoderKLFlux2

    torch.manual_seed(3)
    vae = AutoencoderKLFlux2(block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
                             up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1).eval()  # fmt: skip
    vae.bn.running_mean.normal_()
    vae.save_pretrained(tmp_path / "vae")
    image = torch.rand(1, 32, 48, 3)
    with torch.inference_mode():
        raw = vae.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mode()
        wanted = vae.bn(raw.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3))
    found = DiffusersBridge(CPU, vae=vae_file(str(tmp_path / "vae"))).encode_picture(image)
    assert found.shape == (1, 128, 8, 12) and torch.allclose(found, wanted, atol=1e-5)


def test_diffusers_refuses_what_is_damaged_in_one_line(comfyui, files, tmp_path):
    weights = load_file(files / "qwenimage_vae.safetensors")
    odd = {"odd.safetensors": weights | {"encoder.conv1.bias": torch.zeros(9)}}
    lost = "encoder.middle.0.residual.2.weight"
    odd["half.safetensors"] = {name: value for name, value in weights.items() if name != lost}
    odd["other.safetensors"] = {"decoder.conv_in.weight": torch.zeros(1, 16, 3, 3)}
    for (name, tensors), words in zip(
        odd.items(), ("damaged or another kind", "lacks weights that belong", "damaged or another kind"), strict=True
    ):
        save_file(tensors, tmp_path / name)
        with pytest.raises(ValueError, match=words) as refused:
            DiffusersBridge(CPU, vae=tmp_path / name).encode_picture(torch.rand(1, 32, 32, 3))
        assert name in str(refused.value) and "\n" not in str(refused.value)


def test_diffusers_draws_where_there_is_no_comfyui(files, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("pid_core.commands.bridges.find_comfyui", lambda named: None)
    arguments = [str(files / "photo.png"), *_named(files, "qwenimage")[:4], "-o", str(tmp_path / "photo.png")]
    arguments += ["--caption", str(files / "caption.safetensors"), "--steps", str(STEPS), "--seed", str(SEED)]
    assert main([*arguments, "--device", "cpu"]) == 0
    found, wanted = (np.asarray(Image.open(path)) for path in (tmp_path / "photo.png", files / "qwenimage.png"))
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_what_was_not_named_is_said(comfyui_folder):
    bridge = ComfyBridge(comfyui_folder, CPU)
    with pytest.raises(ValueError, match="there is no --vae"):
        bridge.encode_picture(torch.rand(1, 32, 32, 3))
    with pytest.raises(ValueError, match="there is no --clip"):
        bridge.encode_text("")
