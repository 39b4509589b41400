"""A degrade_sigma per picture: each is decoded as it would be alone, and only where something changed."""

import numpy as np
import pytest
import torch
from PIL import Image

from support.failures import fails
from support.graphs import link
from support.tiny import save_tiny

BUNDLED = "pid_nano (bundled)"
SIGMAS = [0.1, 0.5, 0.75]


# Another workflow, whose image has another size: with it ComfyUI drops what it holds of the one before.
OTHER = {
    "image": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "png": {"class_type": "PreviewImage", "inputs": {"images": link("image")}},
}


@pytest.fixture(autouse=True)
def nothing_kept(comfy):
    """What an earlier test drew is not taken by the next."""
    comfy.queue(OTHER)


@pytest.fixture(scope="module")
def model(comfy) -> str:
    return save_tiny(comfy.models / "diffusion_models" / "tuner.safetensors", "rgb", "v1.5", caption=3).name


@pytest.fixture(scope="module")
def photos(comfy) -> list[str]:
    """Four pictures of one size, in the input folder."""
    generator = np.random.default_rng(3)
    return [comfy.upload(generator.integers(0, 256, (16, 24, 3), dtype=np.uint8), f"tuner_{i}.png") for i in range(4)]


def tuner_graph(model: str, photos: list[str], sigmas=SIGMAS, **tuner) -> dict:
    """Photos, batched, into PiD RGB Latent, PiD Sigma Tuner and PiD Decode."""
    if isinstance(sigmas, list):
        sigmas = {"__value__": sigmas}  # as the front end sends a list; a bare one would be a wire
    graph = {
        "model": {"class_type": "PiDKitLoader", "inputs": {"model_name": model, "dtype": "auto"}},
        "latent": {"class_type": "PiDKitRGBLatent", "inputs": {"image": None, "odd_size": "error"}},
        "tuner": {
            "class_type": "PiDKitSigmaTuner",
            "inputs": {"image": None, "default_sigma": 0.0, "sigmas": sigmas, "pictures": ""} | tuner,
        },
        "decode": {
            "class_type": "PiDKitDecode",
            "inputs": {
                "model": link("model"),
                "latent": link("latent"),
                "sigma_list": link("tuner"),
                "degrade_sigma": 0.0,
                "steps": 2,
                "seed": 5,
            },
        },
        "png": {"class_type": "SaveImage", "inputs": {"images": link("decode"), "filename_prefix": "tuner"}},
    }
    for i, name in enumerate(photos):
        graph[f"photo{i}"] = {"class_type": "LoadImage", "inputs": {"image": name}}
        both = {"image1": link(f"batch{i - 1}"), "image2": link(f"photo{i}")}
        graph[f"batch{i}"] = {"class_type": "ImageBatch", "inputs": both} if i else graph["photo0"]
    for node in ("latent", "tuner"):
        graph[node]["inputs"]["image"] = link(f"batch{len(photos) - 1}")
    return graph


def alone(comfy, model: str, photo: str, sigma: float) -> np.ndarray:
    graph = tuner_graph(model, [photo])
    graph["decode"]["inputs"] |= {"degrade_sigma": sigma}
    del graph["decode"]["inputs"]["sigma_list"], graph["tuner"]
    # the same numbers, but another model to ComfyUI: nothing drawn before is taken
    graph["model"]["inputs"]["dtype"] = "float32"
    return comfy.images(comfy.queue(graph), "png")[0]


def run(comfy, graph: dict):
    """What the graph gives, and how often the network ran."""
    before = comfy.network_calls()
    done = comfy.queue(graph)
    return done, comfy.network_calls() - before


def shown(done) -> list[dict]:
    return done.outputs["tuner"]["pidkit_pictures"]


def test_three_photos_three_sigmas_each_as_alone(comfy, model, photos):
    done, calls = run(comfy, tuner_graph(model, photos[:3]))
    images = comfy.images(done, "png")
    assert len(images) == 3 and calls == 6
    for photo, sigma, image in zip(photos, SIGMAS, images, strict=False):
        assert np.array_equal(image, alone(comfy, model, photo, sigma))
        assert not np.array_equal(image, alone(comfy, model, photo, 0.3))


def test_only_what_changed_is_decoded_again(comfy, model, photos):
    graph = tuner_graph(model, photos[:3], [0.2, 0.3, 0.4])
    _, calls = run(comfy, graph)
    assert calls == 6
    graph["tuner"]["inputs"]["sigmas"] = {"__value__": [0.2, 0.35, 0.4]}
    done, calls = run(comfy, graph)
    assert calls == 2
    assert np.array_equal(comfy.images(done, "png")[1], alone(comfy, model, photos[1], 0.35))
    graph["decode"]["inputs"]["seed"] = 6
    assert run(comfy, graph)[1] == 6
    graph["decode"]["inputs"]["steps"] = 1
    assert run(comfy, graph)[1] == 3
    graph["model"]["inputs"]["dtype"] = "bfloat16"
    assert run(comfy, graph)[1] == 3


def test_pictures_that_stay_keep_value_and_result(comfy, model, photos):
    graph = tuner_graph(model, photos[:3], [0.21, 0.31, 0.41])
    first, _ = run(comfy, graph)
    ids = [entry["id"] for entry in shown(first)]
    before = comfy.images(first, "png")
    kept = {"sigmas": [0.21, 0.31, 0.41], "pictures": {"__value__": ids}, "default_sigma": 0.6}
    done, calls = run(comfy, tuner_graph(model, [photos[2], photos[3], photos[0]], **kept))
    assert [entry["sigma"] for entry in shown(done)] == [0.41, 0.6, 0.21]
    assert calls == 2
    after = comfy.images(done, "png")
    assert np.array_equal(after[0], before[2]) and np.array_equal(after[2], before[0])
    assert np.array_equal(after[1], alone(comfy, model, photos[3], 0.6))


def test_values_as_text_and_no_values(comfy, model, photos):
    done, _ = run(comfy, tuner_graph(model, photos[:2], sigmas="0.1, 0.5"))
    assert [entry["sigma"] for entry in shown(done)] == [0.1, 0.5]
    done, _ = run(comfy, tuner_graph(model, photos[:2], sigmas="", default_sigma=0.25))
    assert [entry["sigma"] for entry in shown(done)] == [0.25, 0.25]


def test_pictures_of_a_list_are_counted_through(comfy, model, photos):
    graph = tuner_graph(model, photos[:3])
    graph["list"] = {"class_type": "RebatchImages", "inputs": {"images": link("batch2"), "batch_size": 1}}
    for node in ("latent", "tuner"):
        graph[node]["inputs"]["image"] = link("list")
    graph["tuner"]["inputs"]["latent"] = link("latent")
    images = comfy.images(run(comfy, graph)[0], "png")
    assert len(images) == 3
    for photo, sigma, image in zip(photos, SIGMAS, images, strict=False):
        assert np.array_equal(image, alone(comfy, model, photo, sigma))
    run(comfy, graph)
    graph["tuner"]["inputs"]["sigmas"] = {"__value__": [0.1, 0.55, 0.75]}
    assert run(comfy, graph)[1] == 2


def test_the_node_gets_what_it_shows(comfy, model, photos):
    done, _ = run(comfy, tuner_graph(model, photos[:2], [0.1, 0.2]))
    for entry in shown(done):
        assert 0 <= entry["suggestion"] <= 0.8
        for size in ("thumbnail", "large"):
            assert comfy.view(entry[size])[:2] == b"\xff\xd8"


def test_blur_counts_only_for_a_model_that_can_invent(comfy, model, root):
    photos = sorted((root / "example_workflows").glob("*photo*.png"))  # as it is, blurred, noisy
    names = [comfy.upload(Image.open(photo).convert("RGB"), photo.name) for photo in photos]

    def suggestions(model: str | None) -> list[float]:
        graph = tuner_graph(model or BUNDLED, names, sigmas="")
        del graph["decode"], graph["png"]
        graph["tuner"]["inputs"] |= {"model": link("model")} if model else {}
        return [entry["suggestion"] for entry in shown(comfy.queue(graph))]

    good, soft, grainy = suggestions(BUNDLED)
    assert good <= 0.05 and soft <= 0.05 and grainy >= 0.1
    assert suggestions(None) == [good, soft, grainy]
    assert [a - b for a, b in zip(suggestions(model), [good, soft, grainy], strict=True)][1] >= 0.3


@pytest.mark.parametrize("count", [1, 2, 4])
def test_another_number_of_values_is_an_error(comfy, model, photos, count):
    graph = tuner_graph(model, photos[:3], [0.1] * count)
    fails(comfy, graph, f"sigmas has {count} values", "3 images")


@pytest.mark.parametrize(
    ("sigmas", "words"), [("0.1, x, 0.3", "sigmas must be numbers"), ("0, 0, 2", "between 0 and 1")]
)
def test_values_that_are_none(comfy, model, photos, sigmas, words):
    fails(comfy, tuner_graph(model, photos[:3], sigmas), words)


def test_latents_of_other_pictures(comfy, model, photos):
    graph = tuner_graph(model, photos[:3])
    graph["other"] = graph["latent"] | {"inputs": {"image": link("batch1"), "odd_size": "error"}}
    graph["tuner"]["inputs"]["latent"] = link("other")
    fails(comfy, graph, "image holds 3 pictures, latent 2")
    del graph["tuner"]["inputs"]["latent"]
    graph["decode"]["inputs"]["latent"] = link("other")
    fails(comfy, graph, "sigma_list has 3 values, latent holds 2 images")


def sweep_graph(model: str, photos: list[str], **sweep) -> dict:
    graph = tuner_graph(model, photos)
    del graph["decode"], graph["tuner"]
    inputs = {"model": link("model"), "latent": link("latent"), "picture": 1, "steps": 2, "seeds": "5"}
    graph["sweep"] = {"class_type": "PiDKitSigmaSweep", "inputs": inputs | {"sigmas": "0.1, 0.5"} | sweep}
    graph["png"]["inputs"]["images"] = link("sweep")
    graph["sheet"] = {"class_type": "SaveImage", "inputs": {"images": link("sweep", 1), "filename_prefix": "sheet"}}
    return graph


def test_a_sweep_shows_what_decoding_gives(comfy, model, photos):
    large = str(2**64 - 2)  # JavaScript's numbers do not hold it; with one more ComfyUI's sampler itself fails
    options = {"picture": 2, "sigmas": "0, 0.5, 0.5", "seeds": f"5, {large}"}
    done, calls = run(comfy, sweep_graph(model, photos[:3], **options))
    images = comfy.images(done, "png")
    assert len(images) == 4 and calls == 8
    assert np.array_equal(images[0], alone(comfy, model, photos[1], 0.0))
    assert np.array_equal(images[1], alone(comfy, model, photos[1], 0.5))
    assert not np.array_equal(images[1], images[3])
    tiles = done.outputs["sweep"]["pidkit_tiles"]
    tried = [(0.0, "5"), (0.5, "5"), (0.0, large), (0.5, large)]
    assert [(tile["sigma"], tile["seed"]) for tile in tiles] == tried
    assert all(comfy.view(tile["image"])[:2] == b"\xff\xd8" for tile in tiles)
    (sheet,) = comfy.images(done, "sheet")
    assert sheet.shape[0] > 2 * 64 and sheet.shape[1] > 2 * 96
    assert (sheet > 200).any(), "no label"


def test_a_sweep_draws_only_what_is_new(comfy, model, photos):
    graph = sweep_graph(model, photos[:1], seeds="8")
    assert run(comfy, graph)[1] == 4
    graph["sweep"]["inputs"]["sigmas"] = "0.1, 0.5, 0.6"
    assert run(comfy, graph)[1] == 2


def test_what_the_sweep_drew_is_not_decoded_again(comfy, model, photos):
    graph = tuner_graph(model, photos[:2], [0.15, 0.85])
    sweep = sweep_graph(model, photos[:2], picture=2, sigmas="0.35, 0.45")["sweep"]
    wires = {name: graph["decode"]["inputs"][name] for name in ("model", "latent")}
    graph["sweep"] = sweep | {"inputs": sweep["inputs"] | wires}
    decode = graph.pop("decode")
    png = graph.pop("png")
    graph["sweep_png"] = png | {"inputs": png["inputs"] | {"images": link("sweep")}}
    done, calls = run(comfy, graph)
    assert calls == 4
    tried = comfy.images(done, "sweep_png")

    graph |= {"decode": decode, "png": png}
    graph["tuner"]["inputs"]["sigmas"] = {"__value__": [0.15, 0.45]}
    done, calls = run(comfy, graph)
    chosen = comfy.images(done, "png")
    assert calls == 2 and np.array_equal(chosen[1], tried[1])
    assert np.array_equal(chosen[1], alone(comfy, model, photos[1], 0.45))
    run(comfy, graph)

    # the other way round, and only where everything is the same
    graph["sweep"]["inputs"] |= {"picture": 1, "sigmas": "0.15, 0.45"}
    assert run(comfy, graph)[1] == 2
    graph["sweep"]["inputs"]["seeds"] = "6"
    assert run(comfy, graph)[1] == 4
    graph["sweep"]["inputs"] |= {"seeds": "5", "steps": 1}
    assert run(comfy, graph)[1] == 2


def test_one_picture_with_a_number_takes_what_the_sweep_drew(comfy, model, photos):
    graph = sweep_graph(model, photos[:1], sigmas="0.22, 0.32")
    run(comfy, graph)
    graph["decode"] = tuner_graph(model, photos[:1])["decode"]
    graph["decode"]["inputs"] |= {"degrade_sigma": 0.32}
    del graph["decode"]["inputs"]["sigma_list"]
    graph["decoded"] = {"class_type": "SaveImage", "inputs": {"images": link("decode"), "filename_prefix": "one"}}
    done, calls = run(comfy, graph)
    assert calls == 0
    assert np.array_equal(comfy.images(done, "decoded")[0], comfy.images(done, "png")[1])
    graph["decode"]["inputs"] |= {"window_mode": "manual", "window_size": 1024, "window_overlap": 128}
    assert run(comfy, graph)[1] == 2


def test_images_drawn_before_go_with_what_comfyui_drops(comfy, model, photos):
    graph = tuner_graph(model, photos[:3], [0.19, 0.29, 0.39])
    size = comfy.images(run(comfy, graph)[0], "png")[0].shape[:2]
    assert comfy.image_bytes(*size) >= 3 * 3 * 4 * size[0] * size[1]

    comfy.queue(OTHER)
    assert freed(comfy, size)

    assert run(comfy, graph)[1] == 6
    comfy.post("/free", {"unload_models": True, "free_memory": True})
    assert freed(comfy, size)


def freed(comfy, size: tuple[int, int]) -> bool:
    """The server frees when it comes to it: asks until it has, or until it has had every chance."""
    return any(comfy.image_bytes(*size) == 0 for _ in range(500))


class Model:
    """Something to hold images for."""


def test_the_images_kept_have_a_bound(comfyui):
    cache = comfyui.module("nodes.shared.image_cache").ImageCache(most=3 * 48)
    model, other = Model(), Model()
    batch = torch.zeros(2, 2, 2, 3)  # 48 bytes an image
    cache.put(model, "a", batch[:1])
    cache.put(model, "b", batch[1:])
    cache.put(other, "c", torch.zeros(1, 2, 2, 3))
    assert cache.get(model, "a") is not None and cache.get(model, "b") is not None
    cache.put(other, "d", torch.zeros(1, 2, 2, 3))
    assert cache.get(other, "c") is None, "the longest unused goes first"
    cache.put(other, "e", torch.zeros(1, 2, 2, 3))
    assert cache.get(model, "a") is None and cache.get(model, "b") is None, "one view holds the whole batch"
    cache.put(other, "too large", torch.zeros(1, 4, 4, 3))
    assert cache.get(other, "too large") is None
    assert cache.get(other, "a") is None


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"picture": 3}, ("picture is 3", "latent holds 2")),
        ({"sigmas": ""}, ("sigmas is empty",)),
        ({"sigmas": "0, 1.2"}, ("sigmas must be between 0 and 1",)),
        ({"seeds": " , "}, ("seeds is empty",)),
        ({"seeds": "-1"}, ("seeds must be whole numbers", "-1")),
        ({"sigmas": ", ".join(f"{i / 40}" for i in range(33)), "seeds": "1, 2"}, ("66 results", "at most 64")),
    ],
)
def test_sweeps_that_cannot_be(comfy, model, photos, sweep, words):
    fails(comfy, sweep_graph(model, photos[:2], **sweep), *words)


def test_a_sweep_encodes_one_latent_once(comfyui, monkeypatch):
    patcher, net = comfyui.load("rgb")
    encoded = []
    encode = patcher.model.diffusion_model.encode_lq
    monkeypatch.setattr(patcher.model.diffusion_model, "encode_lq", lambda *a: encoded.append(1) or encode(*a))
    latent = {"samples": torch.randn(2, 12, 4, 4)}
    options = {"picture": [2], "steps": [2], "latent_noise": ["keep"], "sigmas": ["0, 0.3, 0.6"], "seeds": ["1, 2"]}
    with torch.inference_mode():
        done = comfyui.nodes.PiDKitSigmaSweep.execute(model=[patcher], latent=[latent], **options)
    assert len(encoded) == 1
    assert done.args[0].shape == (6, *net.config.output_size(4, 4), 3)
    assert patcher.model._trunk == []


def test_one_caption_per_image(comfyui):
    patcher, net = comfyui.load()
    captions, latent = torch.randn(2, 5, net.config.caption_width), torch.randn(2, 16, 1, 1)
    options = {"model": patcher, "degrade_sigma": 0.0, "steps": 1, "seed": 3}
    decode = comfyui.nodes.PiDKitDecode.execute
    with torch.inference_mode():
        both = decode(latent={"samples": latent}, positive=[[captions, {}]], sigma_list=[0.2, 0.4], **options).args[0]
        for i, sigma in enumerate([0.2, 0.4]):
            options |= {"degrade_sigma": sigma, "positive": [[captions[i : i + 1], {}]]}
            alone = decode(latent={"samples": latent[i : i + 1]}, **options).args[0]
            assert torch.equal(both[i : i + 1], alone)


def test_what_is_painted_is_drawn_with_its_picture_alone(comfy, model, photos):
    plain = tuner_graph(model, photos[:2], [0.1, 0.1])
    finished = comfy.queue(plain)
    first, second = (one["id"] for one in finished.outputs["tuner"]["pidkit_pictures"])
    painted = tuner_graph(model, photos[:2], [0.1, 0.1], painted=f"{second}=6x4:8.8@60.8")
    before, after = (comfy.images(one, "png") for one in (finished, comfy.queue(painted)))
    assert np.array_equal(before[0], after[0]) and not np.array_equal(before[1], after[1])
    everywhere = tuner_graph(model, photos[:2], [0.1, 0.1], painted=f"{first}=6x4:24@60")
    as_value = tuner_graph(model, photos[:2], [0.6, 0.1])
    for a, b in zip(*(comfy.images(comfy.queue(graph), "png") for graph in (everywhere, as_value)), strict=True):
        assert np.array_equal(a, b)
