"""A small Gemma-2 with random weights and a small SentencePiece tokenizer, as CLIPLoader's type pixeldit takes them."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pid_core.captions.text import TEMPLATE

SIZES = {
    "vocab_size": 600,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
HEAD_DIM = 256  # fixed in ComfyUI
CORPUS = [TEMPLATE, "a red fox in the snow", "a lighthouse at dawn, waves", "portrait of a woman (smiling), 8k"] * 20


@functools.cache
def spiece_model() -> bytes:
    """A tokenizer of Gemma's kind: pad 0, eos 1, bos 2, no blank put in front, bytes for what it does not know."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in CORPUS for line in text.split("\n")),
        model_writer=model,
        vocab_size=SIZES["vocab_size"],
        model_type="bpe",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def processor():
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=spiece_model())


def state_dict(seed: int = 0) -> dict[str, Tensor]:
    """Names and shapes of Gemma2Model, prefix `model.`."""
    generator = torch.Generator().manual_seed(seed)
    width, inner = SIZES["hidden_size"], SIZES["intermediate_size"]
    q, kv = SIZES["num_attention_heads"] * HEAD_DIM, SIZES["num_key_value_heads"] * HEAD_DIM
    shapes = {"embed_tokens.weight": (SIZES["vocab_size"], width), "norm.weight": (width,)}
    norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    for i in range(SIZES["num_hidden_layers"]):
        layer = {
            "self_attn.q_proj": (q, width),
            "self_attn.k_proj": (kv, width),
            "self_attn.v_proj": (kv, width),
            "self_attn.o_proj": (width, q),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        } | {f"{name}_layernorm": (width,) for name in norms}
        shapes |= {f"layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    weights = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        weights[f"model.{name}"] = value / shape[-1] ** 0.5 if len(shape) > 1 else 0.1 * value
    return weights


def save_encoder(path: Path, seed: int = 0) -> Path:
    tokenizer = torch.frombuffer(bytearray(spiece_model()), dtype=torch.uint8)
    save_file(state_dict(seed) | {"spiece_model": tokenizer}, path)
    return path


def reference_ids(caption: str) -> list[int]:
    """The reference's token ids, worked out on their own: ids of template and caption, cut or padded to N + 298."""
    tokens = processor()
    length = 1 + len(tokens.encode(TEMPLATE)) + 298
    ids = [2, *tokens.encode(TEMPLATE + caption)]
    return (ids + [0] * length)[:length]


def gemma2(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Gemma-2's decoder stack in plain PyTorch: [1, T] -> last hidden state [1, T, W]. Checked once against the library
    the reference uses. No attention soft-cap: that library's SDPA has none."""
    width, heads = SIZES["hidden_size"], SIZES["num_attention_heads"]
    length = ids.shape[1]
    angles = torch.outer(torch.arange(length), 10000 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)).repeat(1, 2)
    hidden = torch.full((length, length), -torch.inf).triu(1).masked_fill(ids == 0, -torch.inf)

    def norm(x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + weights[f"model.{name}.weight"])

    def linear(x, name):
        return x @ weights[f"model.{name}.weight"].T

    def rotate(x):
        a, b = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()

    x = weights["model.embed_tokens.weight"][ids] * width**0.5
    for i in range(SIZES["num_hidden_layers"]):
        layer = f"layers.{i}."
        h = norm(x, f"{layer}input_layernorm")
        q, k, v = (linear(h, f"{layer}self_attn.{n}_proj").unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for n in "qkv")
        scores = rotate(q) @ rotate(k).expand(-1, heads, -1, -1).mT / HEAD_DIM**0.5 + hidden
        h = (scores.softmax(-1) @ v.expand(-1, heads, -1, -1)).transpose(1, 2).flatten(2)
        x = x + norm(linear(h, f"{layer}self_attn.o_proj"), f"{layer}post_attention_layernorm")
        h = norm(x, f"{layer}pre_feedforward_layernorm")
        gate = torch.nn.functional.gelu(linear(h, f"{layer}mlp.gate_proj"), approximate="tanh")
        h = linear(gate * linear(h, f"{layer}mlp.up_proj"), f"{layer}mlp.down_proj")
        x = x + norm(h, f"{layer}post_feedforward_layernorm")
    return norm(x, "norm")


def reference_caption(caption: str, seed: int = 0) -> Tensor:
    """[1, 300, W]: all states of the padded sequence, then token 0 and the last 299."""
    states = gemma2(state_dict(seed), torch.tensor([reference_ids(caption)]))
    return torch.cat([states[:, :1], states[:, -299:]], dim=1)
