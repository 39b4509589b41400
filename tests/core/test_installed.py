"""`pip install .`, as a cluster does it: the command line and the bundled model, without the repository."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from PIL import Image

from pid_core.version import pack_version

ROOT = Path(__file__).parents[2]


def test_what_is_installed_enlarges_a_picture(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("pid_core", "pid_bridges"):
        if (ROOT / package).is_dir():
            shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
        (entry_points,) = (name for name in file.namelist() if name.endswith("entry_points.txt"))
        assert "pidkit = pid_core.__main__:main" in file.read(entry_points).decode()
    Image.new("RGB", (8, 6), (90, 120, 200)).save(tmp_path / "small.png")
    code = "import sys; from pid_core.__main__ import main; sys.exit(main(['small.png', '-o', 'large.png']))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "large.png") as picture:
        assert picture.size == (32, 24)
        assert json.loads(picture.info["pidkit"])["software"] == f"ComfyUI-PiDKit {pack_version()}"
