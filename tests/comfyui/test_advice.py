"""What an error advises exists: every node, input and option that a message names, under the name that is shown."""

import ast
import re

import pytest

import comfy_env
from locales import our_nodes

OURS = re.compile(r"\bPiD [A-Z][A-Za-z]*(?: [A-Z][A-Za-z]*)*|[A-Z]\w+(?: [A-Z]\w+)* \(PiD\)")
# Nodes of ComfyUI's own that messages name, by the class behind them; what is shown must begin with the name.
CORE = {
    "Load CLIP": "CLIPLoader",
    "VAE Decode": "VAEDecode",
    "VAE Encode": "VAEEncode",
    "KSampler": "KSampler",
    "Conditioning (Combine)": "ConditioningCombine",
}
CLASSES = re.compile(r"\b(?:CLIPLoader|UNETLoader|VAELoader|CLIPTextEncode|VAEDecode|VAEEncode|ConditioningCombine)\b")
SNAKE = re.compile(r"\b[a-z]+(?:_[a-z0-9]+)+\b")
# Names with underscores that are none of a node's: in files, in Python, of models and environment.
OTHERS = {
    *("lq_proj", "pid_config", "lq_interval", "lq_latent", "lq_features", "latent_channels"),
    *("window_min", "window_max"),
    *("rope_ref_h", "rope_ref_w", "weight_scale", "pid_nano", "step_noise", "extra_model_paths", "diffusion_models"),
    *("gemma_2_2b_it_elm_bf16", "huggingface_hub", "flux2_klein", "zimage_turbo", "fp8_scaled"),
}
SETTING = re.compile(r"\bset ([a-z_]+) to ([a-z0-9_]+)\b")
# Written for Python and the command line, which have no nodes.
NOT_NODES = ("commands", "__main__.py", "comfy_home.py", "doctor.py", "decode.py", "convert.py")


def literal(node: ast.expr) -> str:
    """The text of a string expression, {} where a value goes."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def messages() -> dict[str, str]:
    """Everything said to a user in pid_core and nodes: place -> text. All strings of two words, but docstrings."""
    found = {}
    core = comfy_env.ROOT / "pid_core"
    files = [path for path in core.rglob("*.py") if not any(part in NOT_NODES for part in path.relative_to(core).parts)]
    for path in sorted([*files, *(comfy_env.ROOT / "nodes").glob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = literal(node) if isinstance(node, ast.expr) and id(node) not in inside | docs else ""
            if " " in text.strip():
                found[f"{path.parent.name}/{path.name}:{node.lineno}"] = text
    return found


MESSAGES = messages()


def raised() -> dict[str, str]:
    """Those that stand in a raise, or are an answer of validate_inputs: they end a run, and must say what to do."""
    return {place: text for place, text in MESSAGES.items() if ": " in text}


@pytest.fixture(scope="module")
def info(comfy) -> dict:
    return comfy.object_info()


@pytest.fixture(scope="module")
def inputs(info) -> dict[str, list]:
    """Input or output name of our nodes -> the options of those that have some."""
    found: dict[str, list] = {}
    for node in our_nodes(info).values():
        for name in node["output_name"]:
            found.setdefault(name, [])
        for group in node["input"].values():
            for name, definition in group.items():
                kind, *rest = definition if isinstance(definition, list) else [definition]
                options = kind if isinstance(kind, list) else (rest[0] if rest else {}).get("options", [])
                found.setdefault(name, []).extend(options)
    return found


def test_there_are_messages():
    assert len(MESSAGES) > 150
    assert any("PiD Loader" in text for text in MESSAGES.values())


def test_nodes_of_ours_are_named_as_they_are_shown(info):
    shown = {node["display_name"] for node in our_nodes(info).values()}
    for place, text in MESSAGES.items():
        for name in OURS.findall(text):
            # a name may be followed by another capital: "PiD Caption Load CLIP"
            assert any(name == one or name.startswith(f"{one} ") for one in shown), f"{place}: {name!r} in {text!r}"


def test_nodes_of_comfyui_are_named_as_they_are_shown(info):
    for name, kind in CORE.items():
        assert info[kind]["display_name"].startswith(name.partition(" (Prompt")[0]), kind
    for place, text in raised().items():
        assert not CLASSES.search(text), f"{place}: {text!r}"


def test_inputs_that_are_named_exist(inputs):
    for place, text in raised().items():
        for name in SNAKE.findall(re.sub(r"\{[^}]*\}|https?://\S+", "", text)):
            assert name in inputs or name in OTHERS or name in str(inputs.values()), f"{place}: {name!r} in {text!r}"


def test_options_that_are_advised_exist(inputs, info):
    advised = []
    for place, text in raised().items():
        for name, value in SETTING.findall(text):
            advised.append(name)
            options = inputs.get(name) or info["CLIPLoader"]["input"]["optional"].get(name, [[]])[0]
            assert name in inputs or options, f"{place}: {name!r} in {text!r}"
            if options:
                assert value in options, f"{place}: {name} has no {value!r}"
    assert advised
