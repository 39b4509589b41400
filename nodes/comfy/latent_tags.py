"""What a LATENT says of its images beside the samples: their family, the noise they carry, the size of the picture.

Other nodes copy what lies beside the samples and change the samples, so each tag names the latents it was written for,
and holds for no others: those of a batch that was sliced or repeated, but not resized or sampled again.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...pid_core.captions.fingerprint import digest

FAMILY = "pidkit_family"  # a name: the family that its file told
NOISE = "pidkit_noise"  # a CarriedNoise: of samples that were stopped early
SIZE = "pidkit_picture_size"  # a PictureSize: of the picture inside, where its sides were made even
TAGS = (FAMILY, NOISE, SIZE)


class Tag(NamedTuple):
    """latents: digests of the latents [1, C, h, w] that value holds for."""

    value: object
    latents: frozenset[str]


def tagged(latent: dict, **tags) -> dict:
    """A LATENT with values for the tags of these names; None: without that tag. It must hold one tensor of images."""
    latents = frozenset(digest(one) for one in latent["samples"].split(1))
    rest = {key: value for key, value in latent.items() if key not in tags}
    return rest | {key: Tag(value, latents) for key, value in tags.items() if value is not None}


def read_tag(latent: dict, key: str, of_all: bool = False):
    """What a tag says of the latents that are there now; None where it says nothing.

    of_all: only where it holds for every image, not where it does for one of them.
    """
    tag = latent.get(key)
    if not isinstance(tag, Tag):
        return None
    hold = (digest(one) in tag.latents for one in latent["samples"].split(1))
    return tag.value if (all if of_all else any)(hold) else None


def slice_latent(latent: dict, index: int) -> dict:
    """The LATENT of one image of a batch, with all that belongs to it."""
    samples = latent["samples"]
    one = latent | {"samples": samples[index : index + 1]}
    mask, numbers = latent.get("noise_mask"), latent.get("batch_index")
    if isinstance(mask, Tensor) and mask.shape[0] == samples.shape[0]:
        one["noise_mask"] = mask[index : index + 1]
    if isinstance(numbers, list) and len(numbers) == samples.shape[0]:
        one["batch_index"] = numbers[index : index + 1]
    return one
