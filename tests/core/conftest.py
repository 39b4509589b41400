import os
from pathlib import Path

import pytest

# Read when Triton is first imported, which PyTorch may do in any test. Compiling the kernels has a process of its own.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def packable(tmp_path) -> Path:
    """A checkpoint that `convert --to` packs."""
    import torch
    from safetensors.torch import save_file

    from pid_core import PiDNetwork
    from support.sizes import PACKABLE

    path = tmp_path / "pid_flux.safetensors"
    generator = torch.Generator().manual_seed(0)
    state = PiDNetwork(PACKABLE).state_dict()
    save_file({k: (0.2 * torch.randn(v.shape, generator=generator)).bfloat16() for k, v in state.items()}, path)
    return path
