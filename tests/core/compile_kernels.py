"""Compile every Triton kernel as the network at its released sizes launches it, for NVIDIA architectures named.

    python tests/core/compile_kernels.py 75 80 90

No GPU is needed. Prints one line of JSON per kernel and architecture: registers, spilled bytes, shared memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime import JITFunction

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pid_core.model import kernels

NAMES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
Launch = tuple[JITFunction, list, dict]


def launches() -> list[Launch]:
    """What the public functions launch at NVIDIA's sizes in bfloat16, and at the bundled model's in float32."""
    found: list[Launch] = []
    JITFunction.__getitem__ = lambda kernel, grid: lambda *args, **options: found.append((kernel, args, options))
    with FakeTensorMode():
        _patch_stream(1536, 4096, torch.bfloat16)
        _patch_stream(128, 256, torch.float32)
        for heads, width in ((24, 64), (16, 72)):
            _heads(heads, width, torch.bfloat16)
        for heads, width in ((4, 32), (2, 32)):
            _heads(heads, width, torch.float32)
        _gates(1536, torch.bfloat16)
        _pixels(torch.bfloat16)
        for channels, dtype in ((1024, torch.bfloat16), (128, torch.float32)):
            features = torch.empty(1, channels, 16, 16)
            kernels.group_moments(features, 4)
            kernels.scale_silu(features, torch.empty(1, channels), torch.empty(1, channels), dtype)
    return found


def _patch_stream(width: int, inner: int, dtype: torch.dtype) -> None:
    stream, x, weight = torch.empty(1, 64, width), torch.empty(1, 64, width, dtype=dtype), torch.empty(width)
    line = torch.empty(1, 1, 6 * width)[..., :width]
    kernels.norm_modulate(stream, weight, line, line, dtype)
    kernels.gate_add(stream, line, x)
    kernels.gate_add_norm_modulate(stream, line, x, weight, line, line)
    kernels.silu_mul(torch.empty(64, inner, dtype=dtype), torch.empty(64, inner, dtype=dtype))


def _heads(heads: int, width: int, dtype: torch.dtype) -> None:
    joint = [torch.empty(1, 364, heads, width, dtype=dtype)[:, 300:].transpose(1, 2) for _ in range(3)]
    tables = torch.empty(64, width // 2), torch.empty(64, width // 2)
    qkv = torch.empty(1, 64, 3 * heads * width, dtype=dtype)
    kernels.place_heads(qkv, torch.empty(width), torch.empty(width), *tables, *joint)
    kernels.place_heads(qkv, torch.empty(width), torch.empty(width), None, None, *joint)


def _gates(width: int, dtype: torch.dtype) -> None:
    stream, x = torch.empty(1, 64, width), torch.empty(1, 64, width, dtype=dtype)
    proj = torch.empty(1, 2 * width, dtype=dtype), torch.empty(1, dtype=dtype), torch.empty(1, 1, 1)
    kernels.token_gate(stream, x, *proj)
    kernels.condition_gate(stream, torch.empty(1, 1, width), x, *proj)


def _pixels(dtype: torch.dtype) -> None:
    def new(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype)

    embed = torch.empty(16, 3), torch.empty(16), torch.empty(256, 8), torch.empty(256, 8)
    u = kernels.pixel_embed(torch.empty(1, 3, 256, 256), *embed, 16, 0, 64)
    modulation, norm = new(1, 64, 6 * 4096), torch.empty(16)
    kernels.pixel_begin(u, norm, modulation)
    kernels.pixel_end(u, new(1, 64, 4096), modulation, norm, new(64, 16), new(64), new(16, 64), new(16))
    kernels.pixel_out(u, norm, torch.empty(3, 16), torch.empty(3))


def compiled(launch: Launch, capability: int):
    kernel, args, options = launch
    signature, constants, attributes = {}, {}, {}
    for index, (parameter, value) in enumerate(zip(kernel.params, args, strict=True)):
        if parameter.is_constexpr:
            signature[parameter.name], constants[(index,)] = "constexpr", value
            continue
        tensor = isinstance(value, torch.Tensor)
        signature[parameter.name] = NAMES[value.dtype] if tensor else "i32"
        if tensor or value % 16 == 0:
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(binary, capability: int) -> dict:
    """What the assembler says of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx", encoding="utf-8") as file:
        file.write(binary.asm["ptx"])
        file.flush()
        target = re.search(r"\.target (\w+)", binary.asm["ptx"]).group(1)
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={target}", file.name, "-o", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    return {
        "registers": int(registers.group(1)),
        "spilled": int(spilled.group(1)),
        "shared": binary.metadata.shared,
        "wide loads": f"{len(re.findall(r'ld.global[^;]*v[48]', binary.asm['ptx']))}"
        f"/{len(re.findall('ld.global', binary.asm['ptx']))}",
    }


def main() -> None:
    todo = launches()
    for capability in map(int, sys.argv[1:]):
        for launch in todo:
            found = resources(compiled(launch, capability), capability)
            print(json.dumps({"kernel": launch[0].__name__, "capability": capability} | found), flush=True)


if __name__ == "__main__":
    main()
