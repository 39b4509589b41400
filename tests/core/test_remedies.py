"""What the core refuses is said in facts: no error names a node or an input, on the command line neither."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pid_core import NANO_PATH, PiDNetwork, errors
from pid_core.captions.clip import check_encoder
from pid_core.captions.text import check_states, read_caption
from pid_core.checkpoints.reading import read_checkpoint
from pid_core.commands.remedies import REMEDIES, explain
from pid_core.errors import PiDError
from pid_core.images.framing import check_decoded, plan_framing
from pid_core.latents.checks import check_latent, detect_family
from pid_core.latents.early_stop import CarriedNoise, undo_sampler_scaling
from pid_core.latents.lq_input import LatentSpec, prepare_lq
from pid_core.latents.rgb import to_image, to_rgb_latent
from support.sizes import SMALL
from support.tiny import tiny_state_dict

CORE = Path(__file__).parents[2] / "pid_core"
NODES = re.compile(
    r"\bPiD (?:RGB|[A-Z][a-z]+)\b|VAE (?:Encode|Decode)|KSampler|Load CLIP|Empty Latent|Pixel-Space VAE|Context Window"
    r"|\bconnect(?:ed)?\b|press R\b|\bnodes?\b|\blatent_format\b|\bodd_size\b|\b(?:set|leave) \w+ (?:to|on) auto"
)
# The doctor tells about ComfyUI's own loaders; a family's row holds the words of tooltips.
ABOUT_NODES = ("machine", "families.py")


def latent(channels, value=0.5):
    return torch.full((1, channels, 2, 2), value)


def warning(*args, **options):
    (found,) = prepare_lq(*args, **options).warnings
    raise found


CARRIED = CarriedNoise("flux", 0.3)
OTHER_TEXT = {"timestep": torch.zeros(1), "caption": torch.zeros(1, 2, 3)}
RAISED = {
    "no image": lambda: check_latent(torch.zeros(16, 2, 2), 16),
    "nan": lambda: check_latent(latent(16, float("nan")), 16),
    "blank": lambda: warning(latent(16, 0.0), "flux"),
    "channels": lambda: check_latent(latent(4), 12),
    "channels of a picture": lambda: check_latent(latent(12), 16),
    "foreign channels": lambda: detect_family(latent(48)),
    "channels of another family": lambda: check_latent(latent(4), 16, "sd3"),
    "unclear": lambda: detect_family(latent(16)),
    "family": lambda: prepare_lq(latent(16), "sd3", spec=LatentSpec(16, 32, "flux")),
    "family of other channels": lambda: prepare_lq(latent(4), "sdxl", spec=LatentSpec(16, 32)),
    "carried family": lambda: prepare_lq(latent(16), "sd3", carried=CARRIED),
    "carried noise": lambda: warning(latent(16), "flux", 0.3, carried=CARRIED),
    "carried noise, scaled": lambda: warning(latent(16), "flux", 0.3, carried=CARRIED, latent_noise="scale"),
    "carried level": lambda: warning(latent(16), "flux", 0.5, carried=CARRIED, latent_noise="keep"),
    "stop level": lambda: undo_sampler_scaling(latent(16), 1.0, "flux"),
    "checkpoint's family": lambda: read_checkpoint(tiny_state_dict("flux"), family="sdxl"),
    "checkpoint without latents": lambda: read_checkpoint(tiny_state_dict("pixeldit"), family="flux"),
    "checkpoint's schedule": lambda: read_checkpoint(tiny_state_dict("pixeldit"), schedule="distilled"),
    "odd": lambda: to_rgb_latent(torch.zeros(1, 3, 4, 3), "error"),
    "small": lambda: to_rgb_latent(torch.zeros(1, 1, 4, 3), "crop"),
    "nothing left": lambda: plan_framing(4, 4, "flux", target="factor", factor=1.0, fit="crop"),
    "size": lambda: check_decoded((1, 8, 8), plan_framing(16, 16, "rgb"), torch.zeros(1, 16, 16, 3)),
    "no pixels": lambda: to_image(torch.zeros(1, 4, 2, 2)),
    "pixels": lambda: to_image(torch.full((1, 3, 2, 2), float("nan"))),
    "caption": lambda: check_states(torch.full((1, 2, 3), float("nan"))),
    "caption of another width": lambda: PiDNetwork(SMALL, device="meta")(torch.zeros(1, 3, 8, 8), **OTHER_TEXT),
    "text encoder": lambda: check_encoder(SimpleNamespace(cond_stage_model=torch.nn.Linear(1, 1))),
    "caption file": lambda: read_caption(NANO_PATH),
}


def text_of(name):
    with pytest.raises(PiDError) as caught:
        RAISED[name]()
    return caught.value


@pytest.mark.parametrize("name", RAISED)
def test_a_command_line_user_reads_of_no_node(name):
    line = explain(text_of(name))
    assert not NODES.findall(line) and "\n" not in line, line
    assert line.startswith(str(text_of(name)))


def test_every_kind_of_error_is_tried():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PiDError)}
    abstract = {PiDError, errors.NonFiniteError}  # raised with a line of its own
    assert {type(text_of(name)) for name in RAISED} == kinds - abstract
    assert REMEDIES.keys() <= kinds


def test_an_error_tells_of_its_place_and_keeps_its_kind():
    error = text_of("checkpoint's family")
    assert str(error) == f"the state dict: {error.facts}" and error.place == "the state dict: "
    assert explain(error).endswith(": leave --family out")


def messages(path):
    """Every string of a module but docstrings, with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield f"{path.relative_to(CORE)}:{node.lineno}", node.value


def test_no_message_of_the_core_names_a_node():
    paths = [path for path in CORE.rglob("*.py") if not set(path.relative_to(CORE).parts) & set(ABOUT_NODES)]
    wrong = [(place, text) for path in paths for place, text in messages(path) if " " in text and NODES.search(text)]
    assert wrong == []
