"""The Triton kernels compile for NVIDIA's architectures, which needs no card, and keep their values in registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.old import skip_before

pytest.importorskip("triton", reason="NOT TESTED: compiling the Triton kernels, for Triton is missing")
skip_before("triton", (3, 2), "is told by another interface what to compile for a card that is not there")

# Turing and Blackwell: the oldest and the newest. Ampere (80) and Hopper (90) lie between, and cost as long again.
CAPABILITIES = (75, 120)
SPILLS = {("_pixel_end", 75)}  # its small MLP does not fit Turing's registers


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    script = Path(__file__).with_name("compile_kernels.py")
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, str(script), *map(str, CAPABILITIES)]
    run = subprocess.run(command, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_every_kernel_compiles_for_every_architecture(compiled):
    from pid_core.model import fused

    launched = {(found["kernel"], found["capability"]) for found in compiled}
    names = {f"_{name}" for name in fused.WRITTEN} - {"_condition_gate"}  # one kernel serves both gates
    assert launched == {(name, capability) for name in names for capability in CAPABILITIES}


def test_no_kernel_spills(compiled):
    spilled = {(found["kernel"], found["capability"]): found["spilled"] for found in compiled if found["spilled"]}
    assert set(spilled) <= SPILLS
