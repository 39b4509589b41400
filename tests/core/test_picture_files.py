"""Picture files of every kind: read as they look, written whole, refused in one line."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from pid_core.images.files import FORMATS, check_output, read_picture, write_picture
from support.old import skip_before

RAMP = np.linspace(10, 240, 8 * 6 * 3).round().astype(np.uint8).reshape(6, 8, 3)
ALPHA = np.linspace(0, 255, 8 * 6).round().astype(np.uint8).reshape(6, 8)


def saved(tmp_path, picture, name="in.png", **options):
    path = tmp_path / name
    picture.save(path, **options)
    return path


def levels(tensor):
    return (tensor * 255).round().byte().numpy()


def deep_png(path, values):
    """A 16-bit PNG of [H, W, channels] uint16."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_phone_pictures_come_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(RAMP), exif=exif)
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    assert np.array_equal(levels(read_picture(path).image), expected)
    assert (expected.shape == (8, 6, 3)) == (orientation > 4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_stay(tmp_path, channels):
    if channels > 1:
        pytest.importorskip("av", reason="NOT TESTED: 16-bit colours, for PyAV, which reads them, is missing")
    values = (np.arange(4 * 5 * channels).reshape(4, 5, channels) * 641 % 65536).astype(np.uint16)
    picture = read_picture(deep_png(tmp_path / "deep.png", values))
    colours, alpha = (values[..., :-1], values[..., -1]) if channels % 2 == 0 else (values, None)
    expected = np.broadcast_to(colours, (4, 5, 3)).astype(np.float32) / 65535
    assert np.abs(picture.image.numpy() - expected).max() < 1e-6 and picture.notes == ()
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        assert np.abs(picture.alpha.numpy() - alpha.astype(np.float32) / 65535).max() < 1e-6


def test_sixteen_bits_without_the_library_that_reads_them(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    values = (np.arange(60).reshape(4, 5, 3) * 1000).astype(np.uint16)
    picture = read_picture(deep_png(tmp_path / "deep.png", values))
    assert np.abs(picture.image.numpy() - values / 65535).max() < 1 / 254
    assert "16 bits are cut to 8" in picture.notes[0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_opaque_modes(tmp_path, mode):
    if mode == "YCbCr":
        skip_before("pillow", (13,), "does not read YCbCr without compression, which it writes to TIFF")
    grey = Image.fromarray(RAMP).convert("L")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        factor = 257 if mode == "I" else 1 / 255
        picture = Image.fromarray(
            (np.asarray(grey).astype(float) * factor).astype(np.int32 if mode == "I" else np.float32)
        )
    else:
        picture = Image.fromarray(RAMP).convert(mode)
    read = read_picture(saved(tmp_path, picture, "in.tif" if mode in ("CMYK", "YCbCr", "I", "F") else "in.png"))
    assert read.alpha is None
    expected = np.asarray(grey.convert("RGB") if mode in ("I;16", "I", "F") else picture.convert("RGB"))
    assert np.abs(levels(read.image).astype(int) - expected).max() <= 1
    assert bool(read.notes) == (mode == "CMYK")


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "RGB", "L"])
def test_transparent_modes(tmp_path, mode):
    if mode in ("LA", "RGBA"):
        picture = Image.fromarray(RAMP).convert(mode[:-1])
        picture.putalpha(Image.fromarray(ALPHA))
        path = saved(tmp_path, picture)
        expected = ALPHA
    else:
        picture = Image.fromarray(RAMP).convert(mode)
        key = {"P": 0, "L": int(np.asarray(picture).flat[0]) if mode == "L" else 0, "RGB": tuple(map(int, RAMP[0, 0]))}[
            mode
        ]
        path = saved(tmp_path, picture, transparency=key)
        with Image.open(path) as file:
            expected = np.asarray(file.convert("RGBA"))[..., 3]
        assert expected.min() == 0
    read = read_picture(path)
    assert np.array_equal(levels(read.alpha), expected) and read.image.shape == (6, 8, 3)


def test_colour_profiles_become_srgb(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    path = saved(tmp_path, Image.fromarray(RAMP), icc_profile=srgb.tobytes())
    assert np.array_equal(levels(read_picture(path).image), RAMP)
    path = saved(tmp_path, Image.fromarray(RAMP), "lab.png", icc_profile=lab.tobytes())
    assert "colour profile cannot be applied" in read_picture(path).notes[0]
    path = saved(tmp_path, Image.fromarray(RAMP), "wide.png", icc_profile=wide_gamut())
    read = read_picture(path)
    expected = ImageCms.profileToProfile(
        Image.fromarray(RAMP), io.BytesIO(wide_gamut()), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert np.array_equal(levels(read.image), np.asarray(expected)) and not np.array_equal(np.asarray(expected), RAMP)


def wide_gamut() -> bytes:
    """sRGB's profile with red and green changed places, under a name of its own: a profile that shows."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"sRGB", b"wide").replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
    return bytes(data.replace(b"rXYZ", b"tmp_").replace(b"gXYZ", b"rXYZ").replace(b"tmp_", b"gXYZ"))


def test_several_frames(tmp_path):
    first, second = Image.fromarray(RAMP), Image.fromarray(255 - RAMP)
    path = saved(tmp_path, first, "in.webp", save_all=True, append_images=[second], lossless=True)
    read = read_picture(path)
    assert np.array_equal(levels(read.image), RAMP) and read.notes == ("in.webp holds 2 frames: the first is used",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"no picture", "text.png is no picture that can be read"),
        ("empty.png", b"", "empty.png is no picture that can be read"),
        ("caf\udce9.png", b"x", "caf\\\\udce9.png is no picture"),
    ],
)
def test_what_is_no_picture(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as failed:
        read_picture(path)
    str(failed.value).encode()
    assert "\n" not in str(failed.value)


def test_a_picture_cut_short(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="in.png cannot be read"):
        read_picture(path)


def test_no_file_a_folder_and_a_bomb(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="there is no file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(ValueError, match="is no file"):
        read_picture(tmp_path)
    path = saved(tmp_path, Image.fromarray(RAMP))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match="megapixels"):
        read_picture(path)


@pytest.mark.parametrize("values", [np.float32([[0, 2.5]]), np.float32([[-0.1, 1]]), np.float32([[np.nan, 1]])])
def test_floating_point_outside_brightness(tmp_path, values):
    with pytest.raises(ValueError, match="which has no meaning as brightness"):
        read_picture(saved(tmp_path, Image.fromarray(values), "in.tif"))


@pytest.mark.parametrize("ending", list(FORMATS))
@pytest.mark.parametrize("alpha", [False, True])
def test_what_is_written_is_read_again(tmp_path, ending, alpha):
    image, mask = torch.from_numpy(RAMP).float() / 255, torch.from_numpy(ALPHA).float() / 255 if alpha else None
    path = tmp_path / "new" / f"out{ending}"
    if alpha and FORMATS[ending][0] == "JPEG":
        with pytest.raises(ValueError, match="JPEG cannot hold"):
            check_output(path, (6, 8), alpha=True)
        return
    check_output(path, (6, 8), alpha=alpha)
    about = {"model": "pid_nano", "degrade_sigma": 0.25, "seed": 2**64 - 1, "steps": 4}
    assert write_picture(path, image, mask, about=about) == path
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    read = read_picture(path)
    assert np.abs(levels(read.image).astype(int) - RAMP).max() <= (12 if FORMATS[ending][0] == "JPEG" else 0)
    assert (read.alpha is not None) == alpha and (not alpha or np.array_equal(levels(read.alpha), ALPHA))
    with Image.open(path) as file:
        told = file.text["pidkit"] if ending == ".png" else file.getexif()[0x010E]
        assert json.loads(told) == about


def test_outputs_that_cannot_be_written_are_found_first(tmp_path):
    source = saved(tmp_path, Image.fromarray(RAMP))
    there = saved(tmp_path, Image.fromarray(RAMP), "there.png")
    for path, options, message in [
        (tmp_path / "out.bmpx", {}, "pictures are written as .png"),
        (tmp_path / "out", {}, "ends in 'nothing'"),
        (tmp_path, {}, "ends in"),
        (there, {}, "is there already: choose another name, or add --overwrite"),
        (source, {"source": source, "overwrite": True}, "is the picture itself"),
        (there / "out.png", {}, "is a file, so no folder can be made there"),
        (tmp_path / ("x" * 300 + ".png"), {}, "cannot be written"),
    ]:
        with pytest.raises(ValueError, match=message) as failed:
            check_output(path, (6, 8), **options)
        assert "\n" not in str(failed.value)
    check_output(there, (6, 8), source=source, overwrite=True)
    with pytest.raises(ValueError, match="WEBP holds at most 16383 pixels a side"):
        check_output(tmp_path / "out.webp", (16384, 10))


def test_a_file_that_came_meanwhile_stays(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP), "out.png")
    before = path.read_bytes()
    other = write_picture(path, torch.zeros(2, 2, 3))
    assert other.name == "out (2).png" and path.read_bytes() == before
    assert write_picture(path, torch.zeros(2, 2, 3), overwrite=True) == path and path.read_bytes() != before


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), kind=st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP"]), cut=st.integers(0, 400))
def test_broken_files_give_a_picture_or_one_line(tmp_path_factory, data, kind, cut):
    file = io.BytesIO()
    Image.fromarray(RAMP).save(file, kind)
    whole = file.getvalue()
    path = tmp_path_factory.mktemp("broken") / "in.png"
    path.write_bytes(whole[: cut % len(whole)] + data + whole[cut % len(whole) + len(data) :])
    try:
        read = read_picture(path)
    except ValueError as error:
        assert str(error).startswith("in.png ") and "\n" not in str(error)
    else:
        assert read.image.ndim == 3 and read.image.min() >= 0 and read.image.max() <= 1
