"""The dtype that the network runs in, beside float32: on a crop, with the same noise."""

from __future__ import annotations

import math
from functools import partial

import torch

from ..images.psnr import psnr
from ..sampling.decode import decode
from .rows import SKIPPED, Row, in_steps
from .subject import Inputs, Subject, whole_cells

KEY = "precision"


def title_of(dtype: str) -> str:
    """The row's name."""
    return f"{dtype} beside float32"


def measure_precision(subject: Subject, side: int, steps: int) -> Row:
    """dB between two decodes of a canvas of that side.

    A network in float32 is loaded once more in bfloat16, weights and all; for another one float32 computes with its own
    weights, which are what the file has.
    """
    side = whole_cells(side, subject.config)
    inputs = Inputs.draw(subject, side, side)
    run = partial(decode, lq_latent=inputs.latent, caption=inputs.caption, degrade_sigma=0.1, steps=steps, seed=0)
    if subject.net.compute_dtype == torch.float32:
        name = "bfloat16"
        if subject.load is None:
            return Row(KEY, title_of(name), "the network runs in float32 already", SKIPPED)
        wide, narrow = run(subject.net), subject.load(torch.bfloat16)
        short = run(narrow)
        subject.decoded(narrow)
    else:
        name = subject.dtype
        short = run(subject.net)
        subject.decoded(subject.net)
        with subject.net.in_float32():
            wide = run(subject.net)
    subject.decoded(subject.net)
    close, off = psnr(short, wide), (short - wide).abs()
    largest, rms = float(off.max()) * 127.5, float(off.square().mean().sqrt()) * 127.5
    found = "the same" if math.isinf(close) else f"{close:.1f} dB"
    text = f"{found} on {side} x {side} in {in_steps(steps)}; {rms:.2f}/255 (rms), {largest:.0f}/255 at most"
    values = {"side": side, "steps": steps, "db": None if math.isinf(close) else close, "rms_255": rms}
    return Row(KEY, title_of(name), text, values=values | {"largest_255": largest, "dtype": name})
