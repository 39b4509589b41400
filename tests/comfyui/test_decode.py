"""Our nodes in the real ComfyUI give what pid_core.sampling.decode gives on the same noise."""

import urllib.request

import numpy as np
import pytest
import torch

from comfy_server import PromptError
from pid_core import LATENT_FAMILIES, degrade, load_network
from pid_core.latents.rgb import to_image, to_rgb_latent
from support import inside
from support.graphs import decode_graph, image_nodes, link, put_latent, saved_pixels
from support.tiny import put_tiny

SEED = 5
CASES = {
    "flux": ("flux", "v1", (16, 2, 3)),
    "flux15": ("flux", "v1.5", (16, 2, 3)),
    "flux2": ("flux2", "v1", (128, 1, 2)),
    "flux2_15": ("flux2", "v1.5", (128, 1, 2)),
    "sdxl": ("sdxl", "v1", (4, 3, 2)),
    "qwenimage": ("qwenimage", "v1.5", (16, 2, 2)),
    "dinov2": ("dinov2", "v1", (768, 1, 2)),
    "siglip": ("siglip", "v1", (1152, 1, 1)),
    "rgb": ("rgb", "v1", (12, 5, 4)),
}


def model_for(comfy, case: str):
    family, version, _ = CASES[case]
    return put_tiny(comfy, f"tiny_{case}", family, version)


def raw_latent(case: str, batch: int = 1) -> torch.Tensor:
    return torch.randn((batch, *CASES[case][2]), generator=torch.Generator().manual_seed(1))


def by_core(path, latent, family, *, sigma=0.0, steps=4, noise_seed=0, seed=SEED, caption=None):
    """The same decode without ComfyUI: raw latent in, [B, 3, H, W] out."""
    net = load_network(path)
    lq = LATENT_FAMILIES[family].normalise(latent)
    if sigma:
        lq = degrade(lq, sigma, family, noise_seed)
    return inside.by_core(net, lq, sigma, caption, steps, seed=seed)


@pytest.mark.parametrize("case", CASES)
def test_equals_core(comfy, case):
    path, latent = model_for(comfy, case), raw_latent(case)
    done = comfy.queue(decode_graph(path.name, put_latent(comfy, case, latent)))
    expected = by_core(path, latent, CASES[case][0])
    assert torch.allclose(saved_pixels(comfy, done).clamp(-1, 1), expected, atol=2e-5)
    levels = (to_image(expected)[0] * 255).byte().numpy()  # SaveImage cuts off and does not round
    assert np.abs(comfy.images(done, "png")[0].astype(int) - levels).max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_fewer_steps_equal_core(comfy, steps):
    path, latent = model_for(comfy, "flux"), raw_latent("flux")
    graph = decode_graph(path.name, put_latent(comfy, "flux", latent), sampler={"steps": steps})
    expected = by_core(path, latent, "flux", steps=steps)
    assert torch.allclose(saved_pixels(comfy, comfy.queue(graph)).clamp(-1, 1), expected, atol=2e-5)


def test_noisy_batch_equals_core(comfy):
    path, latent = model_for(comfy, "sdxl"), raw_latent("sdxl", batch=2)
    extra = {"degrade_sigma": 0.4, "noise_seed": 11}
    done = comfy.queue(decode_graph(path.name, put_latent(comfy, "sdxl2", latent), conditioning=extra))
    expected = by_core(path, latent, "sdxl", sigma=0.4, noise_seed=11)
    assert expected.shape[0] == 2
    assert torch.allclose(saved_pixels(comfy, done).clamp(-1, 1), expected, atol=2e-5)


def test_kept_noise_is_not_added(comfy):
    path, latent = model_for(comfy, "flux"), raw_latent("flux")
    name = put_latent(comfy, "flux", latent)
    keep = {"degrade_sigma": 0.4, "latent_noise": "keep"}
    kept = saved_pixels(comfy, comfy.queue(decode_graph(path.name, name, conditioning=keep)))
    added = saved_pixels(comfy, comfy.queue(decode_graph(path.name, name, conditioning={"degrade_sigma": 0.4})))
    assert not torch.allclose(kept, added, atol=1e-3)


def test_custom_sampler_with_our_sigmas_equals_ksampler(comfy):
    path = model_for(comfy, "flux15")
    graph = decode_graph(path.name, put_latent(comfy, "flux15", raw_latent("flux15")))
    graph |= {
        "sigmas": {"class_type": "PiDKitSigmas", "inputs": {"steps": 4}},
        "lcm": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "lcm"}},
        "custom": {
            "class_type": "SamplerCustom",
            "inputs": {
                **{k: graph["sampler"]["inputs"][k] for k in ("model", "positive", "negative", "latent_image", "cfg")},
                "add_noise": True,
                "noise_seed": SEED,
                "sampler": link("lcm"),
                "sigmas": link("sigmas"),
            },
        },
        "save2": {
            "class_type": "SaveLatent",
            "inputs": {"samples": link("custom"), "filename_prefix": "pixels"},
        },
    }
    done = comfy.queue(graph)
    assert torch.equal(saved_pixels(comfy, done), saved_pixels(comfy, done, "save2"))


def test_custom_advanced_with_our_sigmas_equals_ksampler(comfy):
    path = model_for(comfy, "sdxl")
    graph = decode_graph(path.name, put_latent(comfy, "advanced", raw_latent("sdxl")), sampler={"steps": 3})
    graph |= {
        "sigmas": {"class_type": "PiDKitSigmas", "inputs": {"steps": 3}},
        "lcm": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "lcm"}},
        "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": SEED}},
        "guider": {
            "class_type": "CFGGuider",
            "inputs": {"model": link("model"), "positive": link("pid"), "negative": link("pid", 1), "cfg": 1.0},
        },
        "custom": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": link("noise"),
                "guider": link("guider"),
                "sampler": link("lcm"),
                "sigmas": link("sigmas"),
                "latent_image": link("pid", 2),
            },
        },
        "save2": {"class_type": "SaveLatent", "inputs": {"samples": link("custom"), "filename_prefix": "pixels"}},
    }
    done = comfy.queue(graph)
    assert torch.allclose(saved_pixels(comfy, done), saved_pixels(comfy, done, "save2"), atol=2e-5)


def test_interrupt_ends_the_run_and_the_next_one_works(comfy):
    path, latent = model_for(comfy, "flux"), put_latent(comfy, "stopped", raw_latent("flux", batch=4))
    steps = []

    def stop(kind, data):
        if kind == "progress" and not steps:
            steps.append(data["value"])
            request = urllib.request.Request(f"http://{comfy.address}/interrupt", method="POST")
            urllib.request.urlopen(request, timeout=20).close()

    with pytest.raises(PromptError, match="interrupted"):
        comfy.queue(decode_graph(path.name, latent, sampler={"steps": 400, "seed": 77}), on_event=stop)
    expected = by_core(path, raw_latent("flux", batch=4), "flux")
    done = comfy.queue(decode_graph(path.name, latent))
    assert torch.allclose(saved_pixels(comfy, done).clamp(-1, 1), expected, atol=2e-5)


def test_cfg_runs_with_both_conditionings_tagged(comfy):
    path, latent = model_for(comfy, "flux"), raw_latent("flux")
    graph = decode_graph(path.name, put_latent(comfy, "flux", latent), sampler={"cfg": 3.0})
    # negative is the positive again, so guidance changes nothing
    expected = by_core(path, latent, "flux")
    assert torch.allclose(saved_pixels(comfy, comfy.queue(graph)).clamp(-1, 1), expected, atol=1e-4)


def test_one_latent_serves_every_image_of_the_canvas(comfy):
    path, latent = model_for(comfy, "flux"), raw_latent("flux")
    graph = decode_graph(path.name, put_latent(comfy, "flux", latent))
    graph["repeat"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": link("pid", 2), "amount": 2}}
    graph["sampler"]["inputs"]["latent_image"] = link("repeat")
    pixels = saved_pixels(comfy, comfy.queue(graph)).clamp(-1, 1)
    difference = (pixels - by_core(path, latent.repeat(2, 1, 1, 1), "flux")).abs()
    # in places a rounding grows: 2.6e-5 was seen, and another when the file's header is longer
    assert difference.max() < 1e-4 and difference.mean() < 1e-6


def test_cores_conditioning_works_with_our_model(comfy):
    path, latent = model_for(comfy, "flux"), raw_latent("flux")
    graph = decode_graph(path.name, put_latent(comfy, "flux", latent))
    graph["core"] = {
        "class_type": "PiDConditioning",
        "inputs": {
            "positive": link("pid"),
            "latent": link("latent"),
            "latent_format": "flux",
            "degrade_sigma": 0.0,
        },
    }
    graph["canvas"] = {
        "class_type": "EmptyChromaRadianceLatentImage",
        "inputs": {"width": 96, "height": 64, "batch_size": 1},
    }
    graph["sampler"]["inputs"] |= {
        "positive": link("core"),
        "negative": link("core"),
        "latent_image": link("canvas"),
    }
    pixels = saved_pixels(comfy, comfy.queue(graph))
    assert torch.allclose(pixels.clamp(-1, 1), by_core(path, latent, "flux"), atol=2e-5)


def test_lora_changes_the_picture(comfy):
    path, latent = model_for(comfy, "flux"), put_latent(comfy, "flux", raw_latent("flux"))
    generator = torch.Generator().manual_seed(3)
    name = "diffusion_model.patch_blocks.0.attn.proj_x"
    from safetensors.torch import save_file

    save_file(
        {
            f"{name}.lora_A.weight": torch.randn(2, 32, generator=generator),
            f"{name}.lora_B.weight": torch.randn(32, 2, generator=generator),
        },
        comfy.models / "loras" / "tiny_lora.safetensors",
    )
    graph = decode_graph(path.name, latent)
    plain = saved_pixels(comfy, comfy.queue(graph))
    graph["lora"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"model": link("model"), "lora_name": "tiny_lora.safetensors", "strength_model": 1.0},
    }
    graph["sampler"]["inputs"]["model"] = link("lora")
    changed = saved_pixels(comfy, comfy.queue(graph))
    assert (changed - plain).abs().max() > 1e-2
    assert "lora key not loaded" not in comfy.log()


def test_rgb_latent_crops_if_asked_to(comfy):
    path = model_for(comfy, "rgb")
    picture = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    graph = decode_graph(path.name, "unused")
    graph["latent"] = {"class_type": "PiDKitRGBLatent", "inputs": {"image": link("load"), "odd_size": "crop"}}
    graph["load"] = {"class_type": "LoadImage", "inputs": {"image": comfy.upload(picture)}}
    latent = to_rgb_latent(torch.from_numpy(picture)[None] / 255.0, "crop")
    expected = by_core(path, latent, "rgb")
    assert expected.shape[-2:] == (40, 48)
    assert torch.allclose(saved_pixels(comfy, comfy.queue(graph)).clamp(-1, 1), expected, atol=2e-5)


@pytest.mark.parametrize("decoder", ["VAEDecode", "VAEDecodeTiled"])
@pytest.mark.parametrize("encoder", ["VAEEncode", "VAEEncodeTiled"])
def test_pixel_vae_is_exact(comfy, encoder, decoder):
    picture = np.random.default_rng(1).integers(0, 256, (83, 147, 3), dtype=np.uint8)
    tiles = {"tile_size": 64, "overlap": 32, "temporal_size": 64, "temporal_overlap": 8}
    graph = image_nodes("encode") | {
        "load": {"class_type": "LoadImage", "inputs": {"image": comfy.upload(picture)}},
        "encode": {
            "class_type": encoder,
            "inputs": {"pixels": link("load"), "vae": link("vae")} | (tiles if "Tiled" in encoder else {}),
        },
    }
    graph["image"]["class_type"] = decoder
    graph["image"]["inputs"] |= tiles if "Tiled" in decoder else {}
    assert np.array_equal(comfy.images(comfy.queue(graph), "png")[0], picture)
