"""Files of tensors: what is damaged, or made to do harm, costs little and gives one line."""

import json
import os
import re
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pid_core import load_network, read_checkpoint
from pid_core.captions.fingerprint import fingerprint
from pid_core.captions.text import Caption, read_caption, write_caption
from pid_core.checkpoints import reading
from pid_core.checkpoints.reading import examine_checkpoint
from pid_core.latents.files import SavedLatent, latent_bytes, read_latent
from pid_core.tensor_files import LARGEST_HEADER, MOST_TENSORS, Stamp, read_tensors
from support.fuzzing import DTYPES
from support.goldens import spec, weights
from support.layouts import split

READERS = {"a.safetensors": read_checkpoint, "a.latent": read_latent, "b.safetensors": read_caption}


@pytest.fixture(scope="module")
def state():
    return weights(spec("flux_v1"))


def line(read, *arguments, **options) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read(*arguments, **options)
    assert not caught.typename.startswith("_")  # ComfyUI shows it
    text = str(caught.value)
    assert text.isprintable() and len(text) < 1000, text
    return text


def safetensors(path: Path, header: object, values: bytes = b"") -> Path:
    """A file with any header at all: bytes, or what becomes JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + values)
    return path


def put(tmp_path, tensors: dict, ending=".safetensors", **metadata) -> Path:
    path = tmp_path / f"odd{ending}"
    if ending == ".safetensors":
        save_file(tensors, path, metadata or None)
    else:
        torch.save(tensors, path)
    return path


def entry(**changes) -> dict:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes


# Headers


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe{}",
        [1],
        {"a": 3},
        {"a": {}},
        {"a": entry(shape=[-1])},
        {"a": entry(shape=[10**400, 10**400])},
        {"a": entry(shape=[2**62, 2**62])},
        {"a": entry(shape="1")},
        {"a": entry(shape=[True])},
        {"a": entry(data_offsets=[0, 10**30])},
        {"a": entry(data_offsets=[4, 0])},
        {"a": entry(data_offsets=[0.0, 4.0])},
        {"a": entry(data_offsets=[0])},
        {"a": entry(dtype=["F32"])},
        {"a": entry(dtype="F4\n\x1b[31m" * 99)},
        {"a\n" * 9999: entry(shape=[3])},
        {"__metadata__": {"pid_config": 3}},
        {"__metadata__": [1]},
    ],
    ids=lambda header: repr(header)[:40],
)
def test_headers_that_say_nonsense(tmp_path, name, header):
    assert name in line(READERS[name], safetensors(tmp_path / name, header, b"\0" * 4))


@pytest.mark.parametrize("name", READERS)
def test_headers_that_are_too_large(tmp_path, name):
    many = {f"t{i}": entry(shape=[0], data_offsets=[0, 0]) for i in range(MOST_TENSORS + 1)}
    assert f"{MOST_TENSORS + 1:,} tensors" in line(READERS[name], safetensors(tmp_path / name, many))
    with (tmp_path / name).open("wb") as file:
        file.write(struct.pack("<Q", LARGEST_HEADER + 1))
        file.truncate(LARGEST_HEADER + 100)
    assert "its header alone has 8 MB" in line(READERS[name], tmp_path / name)


@pytest.mark.parametrize("prefix", ["patch_blocks.{}.x", "pixel_blocks.{}.x", "lq_proj.latent_proj.{}.x"])
def test_block_names_are_bounded_before_blocks_are_built(state, monkeypatch, prefix):
    built = []
    monkeypatch.setattr(reading, "PiDNetwork", lambda *_, **__: built.append(1))
    names = {prefix.format(i): torch.zeros(1) for i in range(4000)}
    assert "more than 128 is no PiD's" in line(read_checkpoint, state | names)
    assert not built


# Values


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: torch.empty_like(t, device="meta"), "no plain values|besides tensors"),
        (lambda t: torch.zeros(1).expand(t.shape), "no plain values"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "besides tensors|no plain values"),
        (lambda t: torch.full_like(t, float("nan")), "NaN or infinite values"),
        (lambda t: torch.where(t == t.max(), float("-inf"), t), "NaN or infinite values"),
        (lambda t: torch.where(t == t.max(), float("nan"), t).half(), "NaN or infinite values"),
        (lambda t: torch.where(t == t.max(), float("inf"), t).bfloat16(), "NaN or infinite values"),
        (lambda t: torch.where(t == t.max(), float("nan"), t).to(torch.float8_e4m3fn), "NaN or infinite values"),
        (lambda t: torch.where(t == t.max(), float("inf"), t).to(torch.float8_e5m2), "NaN or infinite values"),
        (lambda t: t.to(torch.complex64), "no floating-point numbers"),
        (lambda t: t.bool(), "no floating-point numbers"),
        (lambda t: [1, 2], "no flat list of tensors|besides tensors"),
        (lambda t: "text", "no flat list of tensors"),
        (lambda t: None, "no flat list of tensors"),
        (lambda t: 10**400, "no flat list of tensors"),
        (lambda t: {"nested": t}, "no flat list of tensors"),
    ],
)
@pytest.mark.parametrize("name", ["patch_blocks.1.mlp_x.w1.weight", "s_embedder.proj.weight", "default_caption"])
def test_entries_of_a_pth_that_are_no_plain_finite_tensors(state, tmp_path, name, odd, message):
    value = odd(state.get(name, torch.randn(3, 24)))
    path = put(tmp_path, state | {name: value}, ".pth")
    text = line(read_checkpoint, path)
    assert re.search(message, text) or (name == "default_caption" and "default_caption" in text), text


@pytest.mark.parametrize("keys", [[0], [None], [("a", "b")], [b"x"], [1.5], ["\ud800\n"]])
def test_names_of_a_pth_that_are_no_names(state, tmp_path, keys):
    line(read_checkpoint, put(tmp_path, state | {key: torch.zeros(1) for key in keys}, ".pth"))


def test_large_finite_values_are_no_infinity(state):
    name = "patch_blocks.1.mlp_x.w1.weight"
    assert read_checkpoint(state | {name: torch.full_like(state[name], 3e38)})
    assert read_checkpoint(state | {name: torch.full_like(state[name], 65504.0).half()})


@pytest.mark.parametrize("half", ["msa", "mlp"])
@pytest.mark.parametrize("odd", ["empty", "scalar", "no_rows", "other_dtype", "integer", "width_scalar", "width_empty"])
def test_split_layouts_that_cannot_be_joined(state, half, odd):
    halves = split(state)
    name = f"pixel_blocks.0.adaLN_modulation_{half}.weight"
    changes = {
        "empty": {name: torch.zeros(0)},
        "scalar": {name: torch.zeros(())},
        "no_rows": {name: halves[name][:0]},
        "other_dtype": {name: halves[name].half()},
        "integer": {name: halves[name].int()},
        "width_scalar": {"pixel_embedder.proj.weight": torch.zeros(())},
        "width_empty": {"pixel_embedder.proj.weight": torch.zeros(0, 3)},
    }
    line(read_checkpoint, halves | changes[odd])


def test_a_split_layout_in_float8_is_joined(state):
    halves = {k: v.to(torch.float8_e4m3fn) if v.ndim == 2 else v for k, v in split(state).items()}
    whole = {k: v.to(torch.float8_e4m3fn) if v.ndim == 2 else v for k, v in state.items()}
    joined, plain = (load_network(tensors).state_dict() for tensors in (halves, whole))
    assert all(torch.equal(joined[name], plain[name]) for name in plain)


# Settings


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"hidden_size": ' + "9" * 400 + "}",
        '{"hidden_size": ' + "9" * 5000 + "}",
        '{"sr_scale": 1' + "0" * 400 + "}",
        '{"sr_scale": 1e308}',
        '{"window_max": 100000000000}',
        '{"rope_theta": 1' + "0" * 400 + "}",
        '{"rope_theta": 1e400}',
        '{"family": ["flux"]}',
        '{"family": {"a": 1}}',
        '{"family": "\\ud800"}',
        '{"family": "' + "x" * 100_000 + '"}',
        '{"' + "x" * 100_000 + '": 1}',
        '{"patch_depth": true}',
        '{"gate": ["token"]}',
        '{"schedule": {}}',
        "\x00\n",
    ],
    ids=lambda text: repr(text)[:30],
)
def test_a_configuration_that_says_nonsense(state, tmp_path, text):
    line(read_checkpoint, put(tmp_path, state, pid_config=text))
    stored = torch.tensor(list(text.encode(errors="replace")), dtype=torch.uint8)
    line(read_checkpoint, put(tmp_path, state | {"pid_config": stored}))


LAYER = "patch_blocks.1.mlp_x.w1"


@pytest.mark.parametrize(
    ("form", "changes"),
    [
        *[("float8_e4m3fn", {"weight_scale": torch.ones(shape)}) for shape in ([2], [85], [85, 1], [0], [7, 3])],
        ("float8_e4m3fn", {"weight_scale": torch.ones((), dtype=torch.int64)}),
        ("float8_e4m3fn", {"weight_scale": torch.ones((), dtype=torch.float64)}),
        ("float8_e4m3fn", {"weight_scale": torch.ones(1, 1, 1)}),
        ("int8_tensorwise", {"weight_scale": torch.ones(85, 1, 1)}),
        ("float8_e4m3fn", {"weight_scale": torch.tensor(float("nan"))}),
        ("float8_e4m3fn", {"input_scale": torch.ones(3)}),
        ("int8_tensorwise", {"weight_scale": torch.ones(84)}),
        ("mxfp8", {"weight_scale": torch.ones(85, 1)}),
        ("mxfp8", {"weight_scale": torch.ones(85, 1, dtype=torch.uint8)}),
        ("float8_e4m3fn", {"comfy_quant": b"[" * 9999}),
        ("float8_e4m3fn", {"comfy_quant": b'{"format": ["float8_e4m3fn"]}'}),
        ("float8_e4m3fn", {"comfy_quant": b'{"format": "\\ud800\\n"}'}),
        ("int8_tensorwise", {"comfy_quant": b'{"format": "int8_tensorwise", "params": 5}'}),
        ("int8_tensorwise", {"comfy_quant": b'{"format": "int8_tensorwise", "convrot_groupsize": "x"}'}),
        ("float8_e4m3fn", {"comfy_quant": torch.zeros(3)}),
    ],
)
def test_quantised_layers_whose_scales_or_settings_do_not_fit(state, form, changes):
    kind = torch.int8 if form == "int8_tensorwise" else torch.float8_e4m3fn
    side = {"weight_scale": torch.ones(()), "comfy_quant": json.dumps({"format": form}).encode()} | changes
    tensors = {
        f"{LAYER}.{leaf}": torch.tensor(list(value), dtype=torch.uint8) if isinstance(value, bytes) else value
        for leaf, value in side.items()
    }
    line(read_checkpoint, state | {f"{LAYER}.weight": state[f"{LAYER}.weight"].to(kind)} | tensors)


@pytest.mark.parametrize("text", ["[" * 9999, "{}", '{"layers": 3}', '{"layers": {"a": 3}}', "[]"])
def test_quantisation_in_the_metadata_that_says_nonsense(state, tmp_path, text):
    assert "_quantization_metadata" in line(read_checkpoint, put(tmp_path, state, _quantization_metadata=text))


@pytest.mark.parametrize(
    "about",
    [
        "[" * 9999,
        '{"family": ["flux"]}',
        '{"family": 3}',
        '{"degrade_sigma": 1' + "0" * 400 + "}",
        '{"degrade_sigma": "0.1"}',
        '{"degrade_sigma": NaN}',
        '{"degrade_sigma": true}',
        '{"family": "flux", "picture_size": [1e400, 1]}',
        '{"family": "flux", "picture_size": [1' + "0" * 400 + ", 1]}",
        '{"family": "flux", "picture_size": 7}',
        '{"family": "flux", "picture_size": [1, 2, 3]}',
    ],
    ids=lambda text: repr(text)[:30],
)
def test_a_latent_that_says_nonsense_of_itself(tmp_path, about):
    path = tmp_path / "a.latent"
    path.write_bytes(latent_bytes(SavedLatent(torch.zeros(1, 16, 2, 2))))
    save_file({"latent_tensor": torch.zeros(1, 16, 2, 2)}, path, {"pid_latent": about})
    assert "a.latent: " in line(read_latent, path)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_latents_and_captions_of_other_numbers(tmp_path, dtype):
    path = tmp_path / "a.latent"
    save_file({"latent_tensor": torch.zeros(1, 16, 2, 2).to(dtype)}, path)
    line(read_latent, path)
    save_file({"caption": torch.zeros(1, 3, 2).to(dtype)}, path, {"format": "pidkit_caption", "version": "1"})
    line(read_caption, path)


def test_a_caption_whose_count_is_a_long_number(tmp_path):
    path = tmp_path / "a.safetensors"
    about = {"format": "pidkit_caption", "version": "1", "cut": "9" * 5000}
    save_file({"caption": torch.ones(1, 3, 2)}, path, about)
    assert read_caption(path).cut == 0


def test_a_text_with_half_a_character_is_not_written(tmp_path):
    assert "half a character" in line(write_caption, tmp_path / "a", Caption(torch.ones(1, 3, 2), "a\ud800"))


# PyTorch's archives


def test_a_pth_that_unpacks_to_far_more_is_not_unpacked(state, tmp_path):
    path = put(tmp_path, state | {"more": torch.zeros(10_000_000)}, ".pth")
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    assert packed.stat().st_size < path.stat().st_size / 10
    assert "compressed, which PyTorch never does" in line(read_checkpoint, packed)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_reserves_memory(tmp_path, zipped):
    class Reserve:
        def __reduce__(self):
            return bytearray, (10**11,)

    path = tmp_path / "a.pth"
    torch.save({"x": Reserve()}, path, _use_new_zipfile_serialization=zipped)
    assert "bytearray besides tensors" in line(read_checkpoint, path)


def test_a_pth_whose_list_of_tensors_is_huge(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({f"{i}" * 100: 0 for i in range(20_000)}, path)
    assert "its list of tensors has" in line(read_checkpoint, path)


# What is no file, or not ours to read


@pytest.mark.parametrize("name", READERS)
def test_pipes_devices_and_folders_are_not_read(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    assert "a pipe or a device" in line(READERS[name], path)
    with pytest.raises(OSError, match="is no file"):
        fingerprint(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "a pipe or a device" in line(READERS[name], path)
    path.unlink()
    path.mkdir()
    assert "it is a folder" in line(READERS[name], path)
    assert "no such file" in line(READERS[name], Path("a\0b"))


@pytest.mark.parametrize("name", READERS)
def test_a_file_without_read_permission_is_not_to_be_fetched_again(tmp_path, name, monkeypatch):
    path = tmp_path / name
    path.write_bytes(b"x" * 99)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)  # the tests may run as root
    text = line(READERS[name], path)
    assert "read permission" in text and "fetch it again" not in text


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_name_that_is_not_utf_8(state, tmp_path, ending):
    path = put(tmp_path, state, ending).rename(tmp_path / os.fsdecode(b"caf\xe9" + ending.encode()))
    read = read_checkpoint(path).state_dict
    assert all(torch.equal(read[name], state[name]) for name in state)
    assert examine_checkpoint(path) == read_checkpoint(state).config
    os.truncate(path, 1000)
    assert rf"caf\udce9{ending}" in line(read_checkpoint, path)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint16])
def test_values_are_the_same_mapped_or_not(tmp_path, dtype):
    values = (torch.arange(12).reshape(3, 4) % 2).to(dtype)
    path = put(tmp_path, {"a": values, "b": values[:0], "c": values[0, 0].clone()})
    mapped, read = (read_tensors(path, mapped=mapped)[0] for mapped in (True, False))
    for name in "abc":
        assert mapped[name].dtype == read[name].dtype == dtype and mapped[name].shape == read[name].shape
        assert mapped[name].flatten().view(torch.uint8).equal(read[name].flatten().view(torch.uint8))


def test_weights_are_read_into_memory_where_the_file_may_change(state, tmp_path):
    for ending in (".safetensors", ".pth"):
        path = put(tmp_path, state, ending)
        tensors, _ = read_tensors(path, mapped=False)
        path.write_bytes(b"")
        assert all(torch.equal(tensors[name], state[name]) for name in state)


def test_a_stamp_tells_a_file_that_was_cut_short_or_removed(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    before = Stamp.of(path)
    assert Stamp.of(path) == before
    os.truncate(path, 3)
    assert Stamp.of(path) != before
    path.unlink()
    assert Stamp.of(path) is None


@pytest.mark.parametrize("damage", ["none", "nan", "missing"])
def test_looking_at_a_file_without_its_values(state, tmp_path, damage):
    """What doctor does: the same check but for the values."""
    name = "patch_blocks.1.mlp_x.w1.weight"
    changed = {
        "none": state,
        "nan": state | {name: state[name] / 0},
        "missing": {k: state[k] for k in state if k != name},
    }
    path = put(tmp_path, changed[damage])
    if damage == "missing":
        assert line(examine_checkpoint, path) == line(read_checkpoint, path)
    else:
        assert examine_checkpoint(path) == read_checkpoint(state).config


def test_a_file_that_is_cut_short_tells_how_much_is_there(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(100)}, file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-300])
    told = line(read_tensors, file, "checkpoint")
    assert f"it ends in x: it has {len(whole) - 300:,} bytes, {len(whole):,} are needed" in told
