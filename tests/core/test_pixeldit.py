"""PixelDiT: PiD's network without the latent branch."""

from dataclasses import replace

import pytest
import torch

from pid_core import PiDConfig, load_network
from support.calls import velocity
from support.goldens import draw, spec, weights


def cut(name):
    """A golden network's weights, with and without the latent branch."""
    state = {k: v for k, v in weights(spec(name)).items()}
    return state, {k: v for k, v in state.items() if not k.startswith(("lq_proj.", "pit_lq_gate."))}


@pytest.mark.parametrize("name", ["flux_v1", "flux_v1pt5"])
def test_equals_pid_whose_latent_adds_nothing(name):
    """With every output head at zero the gates have nothing to let through, whatever they do."""
    state, plain = cut(name)
    heads = ("lq_proj.output_heads.", "lq_proj.pit_head.")
    full = load_network({k: torch.zeros_like(v) if k.startswith(heads) else v for k, v in state.items()})
    config = replace(full.config, latent_channels=0)
    net = load_network({f"net.{k}": v for k, v in plain.items()})
    assert net.config.rope_mode == config.rope_mode == "ntk_aware"
    side = config.rope_reference  # v1.5 scales RoPE from another side; a v1 file's is PixelDiT's
    net.config = replace(net.config, rope_reference=side)
    x, text, t = draw(1, [2, 3, 96, 64]), draw(2, [2, 5, 24]), torch.tensor([900.0, 20.0])
    latent = draw(3, [2, config.lq_in_channels or 16, 3, 2])
    expected = velocity(full, x, t, text, latent, torch.tensor([0.0, 0.4]))
    assert torch.equal(net(x, t, text), expected)


def test_a_latent_is_refused():
    net = load_network(cut("flux_v1")[1])
    x, text, t = draw(1, [1, 3, 32, 32]), draw(2, [1, 5, 24]), torch.tensor([900.0])
    with pytest.raises(ValueError, match="takes no lq_features"):
        net(x, t, text, lq_features=torch.zeros(1, 4, 8), degrade_sigma=torch.zeros(1))
    with pytest.raises(ValueError, match="takes no latent"):
        net.encode_lq(torch.zeros(1, 16, 1, 1), 32, 32)


def test_pid_still_needs_its_latent_and_sigma():
    net = load_network(cut("flux_v1")[0])
    x, text, t = draw(1, [1, 3, 32, 32]), draw(2, [1, 5, 24]), torch.tensor([900.0])
    with pytest.raises(ValueError, match="PiD needs the latent"):
        net(x, t, text, degrade_sigma=torch.zeros(1))
    with pytest.raises(ValueError, match="PiD needs degrade_sigma"):
        net(x, t, text, lq_features=torch.zeros(1, 4, 8))


def test_metadata_may_not_invent_a_latent():
    with pytest.raises(ValueError, match="latent_channels = 16, but there is no tensor of a latent branch"):
        PiDConfig.from_state_dict(cut("flux_v1")[1], {"pid_config": '{"latent_channels": 16}'})
