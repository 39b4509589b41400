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
from pid_core import kernels

NAMES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
Launch = tuple[JITFunction, list, dict]


def launches() -> list[Launch]:
    """What the public functions launch, at NVIDIA's sizes: a patch block, a gate and a pixel block of 64 tokens."""
    found: list[Launch] = []
    JITFunction.__getitem__ = lambda kernel, grid: lambda *args, **options: found.append((kernel, args, options))
    bf16 = {"dtype": torch.bfloat16}
    new = torch.empty
    with FakeTensorMode():
        stream, x, line, weight = new(1, 64, 1536), new(1, 64, 1536, **bf16), new(1, 1, 6 * 1536)[..., :1536], new(1536)
        kernels.norm_modulate(stream, weight, line, line, torch.bfloat16)
        kernels.gate_add(stream, line, x)
        kernels.gate_add_norm_modulate(stream, line, x, weight, line, line)
        for heads, width in ((24, 64), (16, 72)):
            joint = [new(1, 364, heads, width, **bf16)[:, 300:].transpose(1, 2) for _ in range(3)]
            tables = new(64, width // 2), new(64, width // 2)
            kernels.place_heads(new(1, 64, 3 * heads * width, **bf16), new(width), new(width), *tables, *joint)
        kernels.silu_mul(new(64, 4096, **bf16), new(64, 4096, **bf16))
        proj = new(1, 2 * 1536, **bf16), new(1, **bf16), new(1, 1, 1)
        kernels.token_gate(stream, x, *proj)
        kernels.condition_gate(stream, new(1, 1, 1536), x, *proj)
        embed = new(16, 3), new(16), new(256, 8), new(256, 8)
        u = kernels.pixel_embed(new(1, 3, 256, 256), *embed, 16, 0, 64)
        modulation, attended = new(1, 64, 6 * 4096, **bf16), new(1, 64, 4096, **bf16)
        kernels.pixel_begin(u, new(16), modulation)
        mlp = new(64, 16, **bf16), new(64, **bf16), new(16, 64, **bf16), new(16, **bf16)
        kernels.pixel_end(u, attended, modulation, new(16), *mlp)
        kernels.pixel_out(u, new(16), new(3, 16), new(3))
        features = new(1, 1024, 16, 16)
        kernels.group_moments(features, 4)
        kernels.scale_silu(features, new(1, 1024), new(1, 1024), torch.bfloat16)
    return found


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
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
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
