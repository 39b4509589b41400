"""What is finished is never lost: to another image that fails, to a full disk, to memory that ends after the decode."""

import sys
from types import SimpleNamespace

import pytest
import torch

OOM = "CUDA out of memory. Tried to allocate 2.00 GiB"
LATENT = torch.randn(4, 16, 1, 2, generator=torch.Generator().manual_seed(3))


def node_of(comfyui, name):
    return getattr(comfyui.nodes, name)


@pytest.fixture
def decoding(comfyui, monkeypatch):
    """Calls of `sample` in PiD Decode, which fail where `fails` says so; `shown`: what is shown of a run that fails."""
    module = sys.modules[comfyui.nodes.PiDKitDecode.__module__]
    sweep = sys.modules[comfyui.nodes.PiDKitSigmaSweep.__module__]
    each = comfyui.module("nodes.shared.per_image")
    plain, record = module.sample, SimpleNamespace(images=[], shown=[], fails=lambda images: None)

    def sample(model, made, *args, **kwargs):
        images = made.canvas["samples"].shape[0]
        record.images.append(images)
        error = record.fails(images)
        if error is not None:
            raise error
        return plain(model, made, *args, **kwargs)

    monkeypatch.setattr(module, "sample", sample)
    monkeypatch.setattr(sweep, "sample", sample)
    monkeypatch.setattr(each, "present", lambda node_id, images: record.shown.append(len(images)) or True)
    return record


def decode(comfyui, patcher, latent=LATENT, **inputs):
    return comfyui.decode(patcher, latent, **{"steps": 2} | inputs)


SIGMAS = {"sigma_list": [0.0, 0.1, 0.2, 0.3]}


def test_an_image_that_fails_is_named_and_the_others_are_kept(comfyui, decoding):
    patcher, _ = comfyui.load()
    expected = decode(comfyui, comfyui.load()[0], **SIGMAS)
    decoding.images.clear()
    decoding.fails = lambda images: torch.OutOfMemoryError(OOM) if len(decoding.images) == 3 else None
    with pytest.raises(torch.OutOfMemoryError) as caught:
        decode(comfyui, patcher, **SIGMAS)
    line = str(caught.value)
    assert line.startswith("image 3 of 4: CUDA out of memory") and "\n" not in line
    assert line.endswith("The 2 finished images are kept, shown on the node, and not drawn again")
    assert decoding.shown == [2]
    # what he must change: here the windows, and the third image's strength
    decoding.images.clear()
    decoding.fails = lambda images: None
    out = decode(comfyui, patcher, sigma_list=[0.0, 0.1, 0.25, 0.3], window_mode="off")
    assert decoding.images == [1, 1]
    assert torch.equal(out[:2], expected[:2]) and torch.equal(out[3], expected[3])
    assert not torch.equal(out[2], expected[2])
    # once all is there, other windows draw anew again
    decoding.images.clear()
    decode(comfyui, patcher, sigma_list=[0.0, 0.1, 0.25, 0.3], window_mode="manual", window_size=32, window_overlap=0)
    assert len(decoding.images) == 4


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError])
def test_every_kind_of_error_names_its_image(comfyui, decoding, kind):
    patcher, _ = comfyui.load()
    decoding.fails = lambda images: kind("no") if len(decoding.images) == 2 else None
    with pytest.raises((ValueError, RuntimeError), match="image 2 of 4: .*no.* The finished image is kept"):
        decode(comfyui, patcher, **SIGMAS)


def test_cancel_is_no_failure(comfyui, decoding):
    patcher, _ = comfyui.load()
    stop = comfyui.management.InterruptProcessingException
    decoding.fails = lambda images: stop() if len(decoding.images) == 2 else None
    with pytest.raises(stop):
        decode(comfyui, patcher, **SIGMAS)
    assert decoding.shown == []


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_a_batch_that_is_too_much_is_drawn_one_by_one_with_the_same_noise(comfyui, decoding, sigma):
    patcher, _ = comfyui.load()
    expected = decode(comfyui, patcher, degrade_sigma=sigma)
    assert decoding.images == [4]
    decoding.fails = lambda images: torch.OutOfMemoryError(OOM) if images > 1 else None
    out = decode(comfyui, patcher, degrade_sigma=sigma)
    assert decoding.images == [4, 4, 1, 1, 1, 1]
    assert torch.allclose(out, expected, atol=5e-3)


def test_a_batch_goes_on_where_it_failed(comfyui, decoding):
    patcher, _ = comfyui.load()
    expected = decode(comfyui, patcher)
    decoding.images.clear()
    nan = comfyui.module("pid_core.model.guard").NonFiniteError
    decoding.fails = lambda images: nan("gave NaN") if images > 1 or len(decoding.images) == 4 else None
    with pytest.raises(ValueError, match="image 3 of 4: gave NaN. The 2 finished images are kept"):
        decode(comfyui, patcher)
    decoding.images.clear()
    decoding.fails = lambda images: None
    assert torch.allclose(decode(comfyui, patcher, window_mode="off"), expected, atol=5e-3)
    assert decoding.images == [1, 1]


def test_a_sweeps_result_that_fails_is_named(comfyui, decoding):
    patcher, _ = comfyui.load()
    decoding.fails = lambda images: ValueError("no") if len(decoding.images) == 2 else None
    with pytest.raises(ValueError, match=r"result 2 of 2 \(sigma 0.4, seed 9\): no. The finished image is kept"):
        node_of(comfyui, "PiDKitSigmaSweep").execute([patcher], [{"samples": LATENT}], [1], ["0, 0.4"], ["9"], [1])


def test_a_full_disk_costs_no_result_and_leaves_no_half_picture(comfyui, monkeypatch, tmp_path):
    patcher, _ = comfyui.load()
    pictures = comfyui.module("nodes.shared.pictures")
    monkeypatch.setattr(pictures.folder_paths, "temp_directory", str(tmp_path))
    save = pictures.Image.Image.save

    def full(self, path, *args, **kwargs):
        path.write_bytes(b"\xff\xd8half")
        raise OSError(28, "No space left on device")

    sweep = node_of(comfyui, "PiDKitSigmaSweep")
    arguments = [patcher], [{"samples": LATENT}], [1], ["0.17, 0.43"], ["123"], [1]
    with monkeypatch.context() as inner, torch.inference_mode():
        inner.setattr(pictures.Image.Image, "save", full)
        done = sweep.execute(*arguments)
    assert done.args[0].shape == (2, 32, 64, 3)
    folder = pictures.Path(pictures.folder_paths.get_temp_directory()) / "pidkit"
    names = [tile["image"]["filename"] for tile in done.ui["pidkit_tiles"]]
    assert not any((folder / name).exists() for name in names) and not list(folder.glob(".*"))
    monkeypatch.setattr(pictures.Image.Image, "save", save)
    with torch.inference_mode():
        sweep.execute(*arguments)
    for name in names:
        pictures.Image.open(folder / name).load()


class Short:
    """A function that runs out of memory so many times."""

    def __init__(self, plain, times):
        self.plain, self.left = plain, times

    def __call__(self, *args, **kwargs):
        if self.left:
            self.left -= 1
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return self.plain(*args, **kwargs)


@pytest.mark.parametrize("name", ["to_image", "hold_colour_", "finish_image"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_comes_after_a_decode_is_tried_again_and_in_main_memory(comfyui, monkeypatch, name, times):
    patcher, inputs = framed(comfyui)
    expected = decode(comfyui, patcher, **inputs)
    finishing = comfyui.module("nodes.shared.finishing")
    monkeypatch.setattr(finishing, name, Short(getattr(finishing, name), times))
    assert torch.equal(decode(comfyui, patcher, **inputs, window_mode="off"), expected)


def framed(comfyui):
    """A model, and a picture of an odd size with its colours held."""
    patcher, _ = comfyui.load("rgb")
    image = torch.rand(1, 17, 21, 3, generator=torch.Generator().manual_seed(5))
    prepared = node_of(comfyui, "PiDKitPrepareImage").execute(image, "factor", "rgb", "pad", 4.0).args
    inputs = {"latent": prepared[2]["samples"], "framing": prepared[1], "colour_hold": "mean_deviation"}
    return patcher, inputs


def test_without_memory_to_finish_the_plain_picture_comes_with_a_line(comfyui, monkeypatch):
    patcher, inputs = framed(comfyui)
    module = sys.modules[comfyui.nodes.PiDKitDecode.__module__]
    said = []
    monkeypatch.setattr(module, "show_on_node", lambda _, *lines: said.append(lines))
    expected = decode(comfyui, patcher, **{**inputs, "framing": None, "colour_hold": "none"})
    finishing = comfyui.module("nodes.shared.finishing")
    for name in ("hold_colour_", "finish_image"):
        monkeypatch.setattr(finishing, name, Short(getattr(finishing, name), 99))
    assert torch.equal(decode(comfyui, patcher, **inputs), expected)
    assert any("no memory was left for colour_hold" in line for line in said[-1])
    assert any("no memory was left to finish the picture" in line for line in said[-1])


def test_room_for_a_batch_is_tried_again(comfyui, monkeypatch, decoding):
    patcher, _ = comfyui.load()
    expected = decode(comfyui, comfyui.load()[0], **SIGMAS)
    each = comfyui.module("nodes.shared.per_image")
    make, failed = torch.Tensor.new_empty, []

    def new_empty(self, *args, **kwargs):
        if not failed and isinstance(args[0], tuple):  # the batch, and nothing of the network's
            failed.append(1)
            raise torch.OutOfMemoryError(OOM)
        return make(self, *args, **kwargs)

    monkeypatch.setattr(each.Tensor, "new_empty", new_empty)
    assert torch.equal(decode(comfyui, patcher, **SIGMAS), expected)


@pytest.fixture
def short_of_memory(comfyui, monkeypatch):
    """short_of_memory(limit): a model whose calls fail above limit[0] pixels a side, far below its training."""

    def make(limit):
        patcher, _ = comfyui.load(changes={"window_min": 64, "window_max": 128})
        forward = patcher.model.diffusion_model.forward

        def small(x, *args, **kwargs):
            if max(x.shape[-2:]) > limit[0]:
                raise torch.OutOfMemoryError(OOM)
            return forward(x, *args, **kwargs)

        monkeypatch.setattr(patcher.model.diffusion_model, "forward", small)
        return patcher

    return make


def test_images_drawn_in_need_are_not_taken_again(comfyui, decoding, short_of_memory):
    """Windows far below what the checkpoint was trained on: with memory back, they are drawn anew."""
    limit = [16]
    patcher = short_of_memory(limit)
    latent = torch.randn(2, 16, 3, 3)
    with pytest.raises(torch.OutOfMemoryError, match="tried windows of .* 32 x 32, smaller ones would spoil"):
        decode(comfyui, patcher, latent[:1], sigma_list=[0.1])
    limit[0] = 32
    decode(comfyui, patcher, latent, sigma_list=[0.1, 0.2])
    limit[0] = 1000
    decoding.images.clear()
    decode(comfyui, patcher, latent, sigma_list=[0.1, 0.2])
    assert decoding.images == [1, 1]
    decode(comfyui, patcher, latent, sigma_list=[0.1, 0.2])
    assert decoding.images == [1, 1]


@pytest.mark.parametrize("way", ["PiD Decode", "Sweep"])
def test_a_node_that_drew_in_need_runs_again_although_nothing_changed(
    comfyui, decoding, monkeypatch, short_of_memory, way
):
    """ComfyUI asks for the fingerprint; one image in need, the first, is enough."""
    limit = [32]
    patcher = short_of_memory(limit)
    name = {"PiD Decode": "PiDKitDecode", "Sweep": "PiDKitSigmaSweep"}[way]

    def at(place: str):
        hidden = SimpleNamespace(unique_id=f"{way} {place}", dynprompt=None)
        return type("Node", (node_of(comfyui, name),), {"hidden": hidden})

    def run() -> int:
        latent = torch.randn(1, 16, 3, 3, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            if way == "Sweep":
                at("here").execute([patcher], [{"samples": latent}], [1], ["0.1, 0.2"], ["7"], [2])
            else:
                both = {"samples": torch.cat([latent, latent])}
                at("here").execute(patcher, both, degrade_sigma=0.0, steps=2, seed=7, sigma_list=[0.1, 0.2])
        return at("here").fingerprint_inputs(model=None)

    for module in ("node_text", "progress", "window_handler"):
        monkeypatch.setattr(comfyui.module(f"nodes.comfy.{module}"), "send_text", lambda *_: None)
    decoding.fails = lambda images: limit.__setitem__(0, 32 if len(decoding.images) == 1 else 1000)
    before = at("here").fingerprint_inputs(model=None)
    assert run() == before + 1 and at("elsewhere").fingerprint_inputs(model=None) == before
    assert run() == before + 1


def test_a_batch_is_drawn_one_by_one_among_other_nodes_too(comfyui, decoding):
    """With a wrapper of another node around the sampling it is ComfyUI's own sampler that draws."""
    patcher = comfyui.load()[0].clone()
    patcher.add_wrapper_with_key("outer_sample", "others", lambda executor, *args, **kwargs: executor(*args, **kwargs))
    expected = decode(comfyui, patcher)
    decoding.images.clear()
    decoding.fails = lambda images: torch.OutOfMemoryError(OOM) if images > 1 else None
    torch.testing.assert_close(decode(comfyui, patcher), expected, rtol=0, atol=1e-4)
    assert decoding.images == [4, 1, 1, 1, 1]


@pytest.mark.parametrize("way", ["PiD Decode", "KSampler"])
def test_the_largest_seed(comfyui, way):
    """ComfyUI's sampler adds one to it, which no 64 bits hold."""
    patcher, _ = comfyui.load()
    if way == "PiD Decode":
        assert torch.isfinite(decode(comfyui, patcher, seed=2**64 - 1)).all()
        return
    made = comfyui.conditioning(patcher, LATENT)
    noise = torch.randn_like(made[2]["samples"])
    out = comfyui.sample_module.sample(
        patcher, noise, 2, 1.0, "lcm", "simple", made[0], made[1], made[2]["samples"],
        seed=2**64 - 1,
        disable_pbar=True,
    )  # fmt: skip
    assert torch.isfinite(out).all()
