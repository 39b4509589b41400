"""Bad input gets one readable line in ComfyUI's error box, and the server lives on."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from support.failures import fails
from support.graphs import decode_graph, image_nodes, link, put_latent
from support.tiny import put_tiny, save_tiny


class Unsafe:
    """Pickles to a call of print."""

    def __reduce__(self):
        return print, ("ran",)


def graph_for(comfy, name: str, latent: torch.Tensor, family: str = "flux", **conditioning) -> dict:
    return decode_graph(
        put_tiny(comfy, f"bad_{family}", family).name, put_latent(comfy, name, latent), conditioning=conditioning
    )


def test_a_file_that_went_away(comfy):
    path = put_tiny(comfy, "bad_gone")
    graph = decode_graph(path.name, put_latent(comfy, "gone", torch.zeros(1, 16, 2, 2)))
    comfy.object_info("PiDKitLoader")
    path.unlink()
    fails(comfy, graph, "bad_gone.safetensors")


def test_a_truncated_file(comfy):
    path = put_tiny(comfy, "bad_short")
    path.write_bytes(path.read_bytes()[:-1000])
    fails(comfy, decode_graph(path.name, put_latent(comfy, "short", torch.zeros(1, 16, 2, 2))), "truncated")


def test_a_corrupt_file(comfy):
    path = comfy.models / "diffusion_models" / "bad_noise.safetensors"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    fails(
        comfy,
        decode_graph(path.name, put_latent(comfy, "noise", torch.zeros(1, 16, 2, 2))),
        "bad_noise",
        "corrupt",
    )


def test_a_pth_that_would_run_code(comfy):
    path = comfy.models / "diffusion_models" / "bad_code.pth"
    torch.save({"net.weight": Unsafe()}, path)
    graph = decode_graph(path.name, put_latent(comfy, "code", torch.zeros(1, 16, 2, 2)))
    fails(comfy, graph, "bad_code.pth")


def test_a_truncated_pth(comfy):
    path = comfy.models / "diffusion_models" / "bad_short.pth"
    torch.save({"net.weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    fails(comfy, decode_graph(path.name, put_latent(comfy, "pth", torch.zeros(1, 16, 2, 2))), "truncated")


def test_a_file_that_is_no_pid(comfy):
    path = comfy.models / "diffusion_models" / "bad_vae.safetensors"
    save_file({"decoder.conv_in.weight": torch.zeros(4, 4, 3, 3), "encoder.conv_in.weight": torch.zeros(4)}, path)
    fails(comfy, decode_graph(path.name, put_latent(comfy, "vae", torch.zeros(1, 16, 2, 2))), "no PiD", "VAE")


def test_a_missing_tensor(comfy):
    from support.tiny import tiny_state_dict

    path = comfy.models / "diffusion_models" / "bad_missing.safetensors"
    weights = tiny_state_dict()
    del weights["net.final_layer.linear.weight"]
    save_file(weights, path)
    graph = decode_graph(path.name, put_latent(comfy, "missing", torch.zeros(1, 16, 2, 2)))
    fails(comfy, graph, "missing", "final_layer.linear.weight")


def test_the_wrong_family_for_a_file(comfy):
    graph = graph_for(comfy, "family", torch.zeros(1, 16, 2, 2))
    graph["model"]["inputs"]["family"] = "sdxl"
    fails(comfy, graph, "sdxl", "16")


LATENTS = {
    "channels": (torch.ones(1, 4, 2, 2), ("4 channels", "16")),
    "empty_latent_node": (torch.zeros(1, 4, 2, 2), ("4 channels", "It is blank", "Empty Latent node")),
    "wan_2_2": (torch.ones(1, 48, 2, 2), ("48 channels", "Wan 2.2", "VAE Decode", "VAE Encode", "flux")),
    "qwen_2_1": (torch.ones(1, 64, 2, 2), ("64 channels", "Qwen-Image 2.1", "VAE Decode", "VAE Encode")),
    "rank3": (torch.zeros(16, 2, 2), ("shape",)),
    "frames": (torch.zeros(1, 16, 5, 2, 2), ("5 frames",)),
    "nan": (torch.full((1, 16, 2, 2), float("nan")), ("NaN",)),
    "inf": (torch.full((1, 16, 2, 2), float("inf")), ("infinite",)),
    "empty": (torch.zeros(1, 16, 0, 2), ("empty",)),
    "no_images": (torch.zeros(0, 16, 2, 2), ("empty",)),
}


@pytest.mark.parametrize("name", LATENTS)
def test_a_latent_that_does_not_fit(comfy, name):
    latent, words = LATENTS[name]
    fails(comfy, graph_for(comfy, f"bad_{name}", latent), *words)


def test_a_single_frame_is_fine(comfy):
    done = comfy.queue(graph_for(comfy, "frame", torch.zeros(1, 16, 1, 2, 2)))
    assert comfy.images(done, "png")[0].shape == (64, 64, 3)


def test_a_format_other_than_the_models(comfy):
    fails(comfy, graph_for(comfy, "fmt", torch.zeros(1, 16, 2, 2), latent_format="sd3"), "sd3", "flux")


def test_sixteen_channels_without_a_model(comfy):
    graph = graph_for(comfy, "ambiguous", torch.zeros(1, 16, 2, 2))
    graph["source"] = graph["pid"] | {"inputs": dict(graph["pid"]["inputs"])}
    graph["pid"]["inputs"].pop("model")
    graph["pid"]["inputs"]["positive"] = link("source")
    fails(comfy, graph, "flux", "sd3", "qwenimage")


def test_no_text_and_no_model(comfy):
    graph = graph_for(comfy, "textless", torch.zeros(1, 16, 2, 2), latent_format="flux")
    graph["pid"]["inputs"].pop("model")
    fails(comfy, graph, "positive", "model")


def test_a_model_without_a_caption_of_its_own(comfy):
    path = comfy.models / "diffusion_models" / "bad_mute.safetensors"
    save_tiny(path)
    fails(comfy, decode_graph(path.name, put_latent(comfy, "mute", torch.zeros(1, 16, 2, 2))), "caption")


@pytest.mark.parametrize("size", [(64, 96), (60, 64)])
def test_a_canvas_of_another_size(comfy, size):
    graph = graph_for(comfy, "canvas", torch.zeros(1, 16, 2, 2))
    pixels = put_latent(comfy, "canvas_pixels", torch.zeros(1, 3, *size))
    graph["canvas"] = {"class_type": "LoadLatent", "inputs": {"latent": pixels}}
    graph["sampler"]["inputs"]["latent_image"] = link("canvas")
    fails(comfy, graph, f"{size[1]} x {size[0]}", "64 x 64")


def test_counts_that_do_not_match(comfy):
    graph = graph_for(comfy, "counts", torch.zeros(2, 16, 2, 2))
    graph["three"] = {
        "class_type": "EmptyChromaRadianceLatentImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 3},
    }
    graph["sampler"]["inputs"]["latent_image"] = link("three")
    fails(comfy, graph, "2 images", "holds 3")


def test_a_sigma_outside_0_to_1(comfy):
    fails(comfy, graph_for(comfy, "sigma", torch.zeros(1, 16, 2, 2), degrade_sigma=1.5), "degrade_sigma", "1.5")
    fails(comfy, graph_for(comfy, "sigma", torch.zeros(1, 16, 2, 2), degrade_sigma=-0.1), "degrade_sigma")


def test_a_sigma_above_the_trained_range_only_warns(comfy):
    comfy.queue(graph_for(comfy, "high", torch.zeros(1, 16, 2, 2), degrade_sigma=0.9))
    assert "0.9 is above 0.8" in comfy.log()


def test_an_image_with_an_odd_side(comfy):
    graph = {
        "load": {"class_type": "LoadImage", "inputs": {"image": comfy.upload(np.zeros((8, 7, 3), np.uint8))}},
        "rgb": {"class_type": "PiDKitRGBLatent", "inputs": {"image": link("load"), "odd_size": "error"}},
        "save": {"class_type": "SaveLatent", "inputs": {"samples": link("rgb"), "filename_prefix": "odd"}},
    }
    fails(comfy, graph, "7 x 8", "odd_size")


def test_a_latent_of_a_vae_is_no_image(comfy):
    graph = image_nodes("latent")
    graph["latent"] = {
        "class_type": "LoadLatent",
        "inputs": {"latent": put_latent(comfy, "four", torch.zeros(1, 4, 8, 8))},
    }
    fails(comfy, graph, "[1, 4, 8, 8]")
