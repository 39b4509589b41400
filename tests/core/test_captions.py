"""Captions: token ids, files, the cache on disk, fingerprints of encoder files."""

import hashlib
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pid_core.captions.cache import CaptionCache
from pid_core.captions.fingerprint import fingerprint
from pid_core.captions.text import TEMPLATE, Caption, caption_tokens, read_caption, write_caption

BOS = 2


def encode(text: str) -> list[int]:
    """Stands in for a tokenizer: a token per word, so that the template's last blank is one of its own."""
    return [BOS] + [3 + int(hashlib.sha256(word.encode()).hexdigest()[:4], 16) for word in text.split(" ")]


def states(seed=0, tokens=5, width=8):
    return torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed))


def test_template_is_the_one_the_models_were_trained_with():
    assert len(TEMPLATE) == 1057
    digest = hashlib.sha256(TEMPLATE.encode()).hexdigest()
    assert digest == "62b9ab89eebb0ac5ee4d264bf96bf19d2b81f504bc3852500efeaf5a34d638b1"


@settings(deadline=None)
@given(caption=st.text(alphabet="ab ", max_size=900))
def test_every_caption_has_the_template_and_one_length(caption):
    ids, cut = caption_tokens(encode, caption)
    alone = len(encode(TEMPLATE))
    whole = encode(TEMPLATE + caption)
    assert len(ids) == alone + 298
    assert ids[: alone - 1] == encode(TEMPLATE)[:-1]
    assert cut == max(len(whole) - len(ids), 0)
    assert ids == (whole + [0] * len(ids))[: len(ids)]
    # what PiD takes: the first token, then everything from where the template's last blank stood
    selected = ids[:1] + ids[-299:]
    assert len(selected) == 300
    assert selected[1:] == ids[alone - 1 :]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_file_gives_back_what_was_written(tmp_path, dtype):
    path = tmp_path / "folder" / "caption.safetensors"
    text = 'Ein Fuchs, "rot" \n狐 🦊'
    write_caption(path, Caption(states(), text, "abc"), dtype)
    back = read_caption(path)
    assert (back.text, back.encoder) == (text, "abc")
    assert back.states.dtype == torch.float32
    assert torch.equal(back.states, states().to(getattr(torch, dtype)).float())
    assert os.listdir(path.parent) == [path.name]


def test_an_unknown_dtype_and_a_broken_caption_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="float32, bfloat16, float16"):
        write_caption(tmp_path / "a.safetensors", Caption(states()), "fp8")
    broken = states()
    broken[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        write_caption(tmp_path / "a.safetensors", Caption(broken))
    assert not list(tmp_path.iterdir())


def corrupt(path, way):
    content = path.read_bytes()
    if way == "empty":
        path.write_bytes(b"")
    elif way == "cut":
        path.write_bytes(content[:-7])
    elif way == "header":
        path.write_bytes(content[:8] + b"x" * 20 + content[28:])
    elif way == "foreign":
        save_file({"latent_tensor": torch.zeros(1)}, path)
    elif way == "no metadata":
        save_file({"caption": states()}, path)
    elif way == "newer":
        save_file({"caption": states()}, path, {"format": "pidkit_caption", "version": "2"})
    elif way == "integers":
        save_file({"caption": torch.ones(1, 2, 3).int()}, path, {"format": "pidkit_caption", "version": "1"})
    elif way == "infinite":
        save_file({"caption": states() / 0}, path, {"format": "pidkit_caption", "version": "1"})
    elif way == "text":
        path.write_text("a caption", encoding="utf-8")


WAYS = ["empty", "cut", "header", "foreign", "no metadata", "newer", "integers", "infinite", "text"]


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_no_caption_is_one_line(tmp_path, way):
    path = tmp_path / "caption.safetensors"
    write_caption(path, Caption(states(), "text", "abc"))
    corrupt(path, way)
    with pytest.raises(ValueError, match="caption.safetensors") as caught:
        read_caption(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: gone.safetensors"):
        read_caption(tmp_path / "gone.safetensors")


@pytest.fixture
def cache(tmp_path):
    return CaptionCache(tmp_path / "cache", limit=10**9)


def test_cache_keeps_text_and_encoder_apart(cache):
    cache.put(Caption(states(1), "a fox", "one"))
    cache.put(Caption(states(2), "a fox", "two"))
    cache.put(Caption(states(3), "", "one"))
    assert torch.equal(cache.get("one", "a fox").states, states(1))
    assert torch.equal(cache.get("two", "a fox").states, states(2))
    assert torch.equal(cache.get("one", "").states, states(3))
    assert cache.get("one", "a fox ") is None


@pytest.mark.parametrize("way", WAYS)
def test_cache_ignores_what_is_broken_and_writes_it_again(cache, way):
    cache.put(Caption(states(1), "a fox", "one"))
    (path,) = cache.folder.iterdir()
    corrupt(path, way)
    assert cache.get("one", "a fox") is None
    assert cache.find("a fox") is None
    cache.put(Caption(states(1), "a fox", "one"))
    assert torch.equal(cache.get("one", "a fox").states, states(1))


def test_cache_does_not_trust_a_file_under_another_name(cache):
    cache.put(Caption(states(1), "a fox", "one"))
    (path,) = cache.folder.iterdir()
    path.rename(cache._path("one", "a hare"))
    assert cache.get("one", "a hare") is None
    assert cache.find("a fox") is None


def used(cache, order):
    """Gives the entries of encoder "e" dates in this order, the first the oldest."""
    for age, text in enumerate(order):
        os.utime(cache._path("e", text), (age, age))


def test_cache_is_bounded_and_drops_what_was_not_used(tmp_path):
    size = len(_one_file(tmp_path))
    cache = CaptionCache(tmp_path / "cache", limit=3 * size + 10)
    for seed, text in enumerate("abc"):
        cache.put(Caption(states(seed), text, "e"))
    used(cache, "abc")
    assert cache.get("e", "a") is not None  # and so b is the oldest
    cache.put(Caption(states(9), "d", "e"))
    assert [text for text in "abcd" if cache.get("e", text)] == ["a", "c", "d"]
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= cache.limit


def _one_file(tmp_path):
    path = tmp_path / "one.safetensors"
    write_caption(path, Caption(states(), "a", "e"))
    return path.read_bytes()


def test_cache_leaves_other_files_alone_and_clears_its_own_leftovers(tmp_path):
    cache = CaptionCache(tmp_path, limit=len(_one_file(tmp_path)) + 10)
    own = tmp_path / f"{'0' * 40}.safetensors.12345678.part"
    own.write_bytes(b"x" * 5000)
    cache.put(Caption(states(), "a", "e"))
    assert (tmp_path / "one.safetensors").exists()
    assert not own.exists()
    assert cache.get("e", "a") is not None


def test_one_entry_above_the_limit_is_not_kept_and_zero_is_off(tmp_path):
    small = CaptionCache(tmp_path / "small", limit=10)
    small.put(Caption(states(), "a", "e"))
    assert small.get("e", "a") is None
    assert list(small.folder.iterdir()) == []
    off = CaptionCache(tmp_path / "off", limit=0)
    off.put(Caption(states(), "a", "e"))
    assert not off.folder.exists()


def test_cache_survives_a_folder_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file stands in the way", encoding="utf-8")
    cache = CaptionCache(tmp_path / "cache", limit=10**6)
    cache.put(Caption(states(), "a", "e"))
    assert cache.get("e", "a") is None and cache.find("a") is None
    assert "not kept in the cache" in caplog.text


def test_neither_unknown_encoders_nor_broken_captions_are_kept(cache):
    cache.put(Caption(states(), "a", ""))
    cache.put(Caption(states() / 0, "a", "e"))
    assert not cache.folder.exists()


def test_find_gives_the_caption_used_last(cache):
    cache.put(Caption(states(1), "a fox", "one"))
    cache.put(Caption(states(2), "a fox", "two"))
    os.utime(cache._path("two", "a fox"), (5, 5))
    assert torch.equal(cache.find("a fox").states, states(1))
    assert cache.find("a hare") is None


def test_fingerprint_is_of_the_content(tmp_path):
    tensors = {f"layer.{i}": states(i, 40, 64) for i in range(6)}
    first, copy = tmp_path / "first.safetensors", tmp_path / "copy.safetensors"
    save_file(tensors, first)
    save_file(tensors, copy)
    os.utime(copy, (1, 1))
    assert fingerprint(first) == fingerprint(copy)
    seen = {fingerprint(first)}
    for name in tensors:
        other = tmp_path / f"{name}.safetensors"
        save_file(tensors | {name: tensors[name] + 1}, other)
        seen.add(fingerprint(other))
    assert len(seen) == 7


def test_fingerprint_sees_a_file_that_was_replaced(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": states(1)}, path)
    before = fingerprint(path)
    save_file({"w": states(2)}, path)
    os.utime(path, (7, 7))
    assert fingerprint(path) != before


def test_fingerprint_tells_a_longer_file_from_a_shorter_one(tmp_path):
    """Where all that is sampled of both is the same."""
    path = tmp_path / "encoder.safetensors"
    save_file({"w": states(1, 40, 64)}, path)
    before = fingerprint(path)
    path.write_bytes(path.read_bytes() + bytes(9000))
    assert fingerprint(path) != before


@pytest.mark.parametrize("size", [0, 5, 8, 100, 4096, 3_000_000])
def test_fingerprint_of_files_that_are_no_safetensors(tmp_path, size):
    path = tmp_path / "encoder.gguf"
    content = bytearray(os.urandom(size))
    path.write_bytes(content)
    before = fingerprint(path)
    assert len(before) == 32
    if size:
        content[-1] ^= 1
        path.write_bytes(content)
        os.utime(path, (3, 3))
        assert fingerprint(path) != before


def test_a_file_that_the_cache_of_another_server_removes_meanwhile(tmp_path, monkeypatch):
    """Between its header and its tensor anything may be raised."""
    cache = CaptionCache(tmp_path, 10**6)
    cache.put(Caption(states(), "a fox", "encoder"))

    def gone(*_):
        raise RuntimeError("unable to read the file\nof several lines")

    monkeypatch.setattr("pid_core.tensor_files._values", gone)
    assert cache.get("encoder", "a fox") is None and cache.find("a fox") is None
    monkeypatch.undo()
    assert cache.find("a fox") is not None
