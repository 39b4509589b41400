"""A latent family is one row: one that is added at run time is in every list, tooltip and table."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import comfy_env

# All that may name the families: their rows, and the files of the hub.
ROWS = {"pid_core/latents/families.py", "pid_core/hub/catalogue.py"}
NEW = "newvae"


@pytest.fixture
def core(comfyui, monkeypatch):
    """core(name): a module of the pack's pid_core, which knows one family more, with files for it on the hub."""

    def module(name):
        return comfyui.module(f"pid_core.{name}")

    families, catalogue, model_sets = (module(n) for n in ("latents.families", "hub.catalogue", "hub.model_sets"))
    row = families.LatentFamily(
        NEW,
        channels=16,
        down=32,
        serves=("newturbo",),
        shown="New",
        about="New-Image",
        vae=families.VAEFile("decoder.conv_in.weight", 16),
        generators=(
            families.LatentModel("new_image", "New-Image", 36, 40),
            families.LatentModel("new_fast", "Fast", 2, 2),
        ),
    )
    flux = catalogue.get_file("pid_1.5_flux1_1024_to_4096_4step_bf16.safetensors")
    more = (
        dataclasses.replace(flux, name="pid_new.safetensors", family=NEW),
        dataclasses.replace(catalogue.get_file("ae.safetensors"), name="new_vae.safetensors", family=NEW),
    )
    monkeypatch.setitem(families.LATENT_FAMILIES, NEW, row)
    monkeypatch.setitem(families.LATENT_FAMILIES, "newturbo", row)
    for place in (catalogue, model_sets):
        monkeypatch.setattr(place, "FILES", (*catalogue.FILES, *more))
    return module


@pytest.fixture
def schemas(comfyui, core):
    """Every node's schema, as it is with the new family."""
    from comfy_api.latest import io

    found = []
    for path in (comfy_env.ROOT / "nodes").glob("[!_]*.py"):
        kinds = vars(comfyui.module(f"nodes.{path.stem}")).values()
        own = [
            one for one in kinds if isinstance(one, type) and issubclass(one, io.ComfyNode) and one is not io.ComfyNode
        ]
        found += [one.define_schema() for one in own if one.__module__.endswith(f"nodes.{path.stem}")]
    return found


def parts(schemas):
    """(node, name, options, tooltip) of every input and output."""
    for schema in schemas:
        for part in [*schema.inputs, *schema.outputs]:
            name = getattr(part, "id", None) or part.display_name
            yield schema.node_id, name, getattr(part, "options", None) or [], part.tooltip or ""


def test_it_is_in_every_list_that_has_families(schemas):
    lists = {(node, name): options for node, name, options, _ in parts(schemas) if "sd3" in options}
    for (node, name), options in lists.items():
        assert ("new_image" if name == "generator" else NEW) in options, (node, name)
    assert {node for node, _ in lists} == {
        "PiDKitConditioning",
        "PiDKitDecode",
        "PiDKitEarlyStop",
        "PiDKitLatentFromNoisy",
        "PiDKitLoadLatent",
        "PiDKitLoader",
        "PiDKitPrepareImage",
        "PiDKitSaveLatent",
        "PiDKitSigmaSweep",
        "PiDKitTouchUp",
    }


def test_it_is_in_every_tooltip_that_names_families(schemas):
    texts = [text for _, _, _, text in parts(schemas)]
    for text in texts:
        assert ("sd3: SD 3" in text) == (f"{NEW}: New-Image." in text), text
        assert "sd3 or qwenimage" not in text
    assert any(f"choose flux, sd3, qwenimage or {NEW}" in text for text in texts)
    assert any(f"16 for flux2, 2 for rgb, 32 for {NEW}, else 8" in text for text in texts)
    assert any("New-Image 36 of 40" in text for text in texts)
    assert any("flux2_klein, new_fast and zimage_turbo run to the end" in text for text in texts)


def test_it_has_a_model_set(schemas, core):
    assert any("New v1.5" in options for _, _, options, _ in parts(schemas))
    one = core("hub.model_sets").get_set("New v1.5")
    assert (one.family, one.checkpoint, one.vae) == (NEW, "pid_new.safetensors", "new_vae.safetensors")


def test_it_is_told_by_names_and_files(core, tmp_path):
    hint = core("checkpoints.hints").family_hint
    assert hint(16, Path("models/PiD_newvae_4step.pth")) == hint(16, Path("newturbo/model.pth")) == NEW
    save_file({"decoder.conv_in.weight": torch.zeros(1, 16, 1, 1)}, tmp_path / "vae.safetensors")
    what = core("machine.inventory")._vae("vae.safetensors", tmp_path / "vae.safetensors")
    assert what == (f"VAE, flux, sd3 or {NEW}", True)
    with pytest.raises(ValueError, match=f"flux, sd3, qwenimage or {NEW}"):
        core("latents.checks").detect_family(torch.zeros(1, 16, 2, 2))


def test_its_generators_can_be_stopped_early(core):
    assert core("latents.early_stop").stop_early(torch.linspace(1, 0, 41), "new_image").step == 36


def test_it_is_on_the_command_line(core, capsys):
    with pytest.raises(SystemExit):
        core("__main__").main(["convert", "--help"])
    assert NEW in capsys.readouterr().out


def test_no_other_file_names_the_families():
    for package in ("pid_core", "nodes"):
        for path in (comfy_env.ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            texts = [
                one.value for one in ast.walk(tree) if isinstance(one, ast.Constant) and isinstance(one.value, str)
            ]
            named = [text for text in texts if "qwenimage" in text or "sd3" in text]
            assert not named or path.relative_to(comfy_env.ROOT).as_posix() in ROWS, (path, named)
