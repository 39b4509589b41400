"""The command doctor on made-up ComfyUI folders."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dev
from pid_core.__main__ import main
from pid_core.machine import inventory
from pid_core.machine import report as doctor
from pid_core.machine.comfy_home import find_comfyui, model_folders
from pid_core.version import OLDEST
from support.goldens import spec, weights
from support.layouts import split

SDXL = "pid_sdxl_1024_to_4096_4step_bf16.safetensors"
GEMMA = "gemma_2_2b_it_elm_bf16.safetensors"


@pytest.fixture
def comfyui(tmp_path, monkeypatch):
    """A ComfyUI folder in the home of a user named alice."""
    folder = tmp_path / "home" / "alice" / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text('# made up\n__version__ = "0.99.1"\n', encoding="utf-8")
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USER", "alice")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    monkeypatch.setattr(inventory, "WORKFLOWS", workflows)
    return folder


def put(comfyui, folder, name, tensors, metadata=None):
    path = comfyui / "models" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)
    return path


def gemma(width=2304, **more):
    names = ["model.layers.0.post_feedforward_layernorm.weight", *more]
    return {"model.embed_tokens.weight": torch.zeros(2, width)} | {name: torch.zeros(1) for name in names}


def run(comfyui, capsys, *arguments):
    code = main(["doctor", "--comfyui", str(comfyui), *arguments])
    return code, capsys.readouterr().out


@pytest.mark.parametrize(("torch_version", "old"), [("2.4.1+cu121", True), ("2.5.0", False), ("2.10.0+cpu", False)])
def test_a_version_that_is_too_old_is_named(comfyui, capsys, monkeypatch, torch_version, old):
    monkeypatch.setattr(doctor, "_package", {"torch": torch_version}.get)
    _, out = run(comfyui, capsys)
    assert f"  torch: {torch_version}{', TOO OLD: PiDKit needs 2.5 or newer' if old else ''}\n" in out
    assert out.count("TOO OLD") == old


def test_the_oldest_versions_are_the_same_everywhere(root):
    """In the package's metadata, the README, the command that tests them, and what doctor goes by."""
    python, torch_version = (".".join(map(str, OLDEST[name])) for name in ("python", "torch"))
    project, readme = ((root / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "README.md"))
    assert f'requires-python = ">={python}"' in project
    assert f'target-version = "py{python.replace(".", "")}"' in project
    assert f"with Python {python} and PyTorch {torch_version} or newer" in readme
    assert (python, f"{torch_version}.0") == (dev.OLDEST_PYTHON, dev.OLDEST_TORCH)


def test_files_are_told_for_what_they_are(comfyui, capsys):
    put(comfyui, "diffusion_models", SDXL, weights(spec("sdxl_v1")))
    put(comfyui, "unet", "alice/flux_undistilled.safetensors", weights(spec("flux_v1pt5")))
    torch.save(weights(spec("flux2_v1")), comfyui / "models" / "diffusion_models" / "flux2.pth")
    put(comfyui, "diffusion_models", "lora.safetensors", {"a.lora_A.weight": torch.zeros(1)})
    put(comfyui, "text_encoders", GEMMA, gemma(spiece_model=1))
    put(comfyui, "clip", "gemma_no_tokenizer.safetensors", gemma())
    put(comfyui, "clip", "gemma_9b.safetensors", gemma(width=3584, spiece_model=1))
    put(comfyui, "vae", "ae.safetensors", {"x": torch.zeros(1)})
    put(comfyui, "vae", "mine.safetensors", {"decoder.conv_in.weight": torch.zeros(8, 4, 3, 3)})
    put(comfyui, "vae", "video.safetensors", {"decoder.conv_in.weight": torch.zeros(8, 48, 3, 3)})
    code, out = run(comfyui, capsys, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["bundled_model"] == {"decodes": True}
    assert report["versions"]["comfyui"] == "0.99.1"
    assert torch.__version__.startswith(report["versions"]["torch"])
    found = {(file["folder"], file["name"]): file for file in report["files"]}
    told = {name: file["what"] for (_, name), file in found.items()}
    assert told == {
        SDXL: "PiD v1, sdxl, 4 steps",
        "flux_undistilled.safetensors": "PiD v1.5, flux, 25 steps, undistilled",
        "flux2.pth": "PiD v1, flux2, 4 steps",
        GEMMA: "Gemma-2-2b, PiD's text encoder",
        "gemma_no_tokenizer.safetensors": told["gemma_no_tokenizer.safetensors"],
        "ae.safetensors": "VAE, flux",
        "mine.safetensors": "VAE, sdxl (or SD 1)",
    }
    assert not found["text_encoders", "gemma_no_tokenizer.safetensors"]["usable"]


def test_nothing_private_is_in_the_report(comfyui, capsys, monkeypatch):
    put(comfyui, "diffusion_models", f"alice/{SDXL}", weights(spec("sdxl_v1")))
    monkeypatch.setattr(doctor, "NANO_PATH", comfyui / "pid_nano.safetensors")
    code, out = run(comfyui, capsys, "--json")
    assert code == 1
    report = json.loads(out)
    assert report["bundled_model"] == {"decodes": False, "why": "FileNotFoundError: no such file: pid_nano.safetensors"}
    assert "HF_TOKEN" in report["variables_set"]
    for secret in ("alice", "hf_secret", str(comfyui.parent), str(Path.cwd())):
        assert secret not in out
    code, out = run(comfyui, capsys)
    assert code == 1 and "DOES NOT DECODE" in out
    assert "alice" not in out


def test_a_damaged_checkpoint_is_pointed_out(comfyui, capsys):
    path = put(comfyui, "diffusion_models", SDXL, weights(spec("sdxl_v1")))
    path.write_bytes(path.read_bytes()[:-1000])
    code, out = run(comfyui, capsys)
    assert code == 0
    line = next(line for line in out.splitlines() if SDXL in line)
    assert "NOT USABLE" in line and "cannot be read" in line


def workflow(name, **inputs):
    """Writes an example workflow of one node for each "class_type": {inputs}."""
    graph = {str(i): {"class_type": kind, "inputs": given} for i, (kind, given) in enumerate(inputs.items())}
    (inventory.WORKFLOWS / f"{name}.json").write_text(json.dumps(graph), encoding="utf-8")


def report(comfyui, capsys):
    return [line.strip() for line in run(comfyui, capsys)[1].splitlines()]


def test_workflows_name_what_is_missing_and_how_to_get_it(comfyui, capsys):
    put(comfyui, "vae", "ae.safetensors", {"x": torch.zeros(1)})
    workflow(
        "four_k",
        PiDKitLoader={"model_name": f"fetch: {SDXL}", "dtype": "auto"},
        CLIPLoader={"clip_name": GEMMA, "type": "pixeldit"},
        VAELoader={"vae_name": "ae.safetensors"},
        UNETLoader={"unet_name": "somebodys.safetensors"},
        LoadImage={"image": "holiday.png"},
        PiDKitDownload={"file": "qwen_image_vae.safetensors"},
    )
    workflow("small", PiDKitLoader={"model_name": "pid_nano (bundled)"}, VAELoader={"vae_name": "pixel_space"})
    lines = report(comfyui, capsys)
    assert "small: ready" in lines
    assert "four_k: NOT READY, 5 of 6 files" in lines
    assert (
        "vae/qwen_image_vae.safetensors: python custom_nodes/ComfyUI-PiDKit fetch qwen_image_vae.safetensors" in lines
    )
    assert f"diffusion_models/{SDXL}: python custom_nodes/ComfyUI-PiDKit fetch {SDXL}" in lines
    assert f"text_encoders/{GEMMA}: python custom_nodes/ComfyUI-PiDKit fetch {GEMMA}" in lines
    assert "diffusion_models/somebodys.safetensors: the note in the workflow says where it comes from" in lines
    assert any(line.startswith("input/holiday.png: ") for line in lines)


def test_a_picture_is_ready_where_load_image_would_find_it(comfyui, capsys):
    names = ["pidkit_photo.png", "holiday.png"]
    for name in names:
        workflow(name.partition(".")[0], LoadImage={"image": name})
    assert "pidkit_photo: NOT READY, 1 of 1 files" in report(comfyui, capsys)  # it has no input folder
    (comfyui / "input").mkdir()
    lines = report(comfyui, capsys)
    assert "pidkit_photo: ready" in lines and "holiday: NOT READY, 1 of 1 files" in lines
    (comfyui / "input" / "holiday.png").touch()
    assert "holiday: ready" in report(comfyui, capsys)


def test_only_our_loader_looks_into_subfolders(comfyui, capsys):
    put(comfyui, "vae", "mine/ae.safetensors", {"x": torch.zeros(1)})
    put(comfyui, "diffusion_models", f"mine/{SDXL}", weights(spec("sdxl_v1")))
    workflow("ours", PiDKitLoader={"model_name": f"fetch: {SDXL}"}, PiDKitDownload={"file": "ae.safetensors"})
    workflow("cores", VAELoader={"vae_name": "ae.safetensors"})
    lines = report(comfyui, capsys)
    assert "ours: ready" in lines
    assert "cores: NOT READY, 1 of 1 files" in lines
    assert "vae/ae.safetensors: it is in a subfolder: choose it in VAELoader" in lines


def test_a_file_that_cannot_be_loaded_is_not_ready(comfyui, capsys, monkeypatch):
    path = put(comfyui, "diffusion_models", SDXL, weights(spec("sdxl_v1")))
    path.write_bytes(path.read_bytes()[:-1000])
    workflow("large", PiDKitLoader={"model_name": f"fetch: {SDXL}"})
    workflow("small", PiDKitLoader={"model_name": "pid_nano (bundled)"})
    monkeypatch.setattr(doctor, "NANO_PATH", comfyui / "pid_nano.safetensors")
    lines = report(comfyui, capsys)
    assert "large: NOT READY, 1 of 1 files" in lines
    assert "small: NOT READY, 1 of 1 files" in lines


def test_every_example_that_needs_no_download_is_ready_after_installation(comfyui, capsys, monkeypatch):
    monkeypatch.undo()
    (comfyui / "input").mkdir()
    lines = report(comfyui, capsys)
    ready = {line.removesuffix(": ready") for line in lines if line.endswith(": ready")}
    files = inventory.WORKFLOWS.glob("*.json")
    assert ready == {path.stem for path in files if "fetch: " not in path.read_text(encoding="utf-8")}


@pytest.mark.parametrize(("free", "fits"), [(200e9, True), (8e9, True), (2e9, False)])
def test_the_plan_fits_the_memory(monkeypatch, free, fits):
    plan = doctor.plan_4k({"kind": "cuda", "free": free})
    assert plan["fits"] == fits
    if fits:
        assert plan["peak"] + plan["weights"] <= free
        assert "overlap at least 512 px" in plan["plan"]  # what the nodes take where nobody asks for another
    else:
        assert "GB" in plan["plan"] and "\n" not in plan["plan"]


def test_without_comfyui(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pid_core.commands.doctor.find_comfyui", lambda _: None)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "comfyui: not found" in out and "set COMFYUI_PATH" in out
    assert main(["doctor", "--json"]) == 0
    assert "files" not in json.loads(capsys.readouterr().out)


def test_comfyui_is_found_by_path(comfyui, tmp_path, monkeypatch):
    assert find_comfyui(comfyui) == comfyui
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    assert find_comfyui() == comfyui
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no ComfyUI there"):
        find_comfyui()
    monkeypatch.setenv("COMFYUI_PATH", "~nobody-of-this-name")
    with pytest.raises(FileNotFoundError, match="no ComfyUI there"):
        find_comfyui()
    monkeypatch.delenv("COMFYUI_PATH")
    # a shell inside custom_nodes, where the pack is a link
    monkeypatch.setenv("PWD", str(comfyui / "custom_nodes" / "ComfyUI-PiDKit"))
    assert find_comfyui() == comfyui


@pytest.mark.parametrize("text", ["", "null", "[1, 2]", "a: 3", "a:\n  base_path: /x\n  vae: 7\n"])
def test_odd_extra_model_paths(comfyui, text):
    (comfyui / "extra_model_paths.yaml").write_text(text, encoding="utf-8")
    assert model_folders(comfyui)["vae"][0] == comfyui / "models" / "vae"


def test_a_broken_extra_model_paths_is_one_line(comfyui, capsys):
    (comfyui / "extra_model_paths.yaml").write_text("a: [b\nc: {", encoding="utf-8")
    assert main(["doctor", "--comfyui", str(comfyui)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pid_core: extra_model_paths.yaml cannot be read") and error.count("\n") == 1


@pytest.fixture
def quick(monkeypatch):
    """Without the decode, which these tests are not about."""
    monkeypatch.setattr(doctor, "check_bundled_model", lambda: {"decodes": True})


def test_no_file_stops_the_report(comfyui, capsys, quick, monkeypatch):
    good = put(comfyui, "diffusion_models", "good/" + SDXL, weights(spec("sdxl_v1")))
    for folder in ("diffusion_models", "text_encoders", "vae"):
        for number, tensors in enumerate(
            [
                {"decoder.conv_in.weight": torch.zeros(4), "model.embed_tokens.weight": torch.zeros(())},
                {"decoder.conv1.weight": torch.zeros(()), "encoder.conv1.weight": torch.zeros(0)},
                gemma(width=0),
                {"model.layers.0.post_feedforward_layernorm.weight": torch.zeros(1)},
                {
                    "lq_proj.a.weight": torch.zeros(2, 2, dtype=torch.float8_e4m3fn),
                    "lq_proj.a.comfy_quant": torch.ones(3),
                },
            ]
        ):
            put(comfyui, folder, f"odd_{number}.safetensors", tensors)
        here = comfyui / "models" / folder
        os.mkfifo(here / "pipe.safetensors")
        (here / "zero.safetensors").symlink_to("/dev/zero")
        (here / "gone.safetensors").symlink_to(here / "nowhere")
        (here / "loop").symlink_to(here)
        (here / os.fsdecode(b"caf\xe9\n.safetensors")).write_bytes(b"abcdef")
        (here / "deep.safetensors").write_bytes(struct.pack("<Q", 9000) + b"[" * 9000)
        shutil.copy(good, here / "large.safetensors")
        os.truncate(here / "large.safetensors", 1 << 43)  # without taking room on the disk
    code, out = run(comfyui, capsys)
    assert code == 0
    assert "PiD v1, sdxl, 4 steps" in out
    assert all(line.isprintable() for line in out.splitlines())


def test_a_file_that_fails_in_a_way_nobody_thought_of(comfyui, capsys, quick, monkeypatch):
    for name in (SDXL, "another.safetensors"):
        put(comfyui, "diffusion_models", name, weights(spec("sdxl_v1")))

    def fails(path):
        raise RecursionError("several\nlines \udce9")

    monkeypatch.setattr(inventory, "examine_checkpoint", fails)
    code, out = run(comfyui, capsys)
    assert code == 0 and out.count("NOT USABLE, cannot be looked at (RecursionError: several)") == 2


def test_quantised_and_split_layouts_are_told_for_what_they_are(comfyui, capsys, quick):
    state = weights(spec("flux_v1"))
    layer = "patch_blocks.1.mlp_x.w1"
    quantised = state | {
        f"{layer}.weight": state[f"{layer}.weight"].to(torch.float8_e4m3fn),
        f"{layer}.weight_scale": torch.ones(()),
        f"{layer}.comfy_quant": torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8),
    }
    put(comfyui, "diffusion_models", "flux_fp8.safetensors", quantised)
    put(comfyui, "diffusion_models", "flux_split.safetensors", split(state))
    halves = split(state)
    name = "pixel_blocks.0.adaLN_modulation_msa"
    halves |= {f"{name}.weight": halves[f"{name}.weight"].to(torch.float8_e4m3fn)}
    halves[f"{name.replace('msa', 'mlp')}.weight"] = halves[f"{name.replace('msa', 'mlp')}.weight"].to(
        torch.float8_e4m3fn
    )
    for half in ("msa", "mlp"):
        halves[f"{name.replace('msa', half)}.weight_scale"] = torch.ones(())
        conf = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
        halves[f"{name.replace('msa', half)}.comfy_quant"] = conf
    put(comfyui, "diffusion_models", "flux_split_fp8.safetensors", halves)
    report = json.loads(run(comfyui, capsys, "--json")[1])
    told = {file["name"]: file["what"] for file in report["files"]}
    assert set(told.values()) == {"PiD v1, flux, 4 steps"} and len(told) == 3


def test_comfyuis_own_arguments_say_where_its_folders_are(tmp_path, capsys, quick, monkeypatch):
    for command in ("doctor", "fetch"):
        monkeypatch.setattr(f"pid_core.commands.{command}.find_comfyui", lambda _: None)
    monkeypatch.setattr(inventory, "WORKFLOWS", tmp_path)
    workflow("holiday", LoadImage={"image": "holiday.png"})
    models, pictures = tmp_path / "disk" / "models", tmp_path / "pictures"
    (models / "diffusion_models").mkdir(parents=True)
    pictures.mkdir()
    (pictures / "holiday.png").touch()
    save_file(weights(spec("sdxl_v1")), models / "diffusion_models" / SDXL)
    arguments = {
        "models": ["--models-directory", str(models)],
        "base": ["--base-directory", str(models.parent)],
        "both": ["--base-directory", str(tmp_path), "--models-directory", str(models)],
    }
    for given in arguments.values():
        assert main(["doctor", *given, "--input-directory", str(pictures)]) == 0
        out = capsys.readouterr().out
        assert "PiD v1, sdxl, 4 steps" in out and "holiday: ready" in out
        assert main(["fetch", SDXL, *given]) == 0
        assert capsys.readouterr().out.strip() == str(models / "diffusion_models" / SDXL)
    assert main(["doctor", "--models-directory", str(tmp_path / "nowhere")]) == 1
    assert "no such folder: --models-directory" in capsys.readouterr().err
