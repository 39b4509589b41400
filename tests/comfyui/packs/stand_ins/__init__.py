"""Nodes that stand in for models too large for a test. The test server loads this folder as a pack."""

import torch


class TestText:
    """Random text of any width, as a text encoder would give it."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"width": ("INT",)}, "optional": {"tokens": ("INT",), "seed": ("INT",)}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "run"
    CATEGORY = "tests"

    def run(self, width, tokens=5, seed=0):
        text = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed))
        return ([[text, {}]],)


NODE_CLASS_MAPPINGS = {"TestText": TestText}
