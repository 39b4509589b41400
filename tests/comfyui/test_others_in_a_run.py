"""What other nodes bring into a run meets what it would meet without this pack's shortcuts, and as often."""

import importlib
import inspect

import pytest
import torch

LATENT = torch.randn(1, 16, 3, 3, generator=torch.Generator().manual_seed(5))


def decode(comfyui, patcher):
    return comfyui.decode(patcher, LATENT, window_mode="off")


def by_ksampler(comfyui, patcher):
    pixels = comfyui.sample(patcher, *comfyui.conditioning(patcher, LATENT))
    return ((pixels.movedim(1, -1) + 1) / 2).clamp(0, 1)


def with_wrapper(patcher, kind, wrapper):
    from comfy.patcher_extension import WrappersMP

    patcher = patcher.clone()
    patcher.add_wrapper_with_key(getattr(WrappersMP, kind), "others", wrapper)
    return patcher


def flipped(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    return executor(guider, sigmas, extra_args, callback, noise.flip(-1), *args, **kwargs)


def halved(executor, noise, *args, **kwargs):
    return executor(noise.mul_(0.5), *args, **kwargs)


@pytest.mark.parametrize(("kind", "wrapper"), [("SAMPLER_SAMPLE", flipped), ("OUTER_SAMPLE", halved)])
def test_noise_that_others_change_is_changed_in_pid_decode_too(comfyui, kind, wrapper):
    plain, _ = comfyui.load()
    before = decode(comfyui, plain)
    patcher = with_wrapper(plain, kind, wrapper)
    image = decode(comfyui, patcher)
    torch.testing.assert_close(image, by_ksampler(comfyui, patcher), rtol=0, atol=1e-5)
    assert (image - before).abs().max() > 0.1
    assert torch.equal(decode(comfyui, plain), before)


def in_comfyuis_windows(patcher, freenoise=False):
    windows = importlib.import_module("comfy_extras.nodes_context_windows").ContextWindowsManualNode
    options = {"context_length": 64, "context_overlap": 32, "context_schedule": "standard_static", "context_stride": 1}
    options |= {"closed_loop": False, "fuse_method": "pyramid", "dim": 2, "freenoise": freenoise}
    options |= {"cond_retain_index_list": "", "split_conds_to_windows": False, "causal_window_fix": False}
    taken = inspect.signature(windows.execute).parameters
    return windows.execute(model=patcher, **{k: v for k, v in options.items() if k in taken}).args[0]


def test_comfyuis_context_windows_may_shuffle_the_noise(comfyui):
    model = in_comfyuis_windows(comfyui.load()[0], freenoise=True)
    torch.testing.assert_close(decode(comfyui, model), by_ksampler(comfyui, model), rtol=0, atol=1e-5)


def test_the_projector_runs_once_for_each_of_comfyuis_windows(comfyui, monkeypatch):
    patcher, _ = comfyui.load()
    network, sizes = type(patcher.model.diffusion_model), []
    encode = network.encode_lq
    monkeypatch.setattr(
        network, "encode_lq", lambda self, lq, *a: sizes.append(tuple(lq.shape)) or encode(self, lq, *a)
    )
    by_ksampler(comfyui, in_comfyuis_windows(patcher))
    assert sizes == [(1, 16, 2, 3)] * 2  # not once more for each of the four steps


def test_a_patch_that_writes_into_x_spoils_no_later_decode(comfyui):
    plain, _ = comfyui.load()

    def writes(executor, x, *args, **kwargs):
        return executor(x.mul_(0.9), *args, **kwargs)

    patcher = with_wrapper(plain, "PREDICT_NOISE", writes)
    before = decode(comfyui, plain)
    assert not torch.equal(decode(comfyui, patcher), before)
    assert torch.equal(decode(comfyui, plain), before)


def wrapping(kind):
    def bring(patcher, calls):
        def counted(executor, *args, **kwargs):
            calls.append(1)
            return executor(*args, **kwargs)

        return with_wrapper(patcher, kind, counted)

    return bring


def setting(name, function):
    def bring(patcher, calls):
        patcher = patcher.clone()
        getattr(patcher, name)(lambda *args: calls.append(1) or function(*args))
        return patcher

    return bring


BROUGHT = {
    "post cfg": setting("set_model_sampler_post_cfg_function", lambda args: args["denoised"]),
    "pre cfg": setting("set_model_sampler_pre_cfg_function", lambda args: args["conds_out"]),
    "function": setting(
        "set_model_unet_function_wrapper", lambda apply, args: apply(args["input"], args["timestep"], **args["c"])
    ),
    "APPLY_MODEL": wrapping("APPLY_MODEL"),
    "CALC_COND_BATCH": wrapping("CALC_COND_BATCH"),
    "PREDICT_NOISE": wrapping("PREDICT_NOISE"),
}


@pytest.mark.parametrize("what", BROUGHT)
def test_what_others_bring_runs_once_for_each_prediction(comfyui, monkeypatch, what):
    """dpm_2 calls between the schedule's levels: a prediction that nothing else runs in is made again there."""
    plain, _ = comfyui.load()
    made, guider = comfyui.conditioning(plain, LATENT), comfyui.samplers.CFGGuider
    network, asked, calls = plain.model.diffusion_model, [], []
    ask, forward = guider.outer_predict_noise, type(network).forward
    monkeypatch.setattr(guider, "outer_predict_noise", lambda *a, **k: asked.append(1) or ask(*a, **k))
    comfyui.sample(BROUGHT[what](plain, calls), *made, sampler="dpm_2")
    assert len(calls) == len(asked) > 3
    asked.clear()
    monkeypatch.setattr(type(network), "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    calls.clear()
    comfyui.sample(plain, *made, sampler="dpm_2")
    assert len(calls) == len(asked) + 1


@pytest.mark.parametrize("who", ["negative", "a second positive"])
@pytest.mark.parametrize("sampler", ["dpm_2", "dpmpp_sde"])
def test_modulations_of_a_call_between_the_levels_are_not_kept_as_a_levels(comfyui, monkeypatch, sampler, who):
    """A batch that is first seen in such a call, because a conditioning begins later."""
    patcher, _ = comfyui.load()
    positive, negative, canvas = comfyui.conditioning(patcher, LATENT, 0.2)
    late = [[text, extras | {"start_percent": 0.05, "end_percent": 1.0}] for text, extras in negative]
    made = (positive, late, canvas) if who == "negative" else (positive + late, negative, canvas)
    cfg = 3.0 if who == "negative" else 1.0
    out = comfyui.sample(patcher, *made, cfg=cfg, sampler=sampler)
    monkeypatch.setattr(comfyui.model.PiDKitModel, "_level", lambda *_: None)
    torch.testing.assert_close(out, comfyui.sample(patcher, *made, cfg=cfg, sampler=sampler), rtol=0, atol=1e-5)
