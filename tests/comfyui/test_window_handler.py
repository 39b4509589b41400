"""Context windows inside ComfyUI's own machinery: what the HTTP API cannot show."""

from __future__ import annotations

import importlib
import re
from types import SimpleNamespace

import pytest
import torch

from pid_core import decode
from pid_core.model.pixel_cache import PIXEL_CACHES
from pid_core.sampling.comfy_noise import comfy_noise
from pid_core.sampling.predict import x0_from_velocity
from pid_core.windows.plan import fuse_weights, plan_windows
from pid_core.windows.run import crop
from support.calls import velocity
from support.inside import SEED, by_core, lq_of

PIXELS = (96, 128)  # 3 x 4 latent cells of 32
PLAN = plan_windows(*PIXELS, 64, 32, align=32)
LATENT = torch.randn(1, 16, 3, 4, generator=torch.Generator().manual_seed(4))


def windowed(comfyui, patcher, *, size=64, overlap=32, fuse="pyramid", mode="manual", **more):
    return comfyui.nodes.PiDKitContextWindow.execute(patcher, mode, size, overlap, fuse, **more).args[0]


@pytest.fixture
def small_card(monkeypatch):
    """small_card(patcher, pixels) makes the network run out of memory above that many pixels at once."""

    def install(patcher, pixels):
        network, seen = type(patcher.model.diffusion_model), []
        forward = network._forward

        def limited(self, x, *args, **kwargs):
            if x.shape[0] * x.shape[-1] * x.shape[-2] > pixels:
                raise torch.cuda.OutOfMemoryError("injected")
            seen.append(tuple(x.shape))
            return forward(self, x, *args, **kwargs)

        monkeypatch.setattr(network, "_forward", limited)
        return seen

    return install


def test_out_of_memory_halves_the_batch(comfyui, small_card, caplog):
    patcher, net = comfyui.load()
    made = comfyui.conditioning(patcher, LATENT)
    model = windowed(comfyui, patcher)
    seen = small_card(patcher, 3 * 64 * 64)
    out = comfyui.sample(model, *made)
    assert torch.allclose(out.clamp(-1, 1), by_core(net, lq_of(made[0]), windows=PLAN), atol=1e-4)
    assert seen == 8 * [(3, 3, 64, 64)]
    assert caplog.text.count("out of memory: 3 window(s) at a time") == 1  # it holds for the steps that follow


def test_out_of_memory_takes_smaller_windows(comfyui, small_card, caplog):
    """Also where the plan was one window: the whole canvas."""
    patcher, _ = comfyui.load()
    made = comfyui.conditioning(patcher, LATENT)
    seen = small_card(patcher, 64 * 64)
    out = comfyui.sample(windowed(comfyui, patcher, size=128), *made)
    assert torch.isfinite(out).all() and out.abs().max() > 0.1
    assert "out of memory: smaller windows from here on" in caplog.text
    assert all(shape[-1] <= 64 for shape in seen)


def test_out_of_memory_for_good_is_raised(comfyui, small_card):
    patcher, _ = comfyui.load()
    made = comfyui.conditioning(patcher, LATENT)
    small_card(patcher, 100)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        comfyui.sample(windowed(comfyui, patcher), *made)


def test_projector_runs_once_for_all_windows_and_steps(comfyui, monkeypatch):
    patcher, _ = comfyui.load("flux", "v1.5")
    made = comfyui.conditioning(patcher, LATENT)
    network, sizes = type(patcher.model.diffusion_model), []
    encode = network.encode_lq

    def spy(self, latent, *size_and_listener):
        sizes.append((tuple(latent.shape[-2:]), size_and_listener[:2]))
        return encode(self, latent, *size_and_listener)

    monkeypatch.setattr(network, "encode_lq", spy)
    comfyui.sample(windowed(comfyui, patcher), *made, cfg=2.0)
    assert sizes == [((3, 4), PIXELS)]
    assert not patcher.model._trunk


def test_latents_of_positive_and_negative_may_differ(comfyui, monkeypatch):
    patcher, net = comfyui.load()
    positive, _, canvas = comfyui.conditioning(patcher, LATENT)
    _, negative, _ = comfyui.conditioning(patcher, -LATENT)
    network, calls = type(patcher.model.diffusion_model), []
    encode = network.encode_lq
    monkeypatch.setattr(network, "encode_lq", lambda self, *a: calls.append(1) or encode(self, *a))
    out = comfyui.sample(windowed(comfyui, patcher), positive, negative, canvas, cfg=2.0, steps=1)
    assert len(calls) == 2
    noise = {"noise": comfy_noise((1, 3, *PIXELS), SEED), "steps": 1, "windows": PLAN}
    pos, neg = (decode(net, lq, **noise, fuse="pyramid") for lq in (lq_of(positive), lq_of(negative)))
    inside = (pos.abs() < 1) & (neg.abs() < 1)  # decode clamps
    assert inside.float().mean() > 0.3
    assert torch.allclose(out[inside], (neg + 2 * (pos - neg))[inside], atol=1e-3)


def test_a_sigma_per_image_and_a_batch(comfyui):
    patcher, net = comfyui.load("flux", "v1.5")
    latent = torch.cat([LATENT, LATENT.flip(-1)])
    made = comfyui.conditioning(patcher, latent)
    made[0][0][1]["degrade_sigma"] = torch.tensor([0.0, 0.7])
    out = comfyui.sample(windowed(comfyui, patcher), *made).clamp(-1, 1)
    assert torch.allclose(out, by_core(net, lq_of(made[0]), torch.tensor([0.0, 0.7]), windows=PLAN), atol=1e-4)


def test_masked_texts_are_cut_with_the_windows(comfyui):
    """Two halves with the same text are the text on the whole."""
    patcher, _ = comfyui.load()
    positive, negative, canvas = comfyui.conditioning(patcher, LATENT)
    model = windowed(comfyui, patcher)
    whole = comfyui.sample(model, positive, negative, canvas, steps=1)
    left = torch.zeros(1, *PIXELS)
    left[..., :48] = 1
    halves = [[positive[0][0], positive[0][1] | {"mask": mask, "mask_strength": 1.0}] for mask in (left, 1 - left)]
    assert torch.allclose(comfyui.sample(model, halves, negative, canvas, steps=1), whole, atol=1e-4)


def test_an_area_is_refused(comfyui):
    patcher, _ = comfyui.load()
    positive, negative, canvas = comfyui.conditioning(patcher, LATENT)
    area = [[positive[0][0], positive[0][1] | {"area": (4, 4, 0, 0)}]]
    with pytest.raises(ValueError, match="has an area .*take it off"):
        comfyui.sample(windowed(comfyui, patcher), area, negative, canvas)


def test_a_model_that_is_no_pid(comfyui):
    with pytest.raises(ValueError, match="the model is Identity, not a PiD decoder: load one with PiD Loader"):
        windowed(
            comfyui, SimpleNamespace(model=torch.nn.Identity(), model_options={}, clone=None, get_model_object=None)
        )


def region(comfyui, text, x, y, width, height, regions=None):
    node = comfyui.nodes.PiDKitRegionalCaption
    return node.execute([[text, {}]], x, y, width, height, regions).args[0]


def test_windows_in_a_rectangle_take_its_caption(comfyui, caplog):
    patcher, net = comfyui.load()
    made = comfyui.conditioning(patcher, LATENT)
    text = torch.randn(1, 9, 24, generator=torch.Generator().manual_seed(8))
    caplog.set_level("INFO")
    regions = region(comfyui, text, 64, 0, 64, 96)
    regions = region(comfyui, torch.randn(1, 4, 24), 0, 0, 24, 24, regions)
    out = comfyui.sample(windowed(comfyui, patcher, regions=regions), *made, steps=1)
    assert "regional caption 1: 4 of 6 windows" in caplog.text
    assert "regional caption 2 is not used" in caplog.text
    noise, t = comfy_noise((1, 3, *PIXELS), SEED), torch.tensor(1.0)
    expected = torch.zeros(1, 3, *PIXELS)
    features = net.encode_lq(lq_of(made[0]), *PIXELS).view(1, 6, 8, -1)
    for window, weight in zip(PLAN.windows, fuse_weights(PLAN), strict=True):
        rows, cols = window.slices()
        caption = text if window.left else net.default_caption
        part = noise[..., rows, cols]
        under = features[:, window.slices(16)[0], window.slices(16)[1]].flatten(1, 2)
        with torch.no_grad():
            v = net(part, 1000 * t[None], caption, lq_features=under, degrade_sigma=torch.zeros(1))
        expected[..., rows, cols] += weight * x0_from_velocity(part, t, v)
    assert torch.allclose(out, expected, atol=1e-4)


def test_one_window_takes_a_regional_caption_too(comfyui):
    patcher, net = comfyui.load()
    made = comfyui.conditioning(patcher, LATENT)
    text = torch.randn(1, 9, 24)
    model = windowed(comfyui, patcher, size=128, regions=region(comfyui, text, 0, 0, 128, 64))
    expected = by_core(net, lq_of(made[0]), caption=text)
    assert torch.allclose(comfyui.sample(model, *made).clamp(-1, 1), expected, atol=1e-4)


def test_regional_captions_that_cannot_be_used(comfyui, caplog):
    patcher, _ = comfyui.load()
    made = comfyui.conditioning(patcher, LATENT)
    wide = windowed(comfyui, patcher, regions=region(comfyui, torch.randn(1, 9, 2304), 0, 0, 64, 64))
    caplog.set_level("INFO")
    comfyui.sample(wide, *made, steps=1)
    assert "regional captions do nothing" in caplog.text  # the checkpoint has a caption of its own, and no encoder
    patcher.model.default_caption = None
    with pytest.raises(ValueError, match="regional caption 1 is 2304 wide, this checkpoint takes 24"):
        comfyui.sample(wide, *made, steps=1)
    three = windowed(comfyui, patcher, regions=region(comfyui, torch.randn(3, 9, 24), 0, 0, 64, 64))
    with pytest.raises(ValueError, match="is for 3 images, the canvas holds 1"):
        comfyui.sample(three, *made, steps=1)
    with pytest.raises(ValueError, match="holds 2 texts"):
        comfyui.nodes.PiDKitRegionalCaption.execute([[torch.zeros(1, 1, 24), {}]] * 2, 0, 0, 8, 8)


def planned(comfyui, monkeypatch, model, made):
    """What ComfyUI is asked to keep free: (wanted, least) bytes."""
    asked = []
    load = comfyui.management.load_models_gpu

    def spy(models, memory_required=0, minimum_memory_required=None, **more):
        asked.append((memory_required, minimum_memory_required))
        return load(models, memory_required, minimum_memory_required=minimum_memory_required, **more)

    monkeypatch.setattr(comfyui.management, "load_models_gpu", spy)
    comfyui.sample(model, *made, steps=1)
    return asked[-1]


def test_the_memory_estimate_is_that_of_one_batch(comfyui, monkeypatch):
    """At 4096 x 4096, with a network call that only makes zeros."""
    patcher, _ = comfyui.load()
    network = type(patcher.model.diffusion_model)
    side = 4096
    made = comfyui.conditioning(patcher, torch.zeros(1, 16, side // 32, side // 32))
    shapes = []

    def nothing(self, x, *args, **kwargs):
        shapes.append(tuple(x.shape))
        return torch.zeros_like(x)

    monkeypatch.setattr(network, "_forward", nothing)
    monkeypatch.setattr(network, "encode_lq", lambda self, lq, h, w, *_: torch.zeros(1, h * w // 256, 16))
    model = windowed(comfyui, patcher, size=1024, overlap=256)
    with monkeypatch.context() as inner:
        wanted, least = planned(comfyui, inner, model, made)
    batch = shapes[0][0]
    assert shapes[0][2:] == (1024, 1024) and batch > 1
    cost = comfyui.module("pid_core.model.cost")
    config = patcher.model.config
    features, everything = cost.trunk_bytes(config, side, side, 1, 4)[1], PIXEL_CACHES[0]
    of_call = 5 * 4 * 3 * 1024**2  # a window, and what ComfyUI holds for it
    held = 5 * 4 * 3 * side**2 + features  # lcm's, and the one the windows are put together on
    assert least == cost.peak_bytes(config, 1024, 1024, batch, 4, "cpu", everything) + batch * of_call + held
    assert wanted == cost.peak_bytes(config, 1024, 1024, 2 * batch, 4, "cpu", everything) + 2 * batch * of_call + held
    with monkeypatch.context() as inner:
        whole = planned(comfyui, inner, patcher, made)
    frame = cost.peak_bytes(
        config, side, side, 1, 4, "cpu", patcher.model.diffusion_model.driver.pixel_cache or everything
    )
    assert whole[1] == frame + 8 * 4 * 3 * side**2 + features > least


def test_auto_plans_from_free_memory(comfyui, monkeypatch):
    patcher, _ = comfyui.load("rgb", changes={"window_min": 64, "window_max": 128})
    handler = windowed(comfyui, patcher, mode="auto", overlap=512).model_options["context_handler"]
    needed = patcher.model.memory_required([1, 3, 96, 96])

    def plan_with(budget):
        monkeypatch.setattr(comfyui.management, "get_free_memory", lambda *a: 2 * budget)
        memory = handler.memory(patcher, 1)
        return memory, handler.plan(memory, 256, 192)

    (memory, roomy), (_, tight) = plan_with(1e12), plan_with(needed)
    assert max(roomy.size) <= 128 and roomy.overlap == 32
    assert "overlap 512 lowered to 32 px" in roomy.notes
    assert patcher.model.memory_required([1, 3, *tight.size]) <= needed
    _, short = plan_with(needed / 4)
    assert max(short.size) < 64
    said = [handler.describe(memory, plan).lines() for plan in (short, roomy)]
    assert any("memory is short" in line for line in said[0])
    assert len(said[1]) == 2 and said[1][1].endswith("overlap 512 lowered to 32 px")
    said = r"too little memory for 192 x 256: even windows of \d+ x \d+ need .* GB are free: make the picture smaller"
    with pytest.raises(ValueError, match=said):
        plan_with(100)


def test_planning_stops_when_the_run_is_cancelled(comfyui):
    patcher, _ = comfyui.load()
    handler = windowed(comfyui, patcher, mode="auto").model_options["context_handler"]
    memory = handler.memory(patcher, 1)
    comfyui.management.interrupt_current_processing()
    with pytest.raises(comfyui.management.InterruptProcessingException):
        handler.plan(memory, 16384, 16384)


def test_the_plan_is_written_on_the_node(comfyui, monkeypatch):
    patcher, _ = comfyui.load()
    said = []
    handler_module = comfyui.module("nodes.comfy.window_handler")
    monkeypatch.setattr(comfyui.module("nodes.comfy.progress"), "_rates", {})
    for module in (handler_module, comfyui.module("nodes.comfy.progress")):
        monkeypatch.setattr(module, "send_text", lambda node, *lines: said.append((node, list(lines))))
    settings = handler_module.WindowSettings(72, 20, "pyramid", auto=False)
    model, _ = handler_module.add_windows(patcher, settings, (), "17")
    made = comfyui.conditioning(patcher, LATENT)
    comfyui.sample(model, *made, steps=1)
    assert {node for node, _ in said} == {"17"}
    assert said[0][1] == [
        "128 x 96 in 6 windows of 64 x 64, less than 0.1 GB",
        "size 72 rounded down to 64 px",
        "overlap 20 rounded up to 32 px",
        "details: 3 across, 2 down, overlap at least 32 px, 6 at a time",
    ]


def test_the_node_says_what_half_the_overlap_would_save(comfyui):
    patcher, _ = comfyui.load()
    handlers = comfyui.module("nodes.comfy.window_handler")
    handler = handlers.WindowHandler(patcher, handlers.WindowSettings(128, 64, auto=False))
    memory = handler.memory(patcher, 1)
    plan, half = handler.plan(memory, 320, 320), handler.plan(memory, 320, 320, 32)
    line = handler.describe(memory, plan).details[0]
    said = re.search(r"at least 64 px \(with 32 about (0\.\d) of the time\)", line)
    assert half.count < plan.count and float(said[1]) == pytest.approx(half.count / plan.count, abs=0.06)


def core_conditioning(comfyui, patcher, latent, text, family="flux", sigma=0.0):
    return comfyui.nodes.PiDKitConditioning.execute(
        latent={"samples": latent},
        latent_format=family,
        degrade_sigma=sigma,
        latent_noise="keep",
        noise_seed=0,
        positive=[[text, {}]],
        model=patcher,
    ).args


@pytest.mark.parametrize(("family", "version"), [("flux", "v1"), ("flux2", "v1.5")])
def test_cores_own_model_runs_in_windows(comfyui, core_pid, family, version):
    """Its latent is cut at the window's cells, and every window is an image of its own."""
    patcher = core_pid(family, version)
    _, net = comfyui.load(family, version)
    cell = net.config.latent_cell
    pixels = (3 * cell, 4 * cell)
    generator = torch.Generator().manual_seed(5)
    latent = torch.randn(2, net.config.latent_channels, 3, 4, generator=generator)
    text = torch.randn(1, 12, 24, generator=generator)
    made = core_conditioning(comfyui, patcher, latent, text, family, 0.3)
    model = windowed(comfyui, patcher, size=2 * cell, overlap=cell)
    out = comfyui.sample(model, *made, steps=1, cfg=2.0)
    plan = plan_windows(*pixels, 2 * cell, cell, align=cell)
    noise = comfy_noise((2, 3, *pixels), SEED)
    t = model.get_model_object("model_sampling").sigma_max
    x = t * noise
    expected = torch.zeros_like(noise)
    lq, two = lq_of(made[0]), torch.full((2,), 0.3)
    for window, weight in zip(plan.windows, fuse_weights(plan), strict=True):
        part = crop(x, [window])
        with torch.no_grad():
            v = velocity(net, part, (1000 * t).expand(2), text.expand(2, -1, -1), crop(lq, [window], cell), two)
        rows, cols = window.slices()
        expected[..., rows, cols] += weight * x0_from_velocity(part, t, v)
    assert torch.allclose(out, expected, atol=2e-3)


def test_cores_own_model_in_one_window_is_unchanged(comfyui, core_pid):
    patcher = core_pid("flux", "v1")
    made = core_conditioning(comfyui, patcher, LATENT, torch.randn(1, 12, 24))
    whole = comfyui.sample(patcher, *made)
    assert torch.equal(comfyui.sample(windowed(comfyui, patcher, size=128), *made), whole)


def test_the_caption_is_never_cut(comfyui, core_pid):
    """ComfyUI's own windows slice a text whose width or length equals a side of the picture."""
    patcher = core_pid("flux", "v1")
    width = patcher.model.diffusion_model.txt_embed_dim
    handler = windowed(comfyui, patcher).model_options["context_handler"]
    conds = importlib.import_module("comfy.conds")
    text = torch.randn(1, 96, width)
    cond = {
        "uuid": 0,
        "model_conds": {"c_crossattn": conds.CONDRegular(text), "lq_latent": conds.CONDRegular(LATENT)},
    }
    (cut,) = handler.get_resized_cond([cond], torch.zeros(1, 3, 96, 128), PLAN.windows[5:])
    assert cut["model_conds"]["c_crossattn"].cond is text
    assert torch.equal(cut["model_conds"]["lq_latent"].cond, LATENT[..., 1:3, 2:4])


def test_a_canvas_that_does_not_fit_the_latent_is_refused_for_cores_model_too(comfyui, core_pid):
    patcher = core_pid("flux", "v1")
    made = core_conditioning(comfyui, patcher, LATENT, torch.randn(1, 12, 24))
    canvas = {"samples": torch.zeros(1, 3, 192, 256)}
    with pytest.raises(ValueError, match="the canvas is 256 x 192 pixels, but the latent decodes to 128 x 96"):
        comfyui.sample(windowed(comfyui, patcher), made[0], made[1], canvas)


def test_weight_hooks_reach_the_projector(comfyui):
    """A LoRA hooked on the text changes the projector too; its features must not be those without it."""
    hooks = importlib.import_module("comfy.hooks")
    patcher, _ = comfyui.load(disable_dynamic=True)
    positive, negative, canvas = comfyui.conditioning(patcher, LATENT)
    model = windowed(comfyui, patcher)
    plain = comfyui.sample(model, positive, negative, canvas, steps=2)
    generator = torch.Generator().manual_seed(3)
    name = "diffusion_model.lq_proj.latent_proj.2"
    lora = {
        f"{name}.lora_A.weight": torch.randn(2, 16, 3, 3, generator=generator),
        f"{name}.lora_B.weight": torch.randn(16, 2, 1, 1, generator=generator),
    }
    group = hooks.create_hook_lora(lora=lora, strength_model=1.0, strength_clip=0.0)
    hooked = hooks.set_hooks_for_conditioning(positive, group)
    changed = comfyui.sample(model, hooked, negative, canvas, steps=2)
    assert (changed - plain).abs().max() > 1e-2
    whole = comfyui.sample(windowed(comfyui, patcher, size=128), hooked, negative, canvas, steps=2)
    assert (changed - whole).abs().mean() < (plain - whole).abs().mean()
