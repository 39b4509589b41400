"""Downloads, against a server that speaks the hub's protocol and breaks it where asked."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from pid_core.__main__ import main
from pid_core.hub.catalogue import FILES, HubFile, get_file, known_file, local_name
from pid_core.hub.download import FetchError, fetch
from pid_core.hub.licences import LICENCES, LicenceError, accepted, check_licences
from pid_core.machine.comfy_home import folder_for_new, model_folders
from support.hub_server import HubServer

ROOT = Path(__file__).parents[2]


def safetensors_of(size: int, first: int = 0) -> bytes:
    """A whole safetensors file of `size` bytes."""
    entry = {"dtype": "U8", "shape": [size - 256], "data_offsets": [0, size - 256]}
    header = json.dumps({"x": entry}).encode().ljust(248)
    return len(header).to_bytes(8, "little") + header + bytes((first + i) % 256 for i in range(size - 256))


CONTENT = safetensors_of(512_000)
FILE = HubFile("model.safetensors", "vae", "someone/models", "folder/model.bin", "MIT")
KEY = (FILE.repo, FILE.path)


@pytest.fixture
def hub(monkeypatch):
    for name in ("HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pid_core.hub.download.PAUSE", 0)
    with HubServer() as server:
        server.files[KEY] = CONTENT
        yield server


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def part_of(folder: Path) -> Path:
    (part,) = folder.glob(".*.part")
    return part


def test_a_file_arrives_whole_and_alone(hub, tmp_path):
    steps = []
    path = fetch(FILE, tmp_path / "vae", progress=lambda *step: steps.append(step), endpoint=hub.endpoint)
    assert path == tmp_path / "vae" / "model.safetensors"
    assert path.read_bytes() == CONTENT
    assert not path.is_symlink()
    assert names(path.parent) == ["model.safetensors"]
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert steps == sorted(steps)


def test_a_file_that_is_here_is_not_fetched(hub, tmp_path):
    mine = safetensors_of(1000)
    (tmp_path / FILE.name).write_bytes(mine)
    assert fetch(FILE, tmp_path, endpoint=hub.endpoint).read_bytes() == mine
    assert hub.requests == []


def test_a_broken_connection_is_taken_up_again(hub, tmp_path):
    hub.cuts = [100_000, 50_000]
    assert fetch(FILE, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT
    assert [r.range for r in hub.for_bytes()] == [None, "bytes=100000-", "bytes=150000-"]


class Stopped(Exception):
    pass


def stop(done, total):
    raise Stopped


def test_a_connection_that_never_holds(hub, tmp_path):
    hub.cuts = [1000] + [0] * 99
    with pytest.raises(FetchError, match="model.safetensors cannot be fetched: no connection to the hub") as failed:
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    assert "HF_ENDPOINT" in str(failed.value) and "\n" not in str(failed.value)
    assert part_of(tmp_path).stat().st_size == 1000


def test_a_server_that_ignores_ranges(hub, tmp_path):
    hub.ranges = False
    hub.cuts = [100_000]
    assert fetch(FILE, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT


@pytest.mark.parametrize("sent", [CONTENT[:-1] + b"!", CONTENT[:-10]])
def test_wrong_bytes_are_thrown_away(hub, tmp_path, sent):
    hub.sent[KEY] = sent
    with pytest.raises(FetchError, match="came damaged and was thrown away") as failed:
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    assert "try again" in str(failed.value) and "\n" not in str(failed.value)
    assert names(tmp_path) == []
    del hub.sent[KEY]
    assert fetch(FILE, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT


def test_a_file_that_became_shorter_than_our_half(hub, tmp_path):
    hub.cuts = [100_000] + [0] * 99
    with pytest.raises(FetchError, match="no connection"):
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    hub.cuts.clear()
    hub.sent[KEY] = CONTENT[:50_000]
    with pytest.raises(FetchError, match="100,000 bytes came, 512,000 were promised"):
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    assert names(tmp_path) == []


def test_half_of_an_older_version_is_dropped(hub, tmp_path):
    hub.cuts = [100_000] + [0] * 99
    with pytest.raises(FetchError):
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    hub.cuts.clear()
    hub.files[KEY] = newer = safetensors_of(512_000, first=1)
    assert fetch(FILE, tmp_path, endpoint=hub.endpoint).read_bytes() == newer
    assert names(tmp_path) == [FILE.name]


def test_a_known_hash_and_size_are_held_to(hub, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    good = HubFile(FILE.name, "vae", *KEY, "MIT", size=len(CONTENT), sha256=digest)
    assert fetch(good, tmp_path / "good", endpoint=hub.endpoint).read_bytes() == CONTENT
    hub.requests.clear()
    for wrong in ({"size": len(CONTENT) - 1}, {"sha256": "0" * 64}):
        with pytest.raises(FetchError, match="the hub now has another file there"):
            fetch(HubFile(FILE.name, "vae", *KEY, "MIT", **wrong), tmp_path / "wrong", endpoint=hub.endpoint)
    assert hub.for_bytes() == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (401, "GatedRepo"),
            "its page asks for consent. Open https://huggingface.co/someone/models, sign in and accept",
        ),
        ((403, "GatedRepo"), "its page asks for consent"),
        ((401, "RepoNotFound"), r"the hub refuses it \(401\). Open https://huggingface.co/someone/models"),
        ((403, None), r"the hub refuses it \(403\).*HF_TOKEN"),
        ((404, "EntryNotFound"), r"the hub has no folder/model.bin in someone/models any more \(404\)"),
        ((404, "RepoNotFound"), r"the hub has no someone/models any more \(404\)"),
        ((500, None), "the hub answered 500. Try again later"),
    ],
)
def test_refusals_say_what_to_do(hub, tmp_path, answer, message):
    hub.errors[KEY] = answer
    with pytest.raises(FetchError, match=message) as failed:
        fetch(FILE, tmp_path / "vae", endpoint=hub.endpoint)
    assert "\n" not in str(failed.value)
    assert not (tmp_path / "vae").exists()


def test_no_network(hub, tmp_path):
    endpoint = hub.endpoint
    hub._server.server_close()
    with pytest.raises(FetchError, match="no connection to the hub"):
        fetch(FILE, tmp_path, endpoint=endpoint)


def test_no_room_on_the_disk_is_found_first(hub, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("pid_core.hub.download.shutil.disk_usage", lambda _: usage(10**9, 10**9, 100_000))
    with pytest.raises(FetchError, match="needs 0.5 MB and the disk of the models folder has 0.1 MB free"):
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    assert hub.for_bytes() == []


def test_a_disk_that_fills_up_keeps_what_came(hub, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pid_core.hub.download._Transfer._write", full)
    with pytest.raises(FetchError, match="the disk is full"):
        fetch(FILE, tmp_path, endpoint=hub.endpoint)


def test_a_folder_that_cannot_be_made(hub, tmp_path):
    (tmp_path / "models").write_text("a file stands in the way", encoding="utf-8")
    with pytest.raises(FetchError, match="writing to the models folder failed"):
        fetch(FILE, tmp_path / "models" / "vae", endpoint=hub.endpoint)


def test_two_at_once(hub, tmp_path):
    from filelock import FileLock

    with (
        FileLock(tmp_path / f".{FILE.name}.lock"),
        pytest.raises(FetchError, match="is being fetched already, by another process"),
    ):
        fetch(FILE, tmp_path, endpoint=hub.endpoint)


def test_the_token_goes_to_the_hub_only(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(FILE, tmp_path, endpoint=hub.endpoint)
    for request in hub.requests:
        expected = None if request.path.startswith("/cdn/") else "Bearer hf_secret"
        assert request.authorization == expected, request


PAGE = b"<!DOCTYPE html><html><body>Please sign in to this network first.</body></html>"


@pytest.mark.parametrize("size", [None, 2_800_450_070], ids=["size not known", "size known"])
def test_a_login_page_does_not_become_the_model(hub, tmp_path, size):
    hub.sent[KEY] = PAGE
    if size:
        hub.sizes[KEY] = size
    with pytest.raises(FetchError, match="what comes is another file, it begins with '<!DOCTYPE ht'") as failed:
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    assert FILE.page in str(failed.value) and "\n" not in str(failed.value)
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]


@pytest.mark.parametrize("hearsay", [False, True])
def test_a_file_that_nobody_knows_the_hash_of_is_refused(hub, tmp_path, hearsay):
    hub.etags[KEY] = 'W/"a/b"'
    with pytest.raises(FetchError, match="neither this pack nor the hub knows its SHA-256"):
        fetch(replace(FILE, hearsay=hearsay), tmp_path, endpoint=hub.endpoint)
    assert hub.for_bytes() == [] and names(tmp_path) == []


@pytest.mark.parametrize(
    "damaged", [PAGE, b"", CONTENT[:-1], CONTENT[:100], (2).to_bytes(8, "little") + b"{}" * 9, b"\xff" * 64]
)
def test_a_damaged_file_is_moved_aside_and_fetched_again(hub, tmp_path, damaged):
    (tmp_path / FILE.name).write_bytes(damaged)
    said = []
    assert fetch(FILE, tmp_path, endpoint=hub.endpoint, say=said.append).read_bytes() == CONTENT
    assert (tmp_path / f"{FILE.name}.damaged").read_bytes() == damaged
    (line,) = said
    assert line.startswith("model.safetensors cannot be read (") and "model.safetensors.damaged" in line


def test_more_bytes_than_were_promised_end_it(hub, tmp_path):
    hub.sent[KEY] = CONTENT + b"more"
    with pytest.raises(FetchError, match="more than the 512,000 bytes that were promised came"):
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    assert FILE.name not in names(tmp_path)


def test_fewer_bytes_than_were_promised_end_it(hub, tmp_path):
    hub.sizes[KEY] = 10 * len(CONTENT)
    with pytest.raises(FetchError, match="512,000 bytes came, 5,120,000 were promised"):
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    assert names(tmp_path) == []


def test_a_cancelled_download_writes_nothing_more_and_is_continued_by_the_next(hub, tmp_path):
    hub.stalled = threading.Event()
    with pytest.raises(Stopped):
        fetch(FILE, tmp_path, endpoint=hub.endpoint, progress=lambda done, _: done >= len(CONTENT) // 2 and stop(0, 0))
    half = part_of(tmp_path).read_bytes()
    hub.stalled.set()
    for thread in [thread for thread in threading.enumerate() if thread.name == f"fetch {FILE.name}"]:
        thread.join()
    assert part_of(tmp_path).read_bytes() == half == CONTENT[: len(CONTENT) // 2]
    assert names(tmp_path) == [part_of(tmp_path).name]
    hub.stalled = None
    hub.requests.clear()
    assert fetch(FILE, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT
    assert [r.range for r in hub.for_bytes()] == [f"bytes={len(half)}-"]
    assert names(tmp_path) == [FILE.name]


def test_a_file_that_moved_is_found_by_its_name(hub, tmp_path):
    said = []
    hub.files = {(FILE.repo, f"diffusion_models/1.5/{Path(FILE.path).name}"): CONTENT}
    assert fetch(FILE, tmp_path, endpoint=hub.endpoint, say=said.append).read_bytes() == CONTENT
    assert said == ["model.safetensors has moved to diffusion_models/1.5/model.bin in someone/models"]
    hub.files[FILE.repo, "two/model.bin"] = CONTENT
    with pytest.raises(FetchError, match="any more"):
        fetch(FILE, tmp_path / "again", endpoint=hub.endpoint)


def test_what_a_third_party_said_gives_way_to_the_hub(hub, tmp_path):
    said = []
    told = HubFile(FILE.name, "vae", *KEY, "MIT", size=1, sha256="0" * 64, hearsay=True)
    assert fetch(told, tmp_path, endpoint=hub.endpoint, say=said.append).read_bytes() == CONTENT
    assert len(said) == 2 and all("the hub's counts" in line for line in said)
    hub.etags[KEY], hub.sizes[KEY] = "none", 1
    with pytest.raises(FetchError):
        fetch(told, tmp_path / "again", endpoint=hub.endpoint)


def test_a_token_that_is_no_token(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_schlüssel")
    with pytest.raises(FetchError, match="Check HF_ENDPOINT, HF_TOKEN") as failed:
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    "there",
    [
        "http://[1::bad/x",
        "ftp://127.0.0.1/x",
        "http://127.0.0.1:99999/",
        "\x01",
        "//",
        "http://",
        "mailto:x",
        "/" * 9999,
    ],
)
def test_a_redirect_to_nowhere(hub, tmp_path, there):
    hub.redirects[KEY] = there
    with pytest.raises(FetchError) as failed:
        fetch(FILE, tmp_path, endpoint=hub.endpoint)
    line = str(failed.value)
    assert line.startswith(FILE.name) and line.isprintable() and len(line) < 500
    assert [name for name in names(tmp_path) if not name.endswith(".part")] == []


@pytest.mark.parametrize("etag", ["../../x", "a/b/c", "/", "\\\\x", "W/", "é"])
def test_a_hash_that_is_none_is_not_taken_for_a_name(hub, tmp_path, etag):
    hub.etags[KEY] = etag
    known = replace(FILE, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert fetch(known, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT
    assert names(tmp_path) == [FILE.name]


def comfyui_folder(folder: Path) -> Path:
    """What passes for a ComfyUI to the command line."""
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    return folder


PID = get_file("pid_sdxl_1024_to_4096_4step_bf16.safetensors")


def run(*arguments, **env):
    command = [sys.executable, "-m", "pid_core", "fetch", *map(str, arguments)]
    clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
    return subprocess.run(command, cwd=ROOT, env=clean | env, capture_output=True, text=True)


def test_the_command_honours_mirror_and_proxy(hub, tmp_path):
    hub.files[PID.repo, PID.path] = CONTENT
    comfyui = comfyui_folder(tmp_path / "ComfyUI")
    settings = {"HF_ENDPOINT": "http://mirror.invalid", "HTTP_PROXY": hub.endpoint, "NO_PROXY": ""}
    done = run(PID.name, "--accept-licence", "--comfyui", comfyui, **settings)
    assert done.returncode == 0, done.stderr
    path = comfyui / "models" / "diffusion_models" / PID.name
    assert done.stdout.strip() == str(path)
    assert path.read_bytes() == CONTENT
    assert {r.host for r in hub.requests} == {"mirror.invalid"}
    assert "NVIDIA's licence NSCLv1 (non-commercial use only" in done.stderr
    assert "NSCLv1" in accepted(comfyui / "user" / "__pidkit" / "licences.json")


def test_a_socks_proxy_without_what_it_needs(tmp_path):
    done = run(
        "ae.safetensors", "--to", tmp_path, HTTPS_PROXY="socks5://127.0.0.1:9", HF_ENDPOINT="https://hub.invalid"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "ae.safetensors cannot be fetched" in done.stderr.splitlines()[-1]


def test_offline_is_honoured(tmp_path):
    done = run("ae.safetensors", "--to", tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE is set" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_nothing_is_fetched_without_the_licence(tmp_path, capsys):
    assert main(["fetch", PID.name, "--to", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "NVIDIA's licence NSCLv1: non-commercial use only" in error
    assert "https://huggingface.co/nvidia/PiD" in error and "add --accept-licence" in error
    assert names(tmp_path) == []


def test_a_file_that_is_here_needs_no_licence(tmp_path, capsys):
    comfyui = comfyui_folder(tmp_path / "ComfyUI")
    unet = comfyui / "models" / "unet" / "nvidia" / PID.name
    unet.parent.mkdir(parents=True)
    unet.write_bytes(safetensors_of(1000))
    assert main(["fetch", PID.name, "--comfyui", str(comfyui)]) == 0
    assert capsys.readouterr().out.strip() == str(unet)


def test_files_go_where_extra_model_paths_says(tmp_path, capsys):
    comfyui = comfyui_folder(tmp_path / "ComfyUI")
    (comfyui / "extra_model_paths.yaml").write_text(
        json.dumps(
            {"big": {"base_path": str(tmp_path / "big"), "is_default": True, "unet": "unet\nmore", "vae": "vae"}}
        ),
        encoding="utf-8",
    )
    (tmp_path / "big" / "more").mkdir(parents=True)
    (tmp_path / "big" / "more" / PID.name).write_bytes(safetensors_of(1000))
    assert main(["fetch", PID.name, "--comfyui", str(comfyui)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "big" / "more" / PID.name)


def test_paths_of_extra_model_paths_stand_before_comfyuis_own_only_where_they_are_the_default(tmp_path):
    comfyui = comfyui_folder(tmp_path / "ComfyUI")
    sections = {
        "more": {"base_path": str(tmp_path / "more"), "vae": "vae"},
        "no": {"base_path": str(tmp_path / "no"), "is_default": False, "vae": "vae"},
        "mine": {"base_path": str(tmp_path / "mine"), "is_default": True, "vae": "vae"},
    }
    (comfyui / "extra_model_paths.yaml").write_text(json.dumps(sections), encoding="utf-8")
    folders = [tmp_path / "mine", comfyui / "models", tmp_path / "more", tmp_path / "no"]
    assert model_folders(comfyui)["vae"] == [folder / "vae" for folder in folders]


def test_a_base_directory_without_comfyuis_code(tmp_path, capsys):
    """As with --base-directory, and in ComfyUI Desktop."""
    base = tmp_path / "Documents" / "ComfyUI"
    for folder in ("custom_nodes", "models/diffusion_models"):
        (base / folder).mkdir(parents=True)
    path = base / "models" / "diffusion_models" / PID.name
    path.write_bytes(safetensors_of(1000))
    assert main(["fetch", PID.name, "--comfyui", str(base)]) == 0
    assert capsys.readouterr().out.strip() == str(path)


OWN = ["/C/models/unet", "/C/models/diffusion_models"]  # in ComfyUI's order


@pytest.mark.parametrize(
    ("paths", "chosen"),
    [
        (OWN, "/C/models/diffusion_models"),
        ([*OWN, "/big/diffusion_models"], "/C/models/diffusion_models"),
        (["/big/unets", *OWN], "/big/unets"),
        (["/big/unet", *OWN], "/big/unet"),
        (["/C/models/extra", *OWN], "/C/models/extra"),
        (["/C/models/unet"], "/C/models/unet"),
    ],
)
def test_where_new_files_go(paths, chosen):
    assert folder_for_new("diffusion_models", [Path(path) for path in paths], "/C/models") == Path(chosen)


def test_a_damaged_file_is_not_taken_for_here_by_the_command(hub, tmp_path):
    (tmp_path / PID.name).write_bytes(PAGE)
    hub.files[PID.repo, PID.path] = CONTENT
    done = run(PID.name, "--to", tmp_path, "--accept-licence", HF_ENDPOINT=hub.endpoint)
    assert done.stdout.strip() == str(tmp_path / PID.name), done.stderr
    assert f"{PID.name} cannot be read" in done.stderr and "here already" not in done.stderr
    assert (tmp_path / PID.name).read_bytes() == CONTENT


def test_names_that_are_not_known(tmp_path, capsys):
    assert main(["fetch", "pid_sdxl", "--to", str(tmp_path)]) == 1
    assert f"did you mean {PID.name}?" in capsys.readouterr().err
    assert main(["fetch", "ae.safetensors", "--comfyui", str(tmp_path)]) == 1
    assert "no ComfyUI there" in capsys.readouterr().err


def test_the_list_names_every_file_and_its_licence(capsys):
    assert main(["fetch", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(FILES)
    for file, line in zip(FILES, lines, strict=True):
        assert line.startswith(file.name) and line.endswith(LICENCES[file.licence].name)


def test_licences_are_asked_once_and_recorded(tmp_path):
    record = tmp_path / "user" / "licences.json"
    free, nvidia, gemma = (replace(FILES[0], name=f"{key}.pth", licence=key) for key in ("MIT", "NSCLv1", "Gemma"))
    check_licences([free], record, accept=False, how="say yes")
    assert not record.exists()
    with pytest.raises(LicenceError, match="say yes"):
        check_licences([nvidia], record, accept=False, how="say yes")
    check_licences([nvidia], record, accept=True, how="say yes")
    check_licences([nvidia, free], record, accept=False, how="say yes")
    with pytest.raises(LicenceError, match="Gemma"):
        check_licences([gemma], record, accept=False, how="say yes")
    check_licences([gemma], record, accept=True, how="say yes")
    assert set(accepted(record)) == {"NSCLv1", "Gemma"}
    assert accepted(record)["NSCLv1"]["for"] == "NSCLv1.pth"
    record.write_text("{broken", encoding="utf-8")
    with pytest.raises(LicenceError):
        check_licences([nvidia], record, accept=False, how="say yes")


def test_one_question_for_several_files(tmp_path):
    record = tmp_path / "licences.json"
    files = [get_file(name) for name in ("pid_sdxl_1024_to_4096_4step_bf16.safetensors", "sdxl_vae.safetensors")]
    files.append(get_file("gemma_2_2b_it_elm_bf16.safetensors"))
    with pytest.raises(LicenceError, match="3 files are missing") as caught:
        check_licences(files, record, accept=False, how="say yes")
    line = str(caught.value)
    assert "\n" not in line
    for file in files:
        assert file.name in line and file.repo in line
    for key in ("NSCLv1", "Gemma"):
        licence = LICENCES[key]
        assert line.count(f"{licence.name}: {licence.summary}, {licence.page}") == 1
    assert "5.2 GB" in line and line.endswith("if you accept them, say yes")
    assert len(line) < 560
    check_licences(files, record, accept=True, how="say yes")
    assert set(accepted(record)) == {"NSCLv1", "Gemma"}


def test_the_registry_is_sound():
    assert len({file.name for file in FILES}) == len(FILES)
    assert len({(file.repo, file.path) for file in FILES}) == len(FILES)
    for file in FILES:
        assert file.licence in LICENCES
        assert file.sha256 is None or len(file.sha256) == 64
        assert file.folder in ("diffusion_models", "text_encoders", "vae", "clip_vision")
        assert file.about
        # everything that descends from NVIDIA's weights carries NVIDIA's licence
        nvidia = file.folder in ("diffusion_models", "clip_vision") and file.repo in (
            "nvidia/PiD",
            "Comfy-Org/PixelDiT",
        )
        assert (file.licence == "NSCLv1") == nvidia


def test_no_example_workflow_accepts_a_licence_for_its_user():
    for path in (ROOT / "example_workflows").rglob("*.json"):
        graph = json.loads(path.read_text(encoding="utf-8"))
        loaders = [n for n in graph.get("nodes", []) if n["type"] in ("PiDKitLoader", "PiDKitDownload")]
        switches = [value for node in loaders for value in node["widgets_values"] if isinstance(value, bool)]
        if "nodes" not in graph:
            switches = [node["inputs"].get("accept_licence") for node in graph.values()]
        assert True not in switches, path.name


@pytest.mark.parametrize(
    ("local", "name"),
    [
        (PID.name, PID.name),
        (f"sub/{PID.name}", PID.name),
        (f"sub\\{PID.name}", PID.name),
        ("PiD_res2k_sr4x_official_sd3_distill_4step.pth", "PiD_res2k_sr4x_official_sd3_distill_4step.pth"),
        (
            "nvidia/PiD_res2k_sr4x_official_sd3_distill_4step/model_ema_bf16.pth",
            "PiD_res2k_sr4x_official_sd3_distill_4step.pth",
        ),
        ("model_ema_bf16.pth", None),
        ("other.safetensors", None),
        ("", None),
    ],
)
def test_local_files_are_recognised(local, name):
    file = known_file(local)
    assert (file and file.name) == name
    if file:
        assert local_name(file, ["x.safetensors", local]) == local
