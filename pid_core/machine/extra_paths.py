"""ComfyUI's extra_model_paths.yaml: what has to be added so that it finds models that lie elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..files import replace_file
from ..hub.catalogue import known_file
from ..printable import printable
from .comfy_home import FOLDERS, Home, find_comfyui, model_files

NAME = "extra_model_paths.yaml"
SECTION = "pidkit_models"


def models_elsewhere(home: Home) -> list[Path]:
    """Models folders of other ComfyUIs on this machine that hold a file this pack knows, and this ComfyUI does not.

    Looked at: COMFYUI_PATH, the folders beside ComfyUI's, the pack's own, and where ComfyUI is by default.
    """
    found = []
    for folder in dict.fromkeys(_candidates(home)):
        if folder.resolve() != home.models.resolve() and _has_more(folder, home):
            found.append(folder)
    return found


def section_for(models: Path, taken: Mapping[str, object] = {}) -> str:
    """YAML of a section that adds this models folder; its name is none of `taken`."""
    name, number = SECTION, 1
    while name in taken:
        number += 1
        name = f"{SECTION}_{number}"
    lines = ["# models that lie elsewhere; added by PiDKit's doctor --fix", f"{name}:"]
    lines.append(f"    base_path: {json.dumps(str(models), ensure_ascii=False)}")
    for kind, parts in FOLDERS.items():
        here = [part for part in parts if (models / part).is_dir()]
        if here:
            lines += [f"    {kind}: |", *(f"        {part}" for part in here)]
    return "\n".join(lines) + "\n"


def add_section(config: Path, models: Path) -> Path | None:
    """Add a models folder to the file, behind all that is there; returns the copy of what was there before.

    The file changes in one move, and only where it still says all that it said. Raises ValueError in one line where
    that cannot be had, with what to write by hand; OSError where it cannot be written.
    """
    config = Path(os.path.realpath(config))  # the file, where it is a link to it
    before = config.read_bytes() if config.exists() else b""
    known = {name: _told(value) for name, value in _sections(before).items()}
    ending = "\r\n" if b"\r\n" in before else "\n"
    gap = ending if before else ""
    if before and not before.endswith((b"\n", b"\r")):
        gap += ending
    after = before + (gap + section_for(models, known).replace("\n", ending)).encode()
    try:
        same = {name: _told(value) for name, value in _sections(after).items() if name in known} == known
    except ValueError:  # in one pair of braces, every line moved in, or an end marked: nothing can stand behind it
        raise ValueError(_by_hand(models, "nothing can be added behind its last line")) from None
    if not same:
        raise ValueError(_by_hand(models, "it would not read the same"))
    copy = None if not before else _copy(config)
    mode = config.stat().st_mode if config.exists() else None
    replace_file(config, after)
    if mode is not None:
        os.chmod(config, mode & 0o777)
    return copy


def _sections(content: bytes) -> dict:
    try:
        import yaml
    except ImportError:
        raise ValueError(
            f"this Python cannot read {NAME} (it has no PyYAML): run this with the Python that ComfyUI runs in"
        ) from None
    try:
        found = yaml.safe_load(content.decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date that there is not
        reason = printable((str(error).splitlines() or [""])[0])
        raise ValueError(f"{NAME} cannot be read ({reason}): mend it by hand first") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{NAME} holds no sections: mend it by hand first")
    return found


def _told(value: object) -> object:
    """What ComfyUI reads in a section: a line break behind the last line of a value changes nothing."""
    if isinstance(value, dict):
        return {key: _told(one) for key, one in value.items()}
    return value.rstrip("\r\n") if isinstance(value, str) else value


def _by_hand(models: Path, why: str) -> str:
    return f"{NAME} is left alone ({why}): add a section with base_path: {printable(models, 200)} by hand"


def _copy(config: Path) -> Path:
    """Of the file beside it, under a name that is free."""
    number, copy = 1, config.with_name(f"{config.name}.bak")
    while copy.exists():
        number += 1
        copy = config.with_name(f"{config.name}.bak{number}")
    shutil.copy2(config, copy)
    return copy


def _candidates(home: Home) -> Iterator[Path]:
    """Models folders that may be there."""
    named = os.environ.get("COMFYUI_PATH", "").strip()
    if named:
        yield Path(os.path.expanduser(named)) / "models"
    try:
        own = find_comfyui()
    except FileNotFoundError:  # of COMFYUI_PATH
        own = None
    if own is not None:
        yield own / "models"
    own_home = Path(os.path.expanduser("~"))
    for folder in (own_home / "ComfyUI", own_home / "Documents" / "ComfyUI"):
        yield folder / "models"
    try:
        beside = sorted(home.code.parent.iterdir())
    except OSError:
        return
    for folder in beside:
        if "comfyui" in folder.name.lower():
            yield from (folder / "models", folder / "ComfyUI" / "models")


def _has_more(models: Path, home: Home) -> bool:
    try:
        for kind, parts in FOLDERS.items():
            here = {Path(name).name for name, _ in model_files(home.folders[kind])}
            there = {Path(name).name for name, _ in model_files([models / part for part in parts])}
            if any(known_file(name) for name in there - here):
                return True
    except OSError:
        return False
    return False
