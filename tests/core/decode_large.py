"""Decodes a large canvas in windows with a little network, for test_process_memory.py, which runs this as a process.

Prints as JSON: canvas, the bytes of one; grown, by how much the mapped memory of the process grew at most; predicted,
by the memory model.
The one argument: how many canvases more than it needs are held.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from pid_core import PiDConfig, PiDNetwork, decode  # noqa: E402
from pid_core.model import chunks  # noqa: E402
from pid_core.sampling.decode import decode_memory  # noqa: E402
from pid_core.windows.plan import plan_windows  # noqa: E402

SIDE = 2048
CONFIG = PiDConfig(
    hidden_size=16,
    num_heads=2,
    patch_depth=1,
    mlp_size=32,
    pixel_hidden_size=4,
    pixel_attn_size=16,
    pixel_num_heads=2,
    pixel_depth=1,
    pixel_mlp_size=4,
    caption_width=8,
    caption_length=4,
    latent_channels=4,
    latent_down=4,
    lq_width=8,
    lq_res_blocks=1,
    window_min=320,
    window_max=384,
)


def mapped(name: str) -> int:
    """VmSize or VmPeak, its largest so far, of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def main(more: int) -> None:
    torch.manual_seed(0)
    chunks.CANVAS_VALUES //= 16  # as is the canvas, against one of 8192 x 8192
    net = PiDNetwork(CONFIG).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    caption, latent = torch.zeros(1, 4, 8), torch.zeros(1, 4, SIDE // 16, SIDE // 16)
    memory = decode_memory(CONFIG, SIDE, SIDE, torch.device("cpu"), budget=1e12)
    plan = memory.plan(SIDE, SIDE, 64)
    small = plan_windows(plan.size[0], 2 * plan.size[1], plan.size[0], 0, align=16)
    decode(net, latent[..., : small.height // 16, : small.width // 16], caption, steps=2, windows=small)  # libraries
    before, held = mapped("VmSize"), torch.ones(more, 3, SIDE, SIDE)
    decode(net, latent, caption, steps=2, windows=plan)
    del held
    print(
        json.dumps(
            {
                "canvas": 4 * 3 * SIDE**2,
                "grown": mapped("VmPeak") - before,
                "predicted": memory.of_plan(plan),
                "windows": plan.count,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
