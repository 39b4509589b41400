"""Colours as people see them differ: CIELAB and CIEDE2000.

Sources: IEC 61966-2-1 (sRGB); CIE 15 (CIELAB, white D65); G. Sharma, W. Wu, E. N. Dalal, The CIEDE2000
Color-Difference Formula: Implementation Notes, Supplementary Test Data, and Mathematical Observations, Color Research
and Application 30, 2005. Numbers of equations are those of the third.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))  # of linear sRGB
CUBE = (6 / 29) ** 3  # below it CIELAB's root goes on as a line
FAR = 25.0**7


def lab_of(colours: Tensor) -> Tensor:
    """sRGB [..., 3] in [0, 1] -> L*, a*, b* [..., 3], float64 on the CPU; sRGB's white is exactly 100, 0, 0."""
    coded = colours.detach().cpu().double().clamp(0, 1)
    linear = torch.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(TO_XYZ, dtype=torch.float64)
    relative = linear @ (matrix / matrix.sum(1, keepdim=True)).T
    x, y, z = torch.where(relative > CUBE, relative.clamp_min(CUBE) ** (1 / 3), relative * 841 / 108 + 4 / 29).unbind(
        -1
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """The difference of colours L*, a*, b* [..., 3], [...]: 1 is about the least that is seen side by side."""
    (l1, a1, b1), (l2, a2, b2) = (lab.double().unbind(-1) for lab in (first, second))
    mean = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * _far(mean)  # (2) to (5)
    c1, c2 = torch.hypot(stretch * a1, b1), torch.hypot(stretch * a2, b2)
    h1, h2 = torch.atan2(b1, stretch * a1), torch.atan2(b2, stretch * a2)
    turn = h2 - h1  # (10); a grey has no hue
    turn = torch.where(turn.abs() > math.pi, turn - 2 * math.pi * turn.sign(), turn) * (c1 * c2 != 0)
    lightness, chroma, hue = l2 - l1, c2 - c1, 2 * (c1 * c2).sqrt() * (turn / 2).sin()
    level, strength, angle = (l1 + l2) / 2, (c1 + c2) / 2, _mean_hue(h1, h2, c1, c2)
    t = 1 - 0.17 * (angle - math.radians(30)).cos() + 0.24 * (2 * angle).cos()  # (15)
    t = t + 0.32 * (3 * angle + math.radians(6)).cos() - 0.20 * (4 * angle - math.radians(63)).cos()
    away = (level - 50) ** 2
    s_l = 1 + 0.015 * away / (20 + away).sqrt()  # (18) to (20)
    s_c, s_h = 1 + 0.045 * strength, 1 + 0.015 * strength * t
    blue = math.radians(30) * torch.exp(-(((angle.rad2deg() % 360 - 275) / 25) ** 2))  # (16), (17), (21)
    turned = -2 * _far(strength) * (2 * blue).sin()
    squares = (lightness / s_l) ** 2 + (chroma / s_c) ** 2 + (hue / s_h) ** 2
    return (squares + turned * (chroma / s_c) * (hue / s_h)).clamp_min(0).sqrt()


def _far(chroma: Tensor) -> Tensor:
    power = chroma**7
    return (power / (power + FAR)).sqrt()


def _mean_hue(h1: Tensor, h2: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
    """(14): the hue between the two, on the shorter way around; where one is grey, the other's."""
    h1, h2 = h1 % (2 * math.pi), h2 % (2 * math.pi)
    both = h1 + h2
    around = torch.where(both < 2 * math.pi, both + 2 * math.pi, both - 2 * math.pi)
    between = torch.where((h1 - h2).abs() <= math.pi, both, around) / 2
    return torch.where(c1 * c2 == 0, both, between)
