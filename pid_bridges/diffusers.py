"""VAE by diffusers and text encoder by transformers, for machines without ComfyUI.

The networks are built from the shapes in the files: those that ComfyUI reads, and what diffusers writes itself.
Nothing is fetched.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pid_core.captions.text import CAPTION_LENGTH, PAD, caption_tokens
from pid_core.log import log
from pid_core.machine.encoders import TOKENIZER
from pid_core.model.devices import usual_dtype
from pid_core.printable import printable
from pid_core.tensor_files import read_tensors
from pid_core.windows.run import is_out_of_memory

Weights = dict[str, Tensor]
INSTALL = "pip install '.[diffusers]'"
HEAD_DIM = 256  # of Gemma-2-2b
ENCODES = ("encoder.", "quant_conv.")
TILE = 1024  # pixels a side, where the whole picture does not fit the memory


class DiffusersBridge:
    """device: where all runs. vae, clip: files."""

    def __init__(self, device: torch.device, *, vae: Path | None = None, clip: Path | None = None):
        self._device, self._paths = device, {"vae": vae, "clip": clip}
        self._lock = threading.Lock()
        self._loaded: dict[str, Any] = {}

    def encode_picture(self, image: Tensor) -> Tensor:
        """See `Bridge`. Raises ValueError in one line where the VAE is damaged, or gives no numbers."""
        with self._lock, torch.inference_mode():
            vae = self._get("vae", load_vae)
            latent = torch.cat([vae(one.movedim(-1, 1).to(self._device) * 2 - 1) for one in image.split(1)])
        if not bool(torch.isfinite(latent).all()):
            raise ValueError(f"{self._name('vae')} gave NaN or infinite values for this picture: try --device cpu")
        return latent.float().cpu().clone()

    def encode_text(self, text: str) -> Tensor:
        """See `Bridge`."""
        with self._lock, torch.inference_mode():
            states, cut = self._get("clip", load_text_encoder)(text)
        if cut:
            log.warning("the text is too long: its last %s tokens are left out", cut)
        return states.float().cpu().clone()

    def free(self) -> None:
        """See `Bridge`."""
        with self._lock:
            self._loaded.clear()
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _get(self, kind: str, load: Callable[[Path, torch.device], Any]) -> Any:
        if kind not in self._loaded:
            path = self._paths[kind]
            if path is None:
                raise ValueError(f"there is no --{kind}, which is needed here: name its file")
            try:
                self._loaded[kind] = load(path, self._device)
            except ImportError as error:
                raise ValueError(f"the diffusers bridge lacks {printable(error.name or error)}: {INSTALL}") from None
        return self._loaded[kind]

    def _name(self, kind: str) -> str:
        path = self._paths[kind]
        return printable(path.name) if path else kind


class Encoder:
    """[1, 3, H, W] in [-1, 1] -> the VAE's raw latent. norm: mean and variance of Flux.2's cells of two by two."""

    def __init__(self, vae: Any, *, video: bool = False, norm: tuple[Tensor, Tensor] | None = None):
        self.vae, self.video, self.norm = vae, video, norm

    def __call__(self, image: Tensor) -> Tensor:
        """In tiles where the whole does not fit the memory."""
        image = image[:, :, None] if self.video else image
        try:
            latent = self.vae.encode(image).latent_dist.mode()
        except Exception as error:
            if not is_out_of_memory(error) or self.vae.use_tiling:
                raise
            log.warning("the picture does not fit the memory whole: the VAE takes it in tiles")
            self.vae.enable_tiling()
            latent = self.vae.encode(image).latent_dist.mode()
        latent = latent[:, :, 0] if self.video else latent
        return latent if self.norm is None else F.batch_norm(F.pixel_unshuffle(latent, 2), *self.norm, eps=1e-4)


def load_vae(path: Path, device: torch.device) -> Encoder:
    """The half of a VAE that encodes, in float32. Raises ValueError in one line for what is none that is known here."""
    weights, _ = read_tensors(path, "VAE")
    name = printable(path.name)
    try:
        if weights.get("decoder.conv1.weight", weights.get("decoder.conv_in.weight", torch.empty(0))).ndim == 5:
            return Encoder(_fill(_video_vae(weights), name, device), video=True)
        norm = [
            weights[f"bn.{part}"].float().to(device) for part in ("running_mean", "running_var") if _has_bn(weights)
        ]
        return Encoder(_fill(_image_vae(weights), name, device), norm=(norm[0], norm[1]) if norm else None)
    except (KeyError, IndexError, StopIteration) as error:
        raise ValueError(
            f"{name} cannot be loaded; it is damaged or another kind of file ({printable(error, 120)})"
        ) from None


def _has_bn(weights: Weights) -> bool:
    return "bn.running_mean" in weights


def _image_vae(weights: Weights) -> tuple[Any, Weights]:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    weights = {name.replace("encoder.quant_conv", "quant_conv"): value for name, value in weights.items()}
    if "encoder.mid.block_1.conv1.weight" in weights:
        blocks = _count(weights, "encoder.down.{}.block.0.conv1.weight")
        weights = convert_ldm_vae_checkpoint(weights, {"down_block_types": [None] * blocks, "up_block_types": []})
    blocks = _count(weights, "encoder.down_blocks.{}.resnets.0.conv1.weight")
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            block_out_channels=tuple(
                weights[f"encoder.down_blocks.{block}.resnets.0.conv1.weight"].shape[0] for block in range(blocks)
            ),
            layers_per_block=_count(weights, "encoder.down_blocks.0.resnets.{}.conv1.weight"),
            latent_channels=weights["encoder.conv_out.weight"].shape[0] // 2,
            sample_size=TILE,
            use_quant_conv="quant_conv.weight" in weights,
            use_post_quant_conv=False,
        )
    return vae, weights


def _video_vae(weights: Weights) -> tuple[Any, Weights]:
    from diffusers import AutoencoderKLQwenImage
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    if "encoder.conv1.weight" in weights:
        weights = convert_wan_vae_to_diffusers(
            {name: value for name, value in weights.items() if not name.startswith("decoder.")}
        )
    # blocks stand in one row: the ones that halve the picture are at the end of each level but the last
    places = range(1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.down_blocks.")))
    halves = [place for place in places if f"encoder.down_blocks.{place}.resample.1.weight" in weights]
    levels = [place - 1 for place in halves] + [places[-1]]
    widths = [weights[f"encoder.down_blocks.{place}.conv2.weight"].shape[0] for place in levels]
    base = weights["encoder.conv_in.weight"].shape[0]
    with torch.device("meta"):
        vae = AutoencoderKLQwenImage(
            base_dim=base,
            z_dim=weights["encoder.conv_out.weight"].shape[0] // 2,
            dim_mult=[width // base for width in widths],
            num_res_blocks=halves[0],
            temperal_downsample=[f"encoder.down_blocks.{place}.time_conv.weight" in weights for place in halves],
        )
    return vae, weights


def _count(weights: Mapping[str, Tensor], name: str) -> int:
    return next(number for number in range(len(weights) + 1) if name.format(number) not in weights)


def _fill(made: tuple[Any, Weights], name: str, device: torch.device) -> Any:
    """Put the weights of the half that encodes into a network without any."""
    vae, weights = made
    vae.decoder, vae.post_quant_conv = nn.Identity(), nn.Identity()
    wanted = {key: value.float() for key, value in weights.items() if key.startswith(ENCODES)}
    with _in_one_line(name):
        missing, surplus = vae.load_state_dict(wanted, strict=False, assign=True)
    _check_all(missing, surplus, name)
    return vae.to(device).eval()


def _check_all(missing: Sequence[str], surplus: Sequence[str], name: str) -> None:
    if missing:
        raise ValueError(
            f"{name} lacks weights that belong to it, so it is damaged or another file: fetch it again "
            f"({len(missing)} are missing, such as {printable(missing[0], 120)})"
        )
    if surplus:
        raise ValueError(f"{name} holds weights that there is no place for, such as {printable(surplus[0], 120)}")


def load_text_encoder(path: Path, device: torch.device) -> Callable[[str], tuple[Tensor, int]]:
    """PiD's text encoder in the dtype that the device wants: text -> [1, 300, W], and how many tokens were left out."""
    from sentencepiece import SentencePieceProcessor

    name = printable(path.name)
    weights, _ = read_tensors(path, "text encoder")
    tokenizer = SentencePieceProcessor(model_proto=weights.pop(TOKENIZER).numpy().tobytes())
    weights = {key.removeprefix("model."): value for key, value in weights.items()}
    if any(value.dtype.itemsize == 1 for value in weights.values()):
        raise ValueError(f"{name} is quantised, which ComfyUI alone reads: give the file in bfloat16, or --comfyui")
    network = _gemma(weights, name, usual_dtype(device)).to(device).eval()

    def encode(text: str) -> tuple[Tensor, int]:
        ids, cut = caption_tokens(lambda part: tokenizer.encode(part, add_bos=True, add_eos=False), text)
        tokens = torch.tensor([ids], device=device)
        states = network(input_ids=tokens, attention_mask=(tokens != PAD).long(), use_cache=False).last_hidden_state
        return torch.cat([states[:, :1], states[:, 1 - CAPTION_LENGTH :]], dim=1), cut

    return encode


def _gemma(weights: Weights, name: str, dtype: torch.dtype) -> Any:
    from transformers import Gemma2Config, Gemma2Model

    try:
        vocabulary, width = weights["embed_tokens.weight"].shape
        config = Gemma2Config(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=weights["layers.0.mlp.gate_proj.weight"].shape[0],
            num_hidden_layers=_count(weights, "layers.{}.mlp.gate_proj.weight"),
            num_attention_heads=weights["layers.0.self_attn.q_proj.weight"].shape[0] // HEAD_DIM,
            num_key_value_heads=weights["layers.0.self_attn.k_proj.weight"].shape[0] // HEAD_DIM,
            head_dim=HEAD_DIM,
            attn_logit_softcapping=None,  # PiD was trained on states without it
            attn_implementation="eager",
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{name} is not Gemma-2-2b as PiD takes it ({printable(error, 120)})") from None
    with _quiet(), _in_one_line(name):
        network, found = Gemma2Model.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
        )
    _check_all(sorted(found["missing_keys"]), sorted(found["unexpected_keys"]), name)
    return network


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bar and no report of transformers' own."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        shown = printable((str(error).strip().splitlines() or [""])[-1].strip(), 200)
        raise ValueError(f"{name} cannot be loaded; it is damaged or another kind of file ({shown})") from None
