"""The same weights as others name and store them."""

from torch import Tensor

from benchmarks.synthetic import split_modulation


def split(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """ComfyUI's layout."""
    width = state["pixel_embedder.proj.weight"].shape[0]
    return dict(pair for name, value in state.items() for pair in split_modulation(name, value, width))
