"""What a LATENT says of itself holds for the samples it was written for, wherever they go, and for no others."""

import pytest
import torch

from pid_core.latents.early_stop import CarriedNoise


@pytest.fixture
def tags(comfyui):
    return comfyui.module("nodes.comfy.latent_tags")


@pytest.fixture
def sd3(tags):
    """Three sd3 latents, as PiD Load Latent gives them."""
    samples = torch.randn(3, 16, 2, 2, generator=torch.Generator().manual_seed(4))
    return tags.tagged({"samples": samples}, **{tags.FAMILY: "sd3"})


WAYS = {
    "plain": {"degrade_sigma": 0.2},
    "one image": {"degrade_sigma": 0.2},
    "sigma list": {"degrade_sigma": 0.0, "sigma_list": [0.0, 0.2, 0.4]},
}


@pytest.mark.parametrize("way", [*WAYS, "sweep", "conditioning"])
def test_a_latent_of_another_family_is_refused_by_every_way(comfyui, tags, sd3, way):
    """Decoded one by one it lost the tag, and was drawn by a flux checkpoint without a word."""
    patcher, _ = comfyui.load("flux")
    nodes = comfyui.nodes
    with pytest.raises(ValueError, match="the latent was saved as sd3, this checkpoint was made for flux"):
        if way == "sweep":
            nodes.PiDKitSigmaSweep.execute([patcher], [sd3], [2], ["0, 0.4"], ["0"], [1])
        elif way == "conditioning":
            nodes.PiDKitConditioning.execute(sd3, "auto", 0.0, "add", 0, model=patcher)
        else:
            latent = tags.slice_latent(sd3, 1) if way == "one image" else sd3
            nodes.PiDKitDecode.execute(patcher, latent, steps=1, seed=0, **WAYS[way])


def test_noise_is_known_where_images_are_decoded_one_by_one(comfyui, tags):
    patcher, _ = comfyui.load("sd3")
    noisy = tags.tagged({"samples": torch.randn(2, 16, 1, 1)}, **{tags.NOISE: CarriedNoise("sd3", 0.3)})
    jobs, per_image = (comfyui.module(f"nodes.shared.{name}") for name in ("jobs", "per_image"))
    shared = jobs.Shared(patcher, None, 1)
    conditioning = per_image.condition_job(shared, jobs.Job(tags.slice_latent(noisy, 1), 0.3, 0))
    assert conditioning.lq.family.name == "sd3"
    assert any("already carries noise of level 0.3" in str(one) for one in conditioning.lq.warnings)


def test_a_tag_follows_its_latents_and_no_others(tags, sd3):
    import nodes as core

    read = tags.read_tag
    from_batch = core.LatentFromBatch().frombatch(sd3, 1, 2)[0]
    repeated = core.RepeatLatentBatch().repeat(from_batch, 2)[0]
    assert read(from_batch, tags.FAMILY) == read(repeated, tags.FAMILY) == "sd3"
    resized = core.LatentUpscale().upscale(sd3, "nearest-exact", 64, 64, "disabled")[0]
    sampled = sd3 | {"samples": torch.randn(3, 16, 2, 2)}  # as KSampler: a copy of the dict, other samples
    for changed in (resized, sampled):
        assert tags.FAMILY in changed and read(changed, tags.FAMILY) is None


def test_a_slice_takes_what_belongs_to_its_image(tags):
    latent = {
        "samples": torch.arange(3.0).view(3, 1, 1, 1),
        "noise_mask": torch.arange(3.0).view(3, 1, 1),
        "batch_index": [4, 5, 6],
    }
    one = tags.slice_latent(latent, 1)
    assert (float(one["samples"]), float(one["noise_mask"]), one["batch_index"]) == (1, 1, [5])
    assert torch.equal(
        tags.slice_latent(latent | {"noise_mask": torch.ones(1, 1, 1)}, 2)["noise_mask"], torch.ones(1, 1, 1)
    )


def test_a_blank_latent_is_said(comfyui):
    """Empty Latent Image wired by mistake: it decodes to a grey."""
    patcher, _ = comfyui.load("flux")
    blank = torch.cat([torch.randn(1, 16, 1, 1), torch.zeros(1, 16, 1, 1)])
    made = comfyui.module("nodes.conditioning").condition({"samples": blank}, patcher)
    (line,) = [line for line in comfyui.module("nodes.conditioning").describe(made) if "blank" in line]
    assert "Empty Latent" in line and "VAE Encode" in line


@pytest.mark.parametrize("channels", [48, 64])
@pytest.mark.parametrize("family", ["flux", "rgb", None])
def test_latents_of_models_that_pid_has_no_checkpoint_for(comfyui, channels, family):
    model = comfyui.load(family)[0] if family else None
    with pytest.raises(ValueError, match="Wan 2.2|Qwen-Image 2.1") as caught:
        comfyui.nodes.PiDKitConditioning.execute(
            latent={"samples": torch.randn(1, channels, 2, 2)},
            latent_format="auto",
            degrade_sigma=0.0,
            latent_noise="add",
            noise_seed=0,
            positive=[[torch.zeros(1, 3, 24), {}]],
            model=model,
        )
    assert "VAE Decode" in str(caught.value)
    assert ("PiD RGB Latent" if family == "rgb" else "VAE Encode") in str(caught.value)
