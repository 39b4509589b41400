"""Upscaler: a checkpoint and what encodes for it, ready for pictures and latents."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoints.reading import load_network, outline_network
from ..errors import WrongCaptionError, said_of
from ..hub.catalogue import FILES
from ..images.files import Picture
from ..images.framing import Framing, Size, finish_image, plan_framing, prepare_image
from ..latents.early_stop import CarriedNoise
from ..latents.families import LatentFamily, get_family
from ..latents.files import SavedLatent
from ..latents.lq_input import LatentSpec, LQInput, prepare_lq
from ..latents.rgb import to_image, to_rgb_latent
from ..machine.memory import free_memory
from ..model.cost import trunk_work
from ..model.devices import usual_dtype
from ..model.network import PiDNetwork
from ..progress import OnPart
from ..rae.facts import is_rae
from ..sampling.decode import check_student, decode, decode_memory
from ..sampling.schedule import distilled_sigmas
from ..windows.memory import MemoryModel
from ..windows.plan import OVERLAP, NoPlanError, TooLittleMemoryError, WindowPlan, plan_flops
from .bridge import Bridge


class Prepared(NamedTuple):
    """What goes into a decode. size: (height, width) of what comes out of it; framing, image: of a picture's.

    image: [1, H, W, 3 or 4] in [0, 1].
    """

    lq: LQInput
    size: Size
    framing: Framing | None = None
    image: Tensor | None = None


class Drawing(NamedTuple):
    """How a decode will run: the windows, bytes at its fullest moment, and its work in FLOP."""

    plan: WindowPlan
    memory: float
    flop: float


class Upscaler:
    """`family` is the latent family of the checkpoint. bridge: None serves the bundled model's family alone."""

    def __init__(
        self,
        net: PiDNetwork,
        bridge: Bridge | None = None,
        *,
        name: str = "the checkpoint",
        device: torch.device | None = None,
    ):
        try:
            check_student(net.config)
        except ValueError as error:
            raise said_of(name, error) from None
        if net.family is None:
            raise ValueError(f"{name} does not say which family's latents it takes: say so with --family")
        self.net, self.bridge, self.name, self.family = net, bridge, name, get_family(net.family)
        self.device = device or next(net.parameters()).device

    @classmethod
    def load(
        cls, model: Path, device: torch.device, bridge: Bridge | None = None, *, family: str | None = None
    ) -> Upscaler:
        """From a checkpoint's file, in the dtype that the device wants.

        Raises FileNotFoundError, and ValueError in one line for what is no such file.
        """
        dtype = _dtype_for(outline_network(model, family=family), device)
        net = load_network(model, device=device, dtype=dtype, family=family)
        return cls(net, bridge, name=Path(model).name)

    @classmethod
    def outline(
        cls, model: Path, device: torch.device, bridge: Bridge | None = None, *, family: str | None = None
    ) -> Upscaler:
        """As `load`, without the weights: it plans and prepares, and cannot draw. Raises what `load` raises."""
        net = outline_network(model, family=family)
        net.compute_dtype = _dtype_for(net, device)
        return cls(net, bridge, name=Path(model).name, device=device)

    @property
    def needs_vae(self) -> bool:
        """Whether a picture reaches the checkpoint only through a VAE, or the encoder of an RAE."""
        return self.family.name != "rgb"

    def check_pictures(self) -> None:
        """Raise ValueError in one line where pictures cannot be decoded for want of a VAE."""
        if self.needs_vae and self.bridge is None:
            raise ValueError(f"{self.name} decodes latents of {self.family.name}, not pictures: {_way_in(self.family)}")

    def check_caption(self, caption: Tensor | None, *, encoder: bool = False) -> None:
        """Raise ValueError in one line where there is no text for the checkpoint, or one of another width.

        encoder: whether a text encoder is to make it.
        """
        width = self.net.config.caption_width
        if caption is not None and caption.shape[-1] != width:
            raise WrongCaptionError(width, caption.shape)
        if caption is None and not encoder and self.net.default_caption is None:
            raise ValueError(
                f"{self.name} needs a text: give PiD's text encoder with --clip and the text with --text, or a text "
                "that is encoded already with --caption"
            )

    def frame(self, height: int, width: int, target: str = "factor", factor: float = 4.0) -> Framing:
        """Sizes for a picture; see `plan_framing`."""
        return plan_framing(height, width, self.family.name, target=target, factor=factor)

    def prepare_picture(
        self, picture: Picture, framing: Framing, sigma: float = 0.0, seed: int = 0, *, latent_noise: str = "add"
    ) -> Prepared:
        """sigma: degrade_sigma, 0 to 1. latent_noise: "add" noise of it, or "scale" the latent of a noisy picture."""
        image = picture.image[None]
        if picture.alpha is not None:
            image = torch.cat([image, picture.alpha[None, ..., None]], dim=-1)
        canvas = prepare_image(image, framing)
        latent = self._encode(canvas)
        lq = prepare_lq(latent, self.family.name, sigma, latent_noise=latent_noise, seed=seed, spec=self._spec())
        return Prepared(lq, framing.decoded, framing, image)

    def prepare_latent(self, saved: SavedLatent, sigma: float | None = None, seed: int = 0) -> Prepared:
        """sigma: None is the level that the latent carries; for a clean one, the level of noise that is added.

        Raises ValueError for a batch, and for another level than the one carried.
        """
        if saved.samples.shape[0] != 1:
            raise ValueError(f"the file holds {saved.samples.shape[0]} latents, and one is decoded at a time")
        carried = CarriedNoise(saved.family or self.family.name, saved.sigma) if saved.sigma > 0 else None
        if carried and sigma is not None and abs(sigma - saved.sigma) > 1e-6:
            raise ValueError(f"sigma is {sigma:g}, but the latent was stopped early at {saved.sigma:g}: leave it out")
        level = saved.sigma if carried else sigma or 0.0
        lq = prepare_lq(
            saved.samples,
            saved.family or "auto",
            level,
            latent_noise="keep" if carried else "add",
            seed=seed,
            spec=self._spec(),
            carried=carried,
        )
        size = Size(lq.height, lq.width)
        if saved.size is not None:
            size = Size(*saved.size).times(self.family.sr_scale)
        return Prepared(lq, size)

    def plan(self, size: Size, steps: int) -> Drawing:
        """The cheapest windows that fit the memory that is free, or the whole frame, as PiD Decode chooses them.

        Raises TooLittleMemoryError, and ValueError for steps that there are not.
        """
        distilled_sigmas(steps)
        align = self.net.config.align  # the network sees the picture go on up to the next multiple
        size = Size(*(-(-side // align) * align for side in size))
        memory = decode_memory(
            self.net.config,
            *size,
            self.device,
            budget=max(free_memory(self.device) - self._weights_to_come(), 0),
            dtype_bytes=self.net.compute_dtype.itemsize,
        )
        try:
            plan = memory.plan(*size, OVERLAP)
        except NoPlanError as error:
            raise TooLittleMemoryError(_too_little(size, memory, error)) from None
        flop = trunk_work(self.net.config, *size) + steps * plan_flops(plan, self.net.config)
        return Drawing(plan, memory.of_plan(plan), flop)

    def draw(
        self,
        prepared: Prepared,
        drawing: Drawing,
        *,
        caption: Tensor | None = None,
        steps: int,
        seed: int = 0,
        on_part: OnPart | None = None,
    ) -> Tensor:
        """[H, W, 3], or 4 with transparency, in [0, 1] on the CPU. caption: None is the checkpoint's own."""
        pixels = decode(
            self.net,
            prepared.lq.latent,
            caption=caption,
            degrade_sigma=prepared.lq.sigma,
            steps=steps,
            seed=seed,
            size=prepared.size,
            windows=drawing.plan,
            on_part=on_part,
        )
        image = to_image(pixels).cpu()
        if prepared.framing is not None and prepared.image is not None:
            image = finish_image(image, prepared.framing, prepared.image)
        return image[0]

    def _weights_to_come(self) -> int:
        """Bytes that the weights will take, where they are not loaded."""
        sizes = (one.numel() for one in self.net.parameters() if one.is_meta)
        return sum(sizes) * self.net.compute_dtype.itemsize

    def _encode(self, canvas: Tensor) -> Tensor:
        if not self.needs_vae:
            return to_rgb_latent(canvas)
        self.check_pictures()
        assert self.bridge is not None
        return self.bridge.encode_picture(canvas)

    def _spec(self) -> LatentSpec:
        config = self.net.config
        return LatentSpec(config.latent_channels, config.latent_cell, self.family.name)


def _dtype_for(net: PiDNetwork, device: torch.device) -> torch.dtype:
    """The bundled model's family is small, and what it draws is 8-bit pictures: half a dtype would be seen."""
    return torch.float32 if net.family == "rgb" else usual_dtype(device)


def _way_in(family: LatentFamily) -> str:
    folder, what = ("clip_vision", "encoder") if is_rae(family.name) else ("vae", "VAE")
    if family.vae is None and not is_rae(family.name):
        return "nothing here makes such latents, give one with --latent"
    known = next((f" ({file.name})" for file in FILES if file.folder == folder and file.family == family.name), "")
    return f"give the {what} of {family.name}{known} with --vae, or a latent with --latent"


def _too_little(size: Size, memory: MemoryModel, error: NoPlanError) -> str:
    return (
        f"too little memory for {size} pixels: {memory.shortage(error)}: close other programs, or make the picture "
        "smaller"
    )
