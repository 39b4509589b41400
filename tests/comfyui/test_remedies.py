"""What the core refuses reaches a user of the nodes with the nodes' remedy, in the words he has always read."""

import pytest
import torch

LATENT = torch.ones(1, 16, 2, 2)
NOT_SD3 = "PiD Latent From Noisy was told that the latent is flux's, but it is to be decoded as sd3's: choose the same "
NANO = "this checkpoint takes 12, pictures from PiD RGB Latent"


@pytest.fixture
def explain(comfyui):
    return comfyui.module("nodes.comfy.remedies").explain


@pytest.fixture
def errors(comfyui):
    return comfyui.module("pid_core.errors")


def test_every_error_has_a_remedy(comfyui, errors):
    remedies = comfyui.module("nodes.comfy.remedies").REMEDIES
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PiDError)}
    assert remedies.keys() == kinds - {errors.PiDError, errors.NonFiniteError}  # those say all there is
    order = list(remedies)
    assert all(not issubclass(b, a) for i, a in enumerate(order) for b in order[i + 1 :])  # the special ones first


def test_the_words_are_those_of_before(explain, errors, comfyui):
    wrong_channels = comfyui.module("pid_core.latents.checks").wrong_channels
    lines = {
        errors.NoImageLatentError([16, 2, 2]): "the latent must have shape [B, C, h, w], got [16, 2, 2]: connect an "
        "image latent",
        errors.BrokenLatentError(3): "the latent holds 3 NaN or infinite values: the node that made it failed; change "
        "its settings or dtype",
        errors.BlankLatentError(): "the latent is blank, all its values are 0, as from an Empty Latent node: connect "
        "the latent of a sampler or of VAE Encode",
        wrong_channels(4, 16, blank=True): "the latent has 4 channels, sdxl; this checkpoint takes 16, flux, sd3 or "
        "qwenimage: connect a latent that the VAE of flux, sd3 or qwenimage made, or choose a PiD file for sdxl in PiD "
        "Loader. It is blank, as from an Empty Latent node",
        wrong_channels(48, 12): "the latent has 48 channels, as those of Wan 2.2 have, which PiD has no checkpoint "
        "for: turn it into a picture with VAE Decode, then use PiD RGB Latent",
        wrong_channels(3, 12): f"the latent has 3 channels, which is pixels; {NANO}: put PiD RGB Latent before it, "
        "with the picture",
        wrong_channels(4, 16, "flux"): "latent_format is flux, but the latent has 4 channels, sdxl: set latent_format "
        "to sdxl",
        wrong_channels(5, 16, "flux"): "latent_format is flux, but the latent has 5 channels, of no family that PiD "
        "knows: connect another latent",
        errors.WrongFamilyError("sdxl", None, 4, 16): "latent_format sdxl has 4 channels, this checkpoint takes 16: "
        "set latent_format to auto, or choose a PiD file for sdxl in PiD Loader",
        errors.CarriedFamilyError("flux", "sd3"): f"{NOT_SD3}latent_format there, or another file in PiD Loader",
        errors.CarriedNoiseError(0.25, [0.25], "add"): "the latent was stopped early and already carries noise of "
        "level 0.25; latent_noise add puts more on top, which PiD takes for picture: set it to keep",
        errors.CarriedNoiseError(0.25, [0.25], "scale"): "the latent was stopped early and already carries noise of "
        "level 0.25; latent_noise scale makes it weaker: set it to keep",
        errors.CarriedNoiseError(0.25, [0.5], "keep"): "degrade_sigma is 0.5, but the latent was stopped early and "
        "carries noise of level 0.25: connect degrade_sigma of PiD Early Stop",
        errors.NoStopLevelError(1.0): "degrade_sigma is 1, but a latent that can be decoded is at 0 to below 1: "
        "connect degrade_sigma of PiD Early Stop",
        errors.WrongSizeError("", (8, 12), (64, 96)): "the image is 12 x 8, but the picture from PiD Prepare Image "
        "decodes to 96 x 64: connect what PiD made of that picture",
        errors.BrokenCaptionError(2).within("a.safetensors"): "a.safetensors: the caption holds 2 NaN or infinite "
        "values: the text encoder failed; set device to cpu in Load CLIP",
        errors.WrongEncoderError("LuminaTEModel_"): "clip is LuminaTEModel_, which PiD was not trained with: use Load "
        "CLIP with type pixeldit and the file gemma_2_2b_it_elm_bf16.safetensors (or its fp8 form)",
        errors.WrongEncoderError("PixelDiTTE_", 77, 300): "the text encoder gave 77 tokens, PiD takes 300: use Load "
        "CLIP with type pixeldit",
    }
    for error, line in lines.items():
        assert explain(error) == line


def test_a_node_raises_it_so(comfyui, tmp_path):
    node = comfyui.nodes.PiDKitLatentFromNoisy
    with pytest.raises(ValueError, match="set latent_format to sdxl") as caught:
        node.execute({"samples": torch.ones(1, 4, 2, 2)}, "flux")
    assert type(caught.value) is ValueError


def test_pixel_space_vae_says_it_where_comfyuis_own_node_calls_it(comfyui):
    vae = comfyui.nodes.PiDKitPixelVAE.execute().args[0]
    with pytest.raises(ValueError, match="made it, not by Pixel-Space VAE") as caught:
        vae.decode(LATENT)
    assert type(caught.value) is ValueError
    with pytest.raises(ValueError, match="load the model with PiD Loader, which repeats"):
        vae.decode(torch.full((1, 3, 2, 2), float("nan")))
