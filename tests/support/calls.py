"""Calls of the network that start from the latent."""

from torch import Tensor

from pid_core import PiDNetwork


def velocity(net: PiDNetwork, x: Tensor, t: Tensor, caption: Tensor, lq_latent: Tensor, sigma: Tensor, **options):
    """One call at timesteps t [B], with the latent's features made for it."""
    features = net.encode_lq(lq_latent, *x.shape[-2:])
    return net(x, t, caption, lq_features=features, degrade_sigma=sigma, **options)
