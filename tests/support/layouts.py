"""The same weights as others name and store them."""

from torch import Tensor

from benchmarks.synthetic import split_modulation


def split(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """ComfyUI's layout, of names with a prefix or without."""
    width = next(value.shape[0] for name, value in state.items() if name.endswith("pixel_embedder.proj.weight"))
    return dict(pair for name, value in state.items() for pair in split_modulation(name, value, width))
