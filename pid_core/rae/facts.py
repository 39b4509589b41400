"""What is known of the two encoders: their sizes, what they are shown, and what becomes of what they say.

Source: spec of the NVIDIA release (nv-tlabs/PiD), section of the RAE backbones; the encoders' own model cards.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..latents.families import LatentFamily, get_family

PATCH = 14  # pixels on each side of a token
EPS = 1e-6  # of the LayerNorm without weights that ends both encoders
STATISTICS_EPS = 1e-5


@dataclass(frozen=True)
class RAEFacts:
    """One encoder. pixels: the side of the square it is shown; mean, deviation: taken off a picture in [0, 1].

    antialias: whether a larger picture is averaged on its way to that square. special: tokens before those of the
    patches. head: width of an attention head, which no tensor's shape tells. patches, positions: names of two tensors
    that tell it; places: how many the second one holds. normed: whether latents are normalised by a file of statistics.
    """

    family: str
    shown: str
    pixels: int
    antialias: bool
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    special: int
    head: int
    patches: str
    positions: str
    places: int
    normed: bool

    @property
    def row(self) -> LatentFamily:
        """The family's row: `channels` is the encoder's width."""
        return get_family(self.family)

    @property
    def cells(self) -> int:
        """The latent's height and width."""
        return self.pixels // PATCH


_HALF = (0.5, 0.5, 0.5)
RAE: dict[str, RAEFacts] = {
    facts.family: facts
    for facts in (
        RAEFacts(
            "dinov2",
            shown="DINOv2 base with registers",
            pixels=448,
            antialias=False,
            mean=(0.485, 0.456, 0.406),
            deviation=(0.229, 0.224, 0.225),
            special=1 + 4,
            head=64,
            patches="embeddings.patch_embeddings.projection.weight",
            positions="embeddings.position_embeddings",
            places=1 + 37 * 37,  # the class token, and the patches of 518 x 518 pixels
            normed=True,
        ),
        RAEFacts(
            "siglip",
            shown="SigLIP 2 so400m, patch 14, 224 pixels",
            pixels=224,
            antialias=True,
            mean=_HALF,
            deviation=_HALF,
            special=0,
            head=72,
            patches="embeddings.patch_embedding.weight",
            positions="embeddings.position_embedding.weight",
            places=16 * 16,
            normed=False,
        ),
    )
}


def is_rae(family: str) -> bool:
    """Whether a picture reaches this family through one of these encoders, and not through a VAE."""
    return family in RAE


def facts_of(family: str) -> RAEFacts:
    """Raises ValueError for a family that has no such encoder."""
    if family not in RAE:
        raise ValueError(f"{family} latents are not made by an encoder of RAE; {' and '.join(RAE)} are")
    return RAE[family]
