"""What the two encoders of RAE cost in their real sizes, with random weights: loading, memory, time for a picture.

    python -m benchmarks.rae_encode [--pictures 1 8] [--threads 2]

Each measurement in a process of its own. Own memory is anonymous, without what is mapped from the file. The last column
is how far the whole chain is from transformers' own class and the families' description, in float32. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from benchmarks.load import Memory, memory
from pid_core.rae.encoder import encode, load_encoder

SIDES = {"dinov2": 512, "siglip": 256}
TRIES = 3  # of which the fastest counts: others are at work on the machine
SHAPE = (768, 32, 32)  # of dinov2's statistics
COLUMNS = ("family", "weights", "parameters", "file, GB", "load, s", "own memory, loaded, GB", "peak, GB")


def real_class(family: str):
    """transformers' own class in the sizes of its model card, on the meta device."""
    with torch.device("meta"):
        if family == "dinov2":
            config = transformers.Dinov2WithRegistersConfig(patch_size=14, image_size=518)
            return transformers.Dinov2WithRegistersModel(config)
        sizes = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}
        config = transformers.SiglipVisionConfig(**sizes, patch_size=14, image_size=224, vision_use_head=False)
        return transformers.SiglipVisionModel(config)


def write(path: Path, family: str) -> int:
    """Random float32 weights; of dinov2 its statistics beside them. The number of parameters."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, empty in real_class(family).state_dict().items():
        value = torch.randn(empty.shape, generator=generator)
        weights[name] = 1 + 0.1 * value if "norm" in name or "lambda1" in name else 0.03 * value
    save_file(weights, path)
    if family == "dinov2":
        torch.save({"mean": torch.zeros(SHAPE), "var": torch.ones(SHAPE)}, path.with_name("stat.pt"))
    return sum(value.numel() for value in weights.values())


def described(path: Path, family: str, image: torch.Tensor) -> torch.Tensor:
    """The latent by transformers' class and the families' description, with nothing of pid_core."""
    model = real_class(family).to_empty(device="cpu").eval()
    model.load_state_dict(load_file(path))
    x = image.movedim(-1, 1)
    if family == "dinov2":
        x = F.interpolate(x, size=(448, 448), mode="bicubic")
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x, cut = (x - mean.view(3, 1, 1)) / deviation.view(3, 1, 1), 5
        model.layernorm = torch.nn.Identity()
    else:
        x, cut = F.interpolate(x, size=(224, 224), mode="bicubic", antialias=True) * 2 - 1, 0
        model.post_layernorm = torch.nn.Identity()
        model.embeddings.position_ids = torch.arange(256).expand(1, -1)
    with torch.inference_mode():
        tokens = model(x).last_hidden_state[:, cut:]
    side = int(tokens.shape[1] ** 0.5)
    z = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6).mT.unflatten(-1, (side, side))
    return z / (1 + 1e-5) ** 0.5 if family == "dinov2" else z


def timed(encoder, image: torch.Tensor) -> float:
    begun = time.perf_counter()
    encode(encoder, image)
    return time.perf_counter() - begun


def measure(path: Path, family: str, dtype: str, pictures: list[int]) -> dict:
    real_class(family)  # its import is no part of the loading
    before, watch = memory("RssAnon"), Memory()
    begun = time.perf_counter()
    encoder = load_encoder(path, dtype=getattr(torch, dtype))
    found = {"load": time.perf_counter() - begun, "own": (memory("RssAnon") - before) / 1e9, "seconds": []}
    image = torch.rand(max(pictures), SIDES[family], SIDES[family], 3, generator=torch.Generator().manual_seed(1))
    encode(encoder, image[:1])
    for count in pictures:
        found["seconds"].append(min(timed(encoder, image[:count]) for _ in range(TRIES)))
    found["peak"] = (watch.own - before) / 1e9
    latent = encode(encoder, image[:1])
    del encoder
    gc.collect()
    exact = described(path, family, image[:1])
    found["off"] = float((latent - exact).abs().max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        path, family, dtype = args.child
        print(json.dumps(measure(Path(path), family, dtype, args.pictures)))
        return
    counts = [f"{count} picture{'s' if count > 1 else ''}, s" for count in args.pictures]
    head = [*COLUMNS, *counts, "largest difference"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    with tempfile.TemporaryDirectory() as folder:
        for family in SIDES:
            path = Path(folder, f"{family}.safetensors")
            parameters = write(path, family)
            for dtype in ("float32", "bfloat16"):
                command = [sys.executable, "-m", "benchmarks.rae_encode", "--threads", str(args.threads), "--pictures"]
                command += [*map(str, args.pictures), "--child", str(path), family, dtype]
                found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
                row = [family, dtype, f"{parameters / 1e6:.1f} M", f"{path.stat().st_size / 1e9:.2f}"]
                row += [f"{found['load']:.1f}", f"{found['own']:.2f}", f"{found['peak']:.2f}"]
                row += [*(f"{seconds:.2f}" for seconds in found["seconds"]), f"{found['off']:.1e}"]
                print(f"| {' | '.join(row)} |", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
