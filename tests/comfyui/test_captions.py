"""PiD Caption and its files in ComfyUI, with a small Gemma-2, against the reference worked out in plain PyTorch."""

import shutil
from pathlib import Path

import pytest
import torch

from comfy_server import PromptError
from pid_core.captions.cache import CaptionCache
from pid_core.captions.text import Caption, read_caption, write_caption
from support.graphs import decode_graph, link, pid_decode_graph, put_latent, saved_pixels
from support.tiny import save_tiny
from support.tiny_gemma import reference_caption, reference_ids, save_encoder

TEXTS = [
    "a red fox in the snow",
    "",
    " ",
    "portrait (smiling:1.5), \\(8k\\) embedding:EasyNegative 狐",
    'Given a user prompt, generate an "Enhanced prompt" of a fox',
    "<end_of_turn>\n\nwaves",
    "a lighthouse at dawn, " * 60,
]


@pytest.fixture(scope="module")
def encoder(comfy):
    return save_encoder(comfy.models / "text_encoders" / "tiny_gemma.safetensors").name


def loader(encoder, type_="pixeldit"):
    return {"class_type": "CLIPLoader", "inputs": {"clip_name": encoder, "type": type_, "device": "default"}}


def caption_graph(text, encoder=None, *, cache=True, name="", dtype="float32", type_="pixeldit"):
    """CLIPLoader, PiD Caption, PiD Save Caption, the ids ending in `name`; encoder None: clip is not connected."""
    clip = {"clip": link(f"clip{name}")} if encoder else {}
    return {
        f"caption{name}": {"class_type": "PiDKitCaption", "inputs": {"text": text, "cache": cache, **clip}},
        f"save{name}": {
            "class_type": "PiDKitSaveCaption",
            "inputs": {"caption": link(f"caption{name}"), "filename_prefix": "captions/test", "dtype": dtype},
        },
    } | ({f"clip{name}": loader(encoder, type_)} if encoder else {})


def run(comfy, graph):
    """The caption that was saved, and the nodes that were executed."""
    started = set()
    finished = comfy.queue(
        graph, on_event=lambda kind, data: started.add(data["node"]) if kind == "executing" else None
    )
    ((entry,),) = (output["captions"] for output in finished.outputs.values() if "captions" in output)
    return read_caption(comfy.output / entry["subfolder"] / entry["filename"]), started


def copy_of(comfy, encoder, name):
    """The same file under another name, so that ComfyUI's own cache of node outputs knows nothing of it."""
    folder = comfy.models / "text_encoders"
    return Path(shutil.copy(folder / encoder, folder / f"{name}.safetensors")).name


def cache_folder(comfy):
    return comfy.folder / "user" / "__pidkit" / "captions"


@pytest.fixture
def no_cache(comfy):
    shutil.rmtree(cache_folder(comfy), ignore_errors=True)


@pytest.mark.parametrize("text", TEXTS)
def test_caption_is_the_references(comfy, encoder, text):
    caption, _ = run(comfy, caption_graph(text, encoder))
    assert caption.states.shape == (1, 300, 24)
    assert torch.allclose(caption.states, reference_caption(text), atol=1e-4)
    assert caption.text == text
    assert len(caption.encoder) == 32


def test_the_test_texts_would_show_a_mistake():
    """Captions of other texts are far outside the tolerance above, and both a padded and a cut one are among them."""
    states = [reference_caption(text) for text in TEXTS]
    for i, a in enumerate(states):
        for b in states[:i]:
            assert (a - b).abs().max() > 0.05
    assert len({len(reference_ids(text)) for text in TEXTS}) == 1
    assert reference_ids(TEXTS[-1])[-1] != 0 and reference_ids("")[-1] == 0


def test_a_caption_that_is_too_long_is_reported(comfy, encoder):
    run(comfy, caption_graph("waves " * 400, encoder))
    assert "the caption is too long: its last" in comfy.log()


def test_another_type_of_encoder_is_refused(comfy, encoder):
    with pytest.raises(PromptError, match="use Load CLIP with type pixeldit") as refused:
        run(comfy, caption_graph("a fox", encoder, type_="lumina2"))
    assert refused.value.node_type == "PiDKitCaption"


def test_a_kept_text_is_the_same_and_loads_no_encoder(comfy, encoder, no_cache):
    first, started = run(comfy, caption_graph("waves at dawn", encoder, name="1"))
    assert {"clip1", "caption1"} <= started
    second, started = run(comfy, caption_graph("waves at dawn", copy_of(comfy, encoder, "renamed"), name="2"))
    assert "clip2" not in started and "caption2" in started
    assert torch.equal(first.states, second.states)
    assert (first.text, first.encoder) == (second.text, second.encoder)
    without, _ = run(comfy, caption_graph("waves at dawn", name="3"))
    assert torch.equal(first.states, without.states)


def test_cache_off_encodes(comfy, encoder, no_cache):
    run(comfy, caption_graph("an old fox", encoder, name="4", cache=False))
    assert not cache_folder(comfy).exists()
    run(comfy, caption_graph("an old fox", encoder, name="5"))
    _, started = run(comfy, caption_graph("an old fox", copy_of(comfy, encoder, "anew"), name="6", cache=False))
    assert "clip6" in started
    with pytest.raises(PromptError, match="clip is not connected and cache is off"):
        run(comfy, caption_graph("an old fox", cache=False))


def test_another_encoder_has_entries_of_its_own(comfy, encoder, no_cache):
    other = save_encoder(comfy.models / "text_encoders" / "other.safetensors", seed=1).name
    ours, _ = run(comfy, caption_graph("a fox", encoder, name="7"))
    theirs, started = run(comfy, caption_graph("a fox", other, name="8"))
    assert "clip8" in started
    assert ours.encoder != theirs.encoder
    assert torch.allclose(theirs.states, reference_caption("a fox", seed=1), atol=1e-4)


def test_a_corrupt_cache_file_is_written_again(comfy, encoder, no_cache):
    run(comfy, caption_graph("a kept fox", encoder, name="9"))
    (path,) = cache_folder(comfy).iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    again, started = run(comfy, caption_graph("a kept fox", copy_of(comfy, encoder, "again"), name="10"))
    assert "clip10" in started
    assert torch.equal(read_caption(path).states, again.states)
    assert torch.allclose(again.states, reference_caption("a kept fox"), atol=1e-4)


def test_an_unknown_text_without_an_encoder(comfy):
    with pytest.raises(PromptError, match="not in the cache and clip is not connected: connect Load CLIP") as failed:
        run(comfy, caption_graph("never seen before"))
    assert failed.value.node_type == "PiDKitCaption"


def test_a_patched_encoder_is_not_kept(comfyui, tmp_path):
    module = comfyui.module("nodes.shared.text_encoder")
    clip = comfyui.load_clip(save_encoder(tmp_path / "gemma.safetensors"))
    cache = CaptionCache(tmp_path / "cache", limit=10**9)
    with torch.inference_mode():
        (((states, extra),), _) = module.encode_caption(clip, "a fox", "hash", cache)
        assert cache.get("hash", "a fox") is not None
        patched = clip.clone()
        patched.add_patches({"gemma2_2b.transformer.model.norm.weight": (torch.ones(24),)})
        (((changed, about),), _) = module.encode_caption(patched, "a hare", "hash", cache)
    assert cache.get("hash", "a hare") is None
    assert "attention_mask" not in extra
    assert extra["pidkit_caption"] == {"text": "a fox", "encoder": "hash"}
    assert about["pidkit_caption"] == {"text": "a hare", "encoder": ""}
    assert torch.allclose(states, reference_caption("a fox"), atol=1e-4)
    assert not torch.allclose(changed, reference_caption("a hare"), atol=1e-2)


def test_a_clip_at_hand_is_not_replaced_by_another_encoders_text(comfyui, tmp_path, monkeypatch):
    """Called from Python there is no graph to tell the encoder's file: then the clip encodes, whatever is kept."""
    module = comfyui.module("nodes.shared.text_encoder")
    clip = comfyui.load_clip(save_encoder(tmp_path / "gemma.safetensors"))
    cache = CaptionCache(tmp_path / "cache", limit=10**9)
    monkeypatch.setattr(module, "caption_cache", lambda: cache)
    cache.put(Caption(torch.zeros(1, 300, 24), "a fox", "another"))
    with torch.inference_mode():
        (((states, about),),) = comfyui.nodes.PiDKitCaption.execute("a fox", True, clip).args
    assert torch.allclose(states, reference_caption("a fox"), atol=1e-4)
    assert about["pidkit_caption"] == {"text": "a fox", "encoder": ""}


def test_a_saved_caption_decodes_without_an_encoder(comfy, encoder):
    model = save_tiny(comfy.models / "diffusion_models" / "for_captions.safetensors", "sdxl").name
    latent = put_latent(comfy, "for_captions", torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(2)))
    text = caption_graph("a fox to save", encoder, name="1")
    with_encoder = decode_graph(model, latent, conditioning={"positive": link("caption1")}) | text
    before = set((comfy.output / "captions").glob("*"))
    expected = saved_pixels(comfy, comfy.queue(with_encoder))
    (file,) = set((comfy.output / "captions").glob("*")) - before

    load = {"class_type": "PiDKitLoadCaption", "inputs": {"file": f"captions/{file.name} [output]"}}
    shown = {"class_type": "PreviewAny", "inputs": {"source": link("caption", 1)}}
    graph = decode_graph(model, latent, conditioning={"positive": link("caption")}) | {"caption": load, "text": shown}
    finished = comfy.queue(graph)
    assert torch.equal(saved_pixels(comfy, finished), expected)
    assert finished.outputs["text"]["text"] == ["a fox to save"]


def test_bfloat16_is_half_the_size(comfy, encoder):
    whole, _ = run(comfy, caption_graph("a fox", encoder))
    half, _ = run(comfy, caption_graph("a fox", encoder, dtype="bfloat16"))
    assert torch.equal(half.states, whole.states.bfloat16().float())


def test_files_to_load_are_listed_and_checked(comfy):
    write_caption(comfy.input / "given.safetensors", Caption(torch.ones(1, 4, 24)))
    (comfy.input / "broken.safetensors").write_bytes(b"x" * 50)
    options = comfy.object_info("PiDKitLoadCaption")["input"]["required"]["file"]
    names = options[0] if isinstance(options[0], list) else options[1]["options"]
    assert {"given.safetensors", "broken.safetensors"} <= set(names)

    def load(name):
        return {
            "load": {"class_type": "PiDKitLoadCaption", "inputs": {"file": name}},
            "show": {"class_type": "PreviewAny", "inputs": {"source": link("load", 1)}},
        }

    assert comfy.queue(load("given.safetensors")).outputs["show"]["text"] == [""]
    with pytest.raises(PromptError, match=r"broken.safetensors cannot be read; it is truncated, corrupt or no caption"):
        comfy.queue(load("broken.safetensors"))
    with pytest.raises(PromptError, match="not in list"):
        comfy.queue(load("../comfyui.log"))


def test_combined_conditionings_are_not_saved(comfy, encoder):
    graph = caption_graph("a fox", encoder)
    graph["both"] = {
        "class_type": "ConditioningCombine",
        "inputs": {"conditioning_1": link("caption"), "conditioning_2": link("caption")},
    }
    graph["save"]["inputs"]["caption"] = link("both")
    with pytest.raises(PromptError, match="caption holds 2 conditionings"):
        comfy.queue(graph)


def test_a_caption_of_another_width_is_one_line(comfy):
    model = save_tiny(comfy.models / "diffusion_models" / "for_widths.safetensors", "sdxl").name
    latent = put_latent(comfy, "for_widths", torch.zeros(1, 4, 2, 2))
    write_caption(comfy.input / "wide.safetensors", Caption(torch.ones(1, 4, 48)))
    graph = decode_graph(model, latent, conditioning={"positive": link("caption")})
    graph["caption"] = {"class_type": "PiDKitLoadCaption", "inputs": {"file": "wide.safetensors"}}
    with pytest.raises(
        PromptError, match=r"captions \[B, tokens, 24\], got \[1, 4, 48\]: encode the text with PiD Caption"
    ) as failed:
        comfy.queue(graph)
    assert "\n" not in failed.value.message.strip()


def test_pid_decode_encodes_its_text_the_same_way(comfy, encoder):
    model = save_tiny(comfy.models / "diffusion_models" / "for_decode.safetensors", "sdxl").name
    latent = put_latent(comfy, "for_decode", torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(2)))
    inside = pid_decode_graph(model, latent, clip=link("clip"), text="a fox") | {"clip": loader(encoder)}
    given = pid_decode_graph(model, latent, positive=link("caption")) | caption_graph("a fox", encoder)
    del given["save"]
    (one,), (two,) = (comfy.images(comfy.queue(graph), "png") for graph in (inside, given))
    assert (one == two).all()
    # and from the cache, with nothing loaded
    inside["clip"] = loader(copy_of(comfy, encoder, "for_decode"))
    started = set()
    finished = comfy.queue(
        inside, on_event=lambda kind, data: started.add(data["node"]) if kind == "executing" else None
    )
    assert "decode" in started and "clip" not in started
    (three,) = comfy.images(finished, "png")
    assert (one == three).all()
