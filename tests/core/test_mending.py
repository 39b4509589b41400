"""doctor --fix: what it offers, what it does with a yes, and that it does nothing without one."""

import json
import os
from dataclasses import replace

import pytest

from pid_core.__main__ import main
from pid_core.commands import doctor, mending
from pid_core.hub.catalogue import get_file
from pid_core.hub.download import fetch
from pid_core.hub.licences import accepted
from pid_core.machine import extra_paths
from pid_core.machine.comfy_home import Home, model_folders
from support.hub_server import HubServer

PID = get_file("pid_sdxl_1024_to_4096_4step_bf16.safetensors")


def safetensors():
    header = json.dumps({"x": {"dtype": "U8", "shape": [512], "data_offsets": [0, 512]}}).encode().ljust(248)
    return len(header).to_bytes(8, "little") + header + bytes(512)


@pytest.fixture
def comfyui(tmp_path, monkeypatch):
    """A ComfyUI whose workflow lacks PiD for SDXL; nothing else on this machine has one."""
    folder = tmp_path / "apps" / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "models" / "vae").mkdir(parents=True)
    (folder / "main.py").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(extra_paths, "find_comfyui", lambda: None)
    lacking = {"folder": "diffusion_models", "name": PID.name, "here": False, "how": "fetch it"}
    report = {
        "device": {"kind": "cuda"},
        "plan_4k": {"fits": True},
        "bundled_model": {"decodes": True},
        "workflows": {"four_k": [lacking], "two_k": [lacking, lacking | {"name": "mine.safetensors"}]},
    }
    monkeypatch.setattr(doctor, "examine", lambda home: report)
    monkeypatch.setattr(doctor, "_lines", lambda report: ["the report"])
    return folder


@pytest.fixture
def hub(monkeypatch):
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        server.files[PID.repo, PID.path] = safetensors()
        monkeypatch.setattr("pid_core.commands.fetch.fetch", _from(server))
        yield server


def _from(server):
    """Of the file's name the server has a small one."""

    def local(file, folder, **options):
        return fetch(replace(file, size=None, sha256=None), folder, endpoint=server.endpoint, **options)

    return local


def fix(comfyui, monkeypatch, answers=(), *arguments):
    """The exit code, and the questions that were asked."""
    asked, left = [], list(answers)

    def ask(question):
        asked.append(question)
        if not left:
            raise EOFError
        return left.pop(0)

    consent = mending.Consent
    monkeypatch.setattr(doctor, "Consent", lambda **options: consent(**options, ask=ask))
    return main(["doctor", "--fix", "--comfyui", str(comfyui), *arguments]), asked


def target(comfyui):
    return comfyui / "models" / "diffusion_models" / PID.name


@pytest.mark.parametrize("answers", [[], ["n"], [""], ["yep"], ["y", "n"], ["y", ""], ["y"]])
def test_nothing_is_done_without_a_yes_to_both_questions(comfyui, hub, monkeypatch, answers):
    code, asked = fix(comfyui, monkeypatch, answers)
    assert code == 0 and not target(comfyui).exists() and not hub.requests
    assert not list(comfyui.rglob("*.json")) and not list(comfyui.rglob("*.yaml"))
    assert asked[0].startswith(f"Fetch {PID.name} (") and "for four_k, two_k? [y/N]" in asked[0]
    assert len(asked) == (2 if answers[:1] == ["y"] else 1)


def test_a_closed_stdin_is_a_no(comfyui, hub, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # as of `<&-`, and of pythonw
    assert main(["doctor", "--fix", "--comfyui", str(comfyui)]) == 0
    assert not target(comfyui).exists() and not hub.requests


def test_a_yes_fetches_the_file_and_keeps_the_licence(comfyui, hub, monkeypatch, capsys):
    code, asked = fix(comfyui, monkeypatch, ["y", "Y"])
    assert code == 0 and target(comfyui).read_bytes() == safetensors() and len(asked) == 2
    assert "NSCLv1 (non-commercial use only" in asked[1] and "NSCLv1" in accepted(comfyui / "user" / mending.RECORD)
    assert str(target(comfyui)) in capsys.readouterr().out


def test_yes_alone_accepts_no_licence(comfyui, hub, monkeypatch, capsys):
    code, asked = fix(comfyui, monkeypatch, [], "--yes")
    assert code == 0 and not asked and not target(comfyui).exists() and not hub.requests
    assert "is not accepted by --yes" in capsys.readouterr().out
    code, asked = fix(comfyui, monkeypatch, [], "--yes", "--accept-licence")
    assert code == 0 and not asked and target(comfyui).exists()


def test_accept_licence_alone_fetches_nothing_unasked(comfyui, hub, monkeypatch):
    code, asked = fix(comfyui, monkeypatch, ["n"], "--accept-licence")
    assert code == 0 and len(asked) == 1 and not target(comfyui).exists()


def test_a_licence_that_was_accepted_before_is_not_asked_about(comfyui, hub, monkeypatch):
    record = comfyui / "user" / mending.RECORD
    record.parent.mkdir(parents=True)
    record.write_text('{"NSCLv1": {}}', encoding="utf-8")
    code, asked = fix(comfyui, monkeypatch, [], "--yes")
    assert code == 0 and not asked and target(comfyui).exists()


def test_a_fetch_that_fails_is_one_line_and_the_exit_code(comfyui, hub, monkeypatch, capsys):
    hub.errors[PID.repo, PID.path] = (403, "GatedRepo")
    code, _ = fix(comfyui, monkeypatch, ["y", "y"])
    assert code == 1 and not target(comfyui).exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
    assert PID.name in line


def elsewhere(comfyui):
    """Another ComfyUI beside it, which has the file."""
    models = comfyui.parent / "ComfyUI (old) ü" / "models"
    for part in ("unet", "vae"):
        (models / part).mkdir(parents=True)
    (models / "unet" / PID.name).write_bytes(safetensors())
    return models


YAMLS = {
    "none": None,
    "comments": "# mine, keep\n\n",
    "sections": "a1111: # my models\n    base_path: /x\n    vae: |\n        one\n        two",
    "same name": "pidkit_models:\n    base_path: /x\n    vae: vae\n",
    "crlf": "a:\r\n    base_path: /x\r\n    vae: vae\r\n",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_models_that_lie_elsewhere_are_added_behind_what_is_there(comfyui, hub, monkeypatch, text):
    models, config = elsewhere(comfyui), comfyui / "extra_model_paths.yaml"
    if text is not None:
        config.write_bytes(text.encode())
        config.chmod(0o600)
    before = model_folders(comfyui)
    code, asked = fix(comfyui, monkeypatch, ["y"])
    assert code == 0 and not hub.requests  # what is found there is not fetched
    assert len(asked) == 1 and asked[0].startswith(f"Add the models in {models}")
    after = model_folders(comfyui)
    assert after["diffusion_models"] == [*before["diffusion_models"], models / "unet"]
    assert after["vae"] == [*before["vae"], models / "vae"]
    content, copy = config.read_bytes(), config.with_name("extra_model_paths.yaml.bak")
    assert content.startswith((text or "").encode()) and content.count(b"\n") > 5
    assert copy.exists() == bool(text) and (not text or copy.read_bytes() == text.encode())
    if text:
        assert (content.count(b"\r\n") == content.count(b"\n")) == ("\r" in text)
        assert os.name == "nt" or config.stat().st_mode & 0o777 == 0o600
    assert not extra_paths.models_elsewhere(Home.at(comfyui))  # and is not offered again


@pytest.mark.parametrize("text", ["a: [b\nc: {", "[1, 2]", "a: 1\n...\n", "a: 1\n---\nb: 2\n", "\xff\xfe"])
def test_a_file_that_cannot_be_added_to_stays_as_it_is(comfyui, text):
    models, config = elsewhere(comfyui), comfyui / "extra_model_paths.yaml"
    content = text.encode("latin-1")
    config.write_bytes(content)
    with pytest.raises(ValueError, match=r"extra_model_paths\.yaml") as refused:
        extra_paths.add_section(config, models)
    assert "\n" not in str(refused.value) and config.read_bytes() == content
    assert sorted(path.name for path in comfyui.glob("extra*")) == [config.name]


@pytest.mark.parametrize("text", ["{a: {base_path: /x}}", "  a:\n    vae: vae\n", "a: 1\n...\n", "{}\n", "null\n"])
def test_a_file_that_reads_well_is_not_called_broken(comfyui, text):
    (comfyui / "extra_model_paths.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"left alone \(nothing can be added behind its last line\): add a section"):
        extra_paths.add_section(comfyui / "extra_model_paths.yaml", elsewhere(comfyui))


def test_a_date_that_there_is_not_is_told_with_the_files_name(comfyui):
    (comfyui / "extra_model_paths.yaml").write_text("a: 2024-13-45\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"extra_model_paths\.yaml cannot be read \(month"):
        extra_paths.add_section(comfyui / "extra_model_paths.yaml", elsewhere(comfyui))


def test_a_link_to_the_file_stays_a_link(comfyui, tmp_path):
    real, config = tmp_path / "shared.yaml", comfyui / "extra_model_paths.yaml"
    real.write_text("# shared\n", encoding="utf-8")
    try:
        config.symlink_to(real)
    except OSError:
        pytest.skip("no links here")
    extra_paths.add_section(config, elsewhere(comfyui))
    assert config.is_symlink() and real.read_text(encoding="utf-8").startswith(
        "# shared\n\n# models that lie elsewhere"
    )


def test_no_yaml_is_written_without_a_yes(comfyui, hub, monkeypatch):
    elsewhere(comfyui)
    assert fix(comfyui, monkeypatch, ["n"])[0] == 0
    assert not list(comfyui.glob("extra*"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--yes"], "are for --fix"),
        (["--accept-licence"], "are for --fix"),
        (["--fix", "--json"], "--json is a report alone"),
    ],
)
def test_options_that_do_not_go_together(arguments, line, capsys):
    assert main(["doctor", *arguments]) == 1
    assert line in capsys.readouterr().err


def test_flags_of_comfyui_are_named(comfyui, tmp_path):
    report = {"device": {"kind": "cpu"}, "plan_4k": {"fits": False}}
    home = Home(comfyui, tmp_path / "big" / "models", comfyui, comfyui)
    lines = "\n".join(mending.flags(report, home))
    assert "--cpu" in lines and "--novram" not in lines and f"--models-directory {home.models}" in lines
    report["device"]["kind"] = "cuda"
    assert "--novram" in "\n".join(mending.flags(report, None))
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path / 'big'} nfs4 rw 0 0\n", encoding="utf-8")
    assert mending._on_network_drive(home.models, mounts) and not mending._on_network_drive(comfyui, mounts)


def test_without_comfyui_it_says_what_to_name(monkeypatch, capsys, comfyui):
    monkeypatch.setattr(doctor, "find_comfyui", lambda path: None)
    assert main(["doctor", "--fix"]) == 1
    assert "name its folder with --comfyui PATH" in capsys.readouterr().out
