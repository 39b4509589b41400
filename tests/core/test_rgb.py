"""The rgb family and the pixel range are lossless."""

import pytest
import torch
import torch.nn.functional as F

from pid_core.latents.rgb import from_rgb_latent, to_image, to_pixels, to_rgb_latent


@pytest.mark.parametrize("levels", [255, 65535])
def test_every_level_comes_back_exactly(levels):
    image = (torch.arange(levels + 1) / levels).view(1, 1, -1, 1).expand(1, 1, -1, 3)
    assert torch.equal(to_image(to_pixels(image)), image)


def test_random_values_come_back():
    image = torch.rand(2, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    assert (to_image(to_pixels(image)) - image).abs().max() <= 2**-25


def test_parts_of_an_image_are_the_whole(monkeypatch):
    pixels = 3 * torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    whole = to_image(pixels)
    monkeypatch.setattr("pid_core.latents.rgb.CHUNK", 20)  # two rows
    assert torch.equal(to_image(pixels), whole)


def test_alpha_is_dropped():
    image = torch.rand(1, 4, 4, 4)
    assert torch.equal(to_pixels(image), to_pixels(image[..., :3]))


def test_rgb_latent_is_the_image_unshuffled():
    image = torch.rand(2, 6, 4, 3)
    latent = to_rgb_latent(image)
    assert latent.shape == (2, 12, 3, 2)
    assert torch.equal(F.pixel_shuffle(latent, 2), to_pixels(image))
    assert torch.equal(to_rgb_latent(F.pad(image, (0, 0, 0, 1, 0, 1)), "crop"), latent)


def test_an_odd_side_gets_its_last_row_twice():
    image = torch.rand(2, 5, 3, 3)
    pixels = from_rgb_latent(to_rgb_latent(image))
    assert pixels.shape == (2, 3, 6, 4)
    assert torch.equal(pixels[..., :5, :3], to_pixels(image))
    assert torch.equal(pixels[..., 5, :], pixels[..., 4, :]) and torch.equal(pixels[..., 3], pixels[..., 2])
    assert to_rgb_latent(torch.rand(1, 1, 1, 3)).shape == (1, 12, 1, 1)


def test_one_line_errors():
    with pytest.raises(ValueError, match="odd is 'mirror'; choose one of pad, crop, error"):
        to_rgb_latent(torch.zeros(1, 4, 5, 3), "mirror")
    with pytest.raises(ValueError, match="5 x 4, and a side is odd"):
        to_rgb_latent(torch.zeros(1, 4, 5, 3), "error")
    with pytest.raises(ValueError, match="nothing is left of it when cropped"):
        to_rgb_latent(torch.zeros(1, 1, 4, 3), "crop")
    with pytest.raises(ValueError, match="[B, H, W, 3]"):
        to_pixels(torch.zeros(4, 4, 3))
    with pytest.raises(ValueError, match=r"\[1, 4, 2, 2\]"):
        to_image(torch.zeros(1, 4, 2, 2))
