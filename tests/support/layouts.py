"""The same weights as others name and store them."""

import re


def split(state):
    """ComfyUI's layout: rows [pixel, 6, P], the first three and the last three of every pixel apart."""
    out, width = {}, state["pixel_embedder.proj.weight"].shape[0]
    for name, value in state.items():
        if not re.match(r"pixel_blocks\.\d+\.adaLN_modulation\.0\.", name):
            out[name] = value
            continue
        rows = value.unflatten(0, (-1, 6, width))
        for half, part in (("msa", rows[:, :3]), ("mlp", rows[:, 3:])):
            out[name.replace("modulation.0.", f"modulation_{half}.")] = part.flatten(0, 2).contiguous()
    return out
