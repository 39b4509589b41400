"""PiD Sigma Map: another degrade_sigma inside a mask, for PiD Decode, KSampler, the sweep and ComfyUI's own PiD."""

from __future__ import annotations

import pytest
import torch

from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.rgb import to_image
from pid_core.windows.plan import plan_windows
from support.graphs import link, pid_decode_graph, put_latent
from support.inside import SEED, by_core
from support.tiny import put_tiny

ROWS, COLS, CELL = 3, 5, 32  # of the latent, and pixels of the output that a cell of flux covers


@pytest.fixture(scope="module")
def latent():
    return torch.randn(2, 16, ROWS, COLS, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def loaded(comfyui):
    return comfyui.load()


def left(columns: int, pictures: int = 1) -> torch.Tensor:
    """A mask of so many columns of the latent's cells."""
    return (torch.arange(COLS) < columns).float().expand(pictures, ROWS, COLS)


def run(comfyui, mask, sigma=0.5, feather=0, base=0.0, **inputs):
    """What PiD Sigma Map gives, and the lines it shows."""
    out = comfyui.nodes.PiDKitSigmaMap.execute(mask, sigma, feather, base, **inputs)
    return out.args[0], out.ui


def test_every_picture_has_its_mask_and_is_drawn_as_the_core_draws_it(comfyui, loaded, latent):
    patcher, net = loaded
    sigma_map, _ = run(comfyui, torch.cat([left(2), left(4)]), sigma_list=[0.1, 0.3])
    images = comfyui.decode(patcher, latent, sigma_list=sigma_map, latent_noise="scale")
    for i, columns in enumerate((2, 4)):
        cells = torch.where(left(columns)[None] > 0, 0.5, (0.1, 0.3)[i])
        lq = prepare_lq(latent[i : i + 1], "flux", cells, latent_noise="scale")
        assert torch.allclose(images[i : i + 1], to_image(by_core(net, lq.latent, lq.sigma)), atol=2e-5)


@pytest.mark.parametrize("window_mode", ["off", "manual"])
def test_a_map_of_one_value_is_that_value(comfyui, loaded, latent, window_mode):
    patcher, _ = loaded
    sigma_map, _ = run(comfyui, torch.ones(1, 8, 8), 0.35)
    settings = {"window_mode": window_mode, "window_size": 96, "window_overlap": 32}
    of_map, of_list = (
        comfyui.decode(patcher, latent, sigma_list=value, **settings) for value in (sigma_map, [0.35, 0.35])
    )
    assert torch.equal(of_map, of_list)


def test_windows_get_their_part_of_the_map(comfyui, loaded, latent):
    patcher, net = loaded
    sigma_map, _ = run(comfyui, left(2))
    one = latent[:1]
    image = comfyui.decode(patcher, one, sigma_list=sigma_map, window_mode="manual", window_size=96, window_overlap=32)
    lq = prepare_lq(one, "flux", 0.5 * left(2)[None], seed=SEED)
    plan = plan_windows(ROWS * CELL, COLS * CELL, 96, 32, align=net.config.latent_cell)
    assert torch.allclose(image, to_image(by_core(net, lq.latent, lq.sigma, windows=plan)), atol=2e-5)


def test_ksampler_draws_what_pid_decode_draws(comfyui, loaded, latent):
    patcher, _ = loaded
    sigma_map, _ = run(comfyui, left(2))
    decoded = comfyui.decode(patcher, latent[:1], sigma_list=sigma_map)
    positive, negative, canvas = comfyui.nodes.PiDKitConditioning.execute(
        latent={"samples": latent[:1]}, latent_format="auto", degrade_sigma=0.0, latent_noise="add", noise_seed=SEED,
        model=patcher, sigma_list=sigma_map,
    ).args  # fmt: skip
    sampled = comfyui.sample(patcher, positive, negative, canvas)
    assert torch.allclose(decoded, to_image(sampled), atol=2e-5)


def test_maps_in_a_row_lie_over_each_other(comfyui):
    below, _ = run(comfyui, left(4), 0.2, base=0.1)
    both, _ = run(comfyui, left(2), 0.6, sigma_list=below)
    assert both.on_cells(ROWS, COLS, CELL)[0, 0, 0].tolist() == pytest.approx([0.6, 0.6, 0.2, 0.2, 0.1])


def test_an_empty_mask_changes_nothing_and_says_so(comfyui, loaded, latent, monkeypatch):
    said = listen(comfyui, monkeypatch)
    nothing, _ = run(comfyui, torch.zeros(1, 64, 64), sigma_list=[0.3])
    assert said == ["the mask is empty: nothing to change; paint on it, or connect another"]
    patcher, _ = loaded
    of_map, of_number = (comfyui.decode(patcher, latent[:1], sigma_list=value) for value in (nothing, [0.3]))
    assert torch.equal(of_map, of_number)


def listen(comfyui, monkeypatch) -> list[str]:
    """What PiD Sigma Map shows from now on."""
    said: list[str] = []
    module = comfyui.module("nodes.sigma_map")
    monkeypatch.setattr(module, "show_on_node", lambda node, *lines: said.extend(lines))
    return said


def test_masks_that_do_not_fit_are_fitted_and_it_is_said(comfyui, monkeypatch):
    said = listen(comfyui, monkeypatch)
    _, ui = run(comfyui, torch.ones(3, 10, 20), image=torch.rand(2, 30, 30, 3))
    assert said == [
        "0.5 on 100 % of the picture",
        "the sigma map's mask holds 3 masks for 2 pictures: taken in turn",
        "the sigma map's mask is 20 x 10, the picture 30 x 30: it was stretched to fit",
    ]
    assert len(ui["images"]) == 2


def test_a_base_for_another_number_of_pictures(comfyui, loaded, latent):
    sigma_map, _ = run(comfyui, left(2), sigma_list=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="base has 3 values for 2 pictures: give one, or one per picture"):
        comfyui.decode(loaded[0], latent, sigma_list=sigma_map)


def test_comfyuis_own_pid_gets_the_mean(comfyui, core_pid, latent):
    patcher = core_pid()
    positive = [[torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(3)), {}]]
    sigma_map, _ = run(comfyui, left(2), 0.5)
    of_map, of_mean = (
        comfyui.decode(patcher, latent[:1], sigma_list=value, positive=positive, latent_format="flux")
        for value in (sigma_map, [0.2])
    )
    assert torch.allclose(of_map, of_mean, atol=1e-5)


def test_a_map_needs_the_model(comfyui, latent):
    sigma_map, _ = run(comfyui, left(2))
    with pytest.raises(ValueError, match="a sigma map needs the model it is for: connect PiD Loader to model"):
        comfyui.nodes.PiDKitConditioning.execute(
            latent={"samples": latent}, latent_format="flux", degrade_sigma=0.0, latent_noise="add", noise_seed=0,
            positive=[[torch.zeros(1, 4, 24), {}]], sigma_list=sigma_map,
        )  # fmt: skip


def test_the_sweep_tries_its_values_inside_the_mask(comfyui, loaded, latent):
    patcher, _ = loaded
    sigma_map, _ = run(comfyui, torch.cat([left(2), left(4)]), base=0.1)
    sweep = comfyui.nodes.PiDKitSigmaSweep.execute(
        [patcher], [{"samples": latent}], [2], ["0.2, 0.6"], [str(SEED)], [4], sigma_list=[sigma_map]
    )
    for image, sigma in zip(sweep.args[0], (0.2, 0.6), strict=True):
        expected = comfyui.decode(patcher, latent[1:], sigma_list=run(comfyui, left(4), sigma, base=0.1)[0])
        assert torch.allclose(image, expected[0], atol=2e-5)


@pytest.mark.parametrize("painted", [0, 1])
def test_the_sweep_of_a_list_of_which_one_picture_is_painted_on(comfyui, loaded, latent, painted):
    """As PiD Sigma Tuner gives it: a map for that latent, numbers for the other."""
    patcher, _ = loaded
    values = [[0.1], [0.1]]
    values[painted] = run(comfyui, left(2), base=0.1)[0]
    latents = [{"samples": latent[:1]}, {"samples": latent[1:]}]
    for i in range(2):
        sweep = comfyui.nodes.PiDKitSigmaSweep.execute(
            [patcher], latents, [i + 1], ["0.3"], [str(SEED)], [4], sigma_list=values
        )
        of_map = run(comfyui, left(2), 0.3, base=0.1)[0]
        expected = comfyui.decode(patcher, latent[i : i + 1], sigma_list=of_map if i == painted else [0.3])
        assert torch.allclose(sweep.args[0], expected, atol=2e-5)


def test_a_mask_painted_in_the_mask_editor_runs_through_the_server(comfy):
    """As ComfyUI's mask editor leaves it: transparent where it was painted."""
    import numpy as np
    from PIL import Image

    painted = np.full((48, 80, 4), 255, np.uint8)
    painted[:, :32, 3] = 0
    model = put_tiny(comfy, "sigma_map", "flux").name
    latent = put_latent(comfy, "sigma_map", torch.randn(1, 16, 3, 5, generator=torch.Generator().manual_seed(1)))
    graph = pid_decode_graph(model, latent)
    graph["photo"] = {"class_type": "LoadImage", "inputs": {"image": comfy.upload(Image.fromarray(painted))}}
    settings = {"sigma_inside": 0.5, "feather": 0, "base_sigma": 0.0}
    links = {"mask": link("photo", 1), "image": link("photo")}
    graph["map"] = {"class_type": "PiDKitSigmaMap", "inputs": settings | links}
    graph["decode"]["inputs"]["sigma_list"] = link("map")
    finished = comfy.queue(graph)
    (mapped,) = comfy.images(finished, "png")
    (view,) = comfy.images(finished, "map")
    assert view.shape == (48, 80, 3) and np.abs(view[:, :20].astype(int) - view[:, 60:]).mean() > 20
    del graph["decode"]["inputs"]["sigma_list"]
    (plain,) = comfy.images(comfy.queue(graph), "png")
    assert not np.array_equal(mapped, plain)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_a_mask_is_framed_as_its_picture_was(comfyui, fit):
    """The right half of a picture that gets a border: of its own size, and small as the tuner's brush has it."""
    inputs = {"image": torch.rand(1, 40, 83, 3), "target": "factor", "family": "flux", "fit": fit, "factor": 4.0}
    *_, framing, _ = comfyui.nodes.PiDKitPrepareImage.execute(**inputs).args
    fitted = comfyui.module("nodes.shared.sigma_maps").fitted
    height, width = framing.framing.canvas
    _, left_edge = framing.framing.offset
    for size in ((40, 83), (8, 84)):
        mask = (torch.arange(size[1]) >= size[1] / 2).float().expand(1, *size)
        sigma_map, _ = run(comfyui, mask)
        (one,) = fitted(sigma_map, 1, framing.framing)[0].masks
        assert tuple(one.mask.shape) == (1, height, width)
        middle = 83 / 2 - left_edge  # offset: of the canvas in the picture; below 0 where it was padded
        row = one.mask[0, height // 2]
        edge = int((row > 0.5).nonzero()[0])
        assert abs(edge - middle) <= 1.5 and (row[edge + 2 : round(middle + 41)] > 0.5).all()
