"""PiDConfig: every size of the network in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from ..printable import printable

LARGEST = 1_000_000  # of any size that has no bound of its own here
_MOST = {
    "patch_depth": 128,
    "pixel_depth": 128,
    "lq_res_blocks": 128,
    "patch_size": 256,
    "in_channels": 3,
    "latent_down": 64,
    "latent_unpack": 16,
    "sr_scale": 64,
    "steps": 4,
    "rope_theta": 1e9,
    "text_rope_theta": 1e9,
}


@dataclass(frozen=True)
class PiDConfig:
    """Sizes of one PiD network; the defaults are the released v1 network for 16-channel latents.

    Lengths are in pixels of the output unless named otherwise. `gate` is "channel" (v1: one value per token and
    channel) or "token" (v1.5: one per token). `prediction` is what the network's output means: "velocity" or "x0".
    `schedule` is the noise levels it was trained at: the "distilled" student's four, or "undistilled", all of them.
    `steps`, 1 to 4, is in how many steps a distilled checkpoint draws best.
    `latent_channels` 0 means no latent branch: PixelDiT, which draws from text alone. The lq_ fields mean nothing then.
    `attends` says whether tokens look at each other: where not, every attention gives zeros and costs nothing.
    `invents` says whether it draws detail that a blur took from the latent, as the released networks were trained to.
    `window_min` and `window_max` are the smallest and largest side of a context window: about what the checkpoint was
    trained on.
    """

    in_channels: int = 3
    patch_size: int = 16
    hidden_size: int = 1536
    num_heads: int = 24
    patch_depth: int = 14
    mlp_size: int = 4096
    time_features: int = 256
    pixel_hidden_size: int = 16
    pixel_attn_size: int = 1152
    pixel_num_heads: int = 16
    pixel_depth: int = 2
    pixel_mlp_size: int = 64
    caption_width: int = 2304
    caption_length: int = 300
    text_rope: bool = True
    text_rope_theta: float = 1e4
    rope_mode: str = "ntk_aware"
    rope_reference: int = 1024
    rope_theta: float = 1e4
    latent_channels: int = 16
    latent_down: int = 8
    latent_unpack: int = 1
    sr_scale: int = 4
    lq_width: int = 512
    lq_res_blocks: int = 4
    lq_interval: int = 2
    lq_padding: str = "zeros"
    gate: str = "channel"
    pit_injection: bool = False
    prediction: str = "velocity"
    schedule: str = "distilled"
    steps: int = 4
    family: str | None = None
    attends: bool = True
    invents: bool = True
    window_min: int = 1536
    window_max: int = 2304

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_widths()
        self._check_latent()

    def _check_numbers(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(field.default) not in (int, float):
                continue
            may_be_zero = field.name in ("lq_res_blocks", "latent_channels")
            if not (0 < value < math.inf or (may_be_zero and value == 0)):
                raise ValueError(f"the network's {field.name} is {printable(value)}, a positive number is needed")
            most = _MOST.get(field.name, LARGEST)
            if value > most:
                raise ValueError(f"the network's {field.name} is {printable(value)}, more than {most:g} is no PiD's")
        if self.window_min > self.window_max:
            raise ValueError(
                f"the network's window_min {self.window_min} is larger than its window_max {self.window_max}"
            )

    def _check_widths(self) -> None:
        for width, heads in (("hidden_size", "num_heads"), ("pixel_attn_size", "pixel_num_heads")):
            if getattr(self, width) % (4 * getattr(self, heads)):  # RoPE turns pairs, for two axes
                raise ValueError(
                    f"the network's {width} {getattr(self, width)} does not split into {heads} "
                    f"{getattr(self, heads)} heads of a multiple of 4"
                )
        for name, unit in (("pixel_hidden_size", 4), ("lq_width", 4), ("time_features", 2)):
            if getattr(self, name) % unit:
                raise ValueError(f"the network's {name} is {getattr(self, name)}, a multiple of {unit} is needed")

    def _check_latent(self) -> None:
        if self.latent_channels % self.latent_unpack**2:
            raise ValueError(
                f"latents of {self.latent_channels} channels cannot be un-packed {self.latent_unpack} x "
                f"{self.latent_unpack}"
            )
        if self.has_latent and self.latent_cell // self.latent_unpack < self.patch_size:
            raise ValueError(
                f"a latent cell covers {self.latent_cell // self.latent_unpack} output pixels, less than a patch of "
                f"{self.patch_size}: no released PiD is built so, and this pack cannot run it"
            )

    @property
    def head_dim(self) -> int:
        """Channels of one head of the patch blocks."""
        return self.hidden_size // self.num_heads

    @property
    def patch_values(self) -> int:
        """The most values that a patch has at once in the patch path: in its MLP, or in a gate."""
        return max(3 * self.mlp_size, 4 * self.hidden_size)

    @property
    def pixel_head_dim(self) -> int:
        """Channels of one head of the pixel blocks."""
        return self.pixel_attn_size // self.pixel_num_heads

    @property
    def has_latent(self) -> bool:
        """Whether the network decodes a latent. If not it is PixelDiT, which draws from text alone."""
        return self.latent_channels > 0

    @property
    def lq_in_channels(self) -> int:
        """Channels of the latent after un-packing, the projector's input."""
        return self.latent_channels // self.latent_unpack**2

    @property
    def lq_outputs(self) -> int:
        """Number of injection points before patch blocks: blocks 0, interval, 2 * interval, ..."""
        return math.ceil(self.patch_depth / self.lq_interval) if self.has_latent else 0

    @property
    def latent_cell(self) -> int:
        """Output pixels that one latent cell covers on each side."""
        return self.latent_down * self.sr_scale

    @property
    def align(self) -> int:
        """Every side of the output must be a multiple of this."""
        return self.patch_size

    @property
    def rope_grid(self) -> float | None:
        """Grid side at which RoPE's theta is unscaled, in patches; None when theta is fixed."""
        return self.rope_reference / self.patch_size if self.rope_mode == "ntk_aware" else None

    @property
    def version(self) -> str:
        """What people call a network of these sizes: v1, v1.5 or PixelDiT."""
        if not self.has_latent:
            return "PixelDiT"
        return "v1.5" if self.pit_injection and self.gate == "token" else "v1"

    def output_size(self, latent_height: int, latent_width: int) -> tuple[int, int]:
        """(height, width) in pixels of the image that a latent of this many cells decodes to."""
        return latent_height * self.latent_cell, latent_width * self.latent_cell

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping, metadata: Mapping[str, str] | None = None, guesses: Mapping | None = None
    ) -> PiDConfig:
        """`checkpoints.detect.read_config`, which says what it reads and raises."""
        from ..checkpoints.detect import read_config  # the one look upwards: the method's name is public

        return read_config(state_dict, metadata, guesses)


# The released networks for 16-channel latents, by version.
RELEASED = {
    "v1": PiDConfig(),
    "v1.5": PiDConfig(
        rope_reference=2048,
        lq_width=1024,
        lq_padding="replicate",
        gate="token",
        pit_injection=True,
        window_min=2048,
        window_max=4096,
    ),
}
