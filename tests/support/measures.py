"""How close two pictures are."""

from torch import Tensor


def psnr(a: Tensor, b: Tensor, *, span: float = 2.0) -> float:
    """In dB. span: from the least to the largest value, 2 for values in [-1, 1]."""
    return float(10 * (span**2 / (a - b).square().mean()).log10())
