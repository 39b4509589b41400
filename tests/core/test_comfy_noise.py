"""ComfyUI's noise recipe, against the draws it is defined by."""

import torch

from pid_core.sampling.comfy_noise import comfy_noise, comfy_step_noise

SHAPE = (2, 3, 5, 7)


def test_first_noise_is_the_seeds_first_draw_and_leaves_the_global_generator_alone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        expected = torch.randn(SHAPE)
        before = torch.get_rng_state()
        assert torch.equal(comfy_noise(SHAPE, 42), expected)
        assert torch.equal(torch.get_rng_state(), before)


def test_step_noise_on_the_cpu_is_a_stream_seeded_one_higher():
    stream = torch.Generator().manual_seed(43)
    expected = [torch.randn(SHAPE, generator=stream) for _ in range(3)]
    drawn = comfy_step_noise(SHAPE, 42, 3)
    assert len(drawn) == 3
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))
    assert comfy_step_noise(SHAPE, 42, 0) == []
