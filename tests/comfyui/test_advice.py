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
    "lq_proj", "pid_config", "lq_interval", "lq_latent", "lq_features", "latent_channels",
    "window_min", "window_max",
    "rope_ref_h", "rope_ref_w", "weight_scale", "pid_nano", "step_noise", "extra_model_paths", "diffusion_models",
    "gemma_2_2b_it_elm_bf16", "huggingface_hub", "flux2_klein", "zimage_turbo", "fp8_scaled", "dpmpp_2m",
    "pid_core", "encode_lq", "causal_window_fix", "custom_nodes", "tensor_v", "picture_size",
    "latent_image", "base_path", "rae_dinov2_stat",
}  # fmt: skip
PLACES = re.compile(r"\{[^}]*\}|https?://\S+")
SETTING = re.compile(r"\bset (?!it\b)([a-z_]+) to (?!the\b)([a-z0-9_]+)\b")
HELP = ("tooltip", "description")
# Written for Python and the command line, which have no nodes.
NOT_NODES = (
    "__init__.py",
    "inventory.py",
    "commands",
    "__main__.py",
    "comfy_home.py",
    "report.py",
    "decode.py",
    "convert.py",
)


def literal(node: ast.expr) -> str:
    """The text of a string expression, {} where a value goes."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def strings() -> list[tuple[str, str, bool]]:
    """Everything said to a user in pid_core and nodes: place, text, whether it is a help text of a node.

    All strings of two words but docstrings.
    """
    found = []
    core = comfy_env.ROOT / "pid_core"
    files = [path for path in core.rglob("*.py") if not any(part in NOT_NODES for part in path.relative_to(core).parts)]
    for path in sorted([*files, *(comfy_env.ROOT / "nodes").rglob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        helps = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg in HELP}
        for node in ast.walk(tree):
            text = literal(node) if isinstance(node, ast.expr) and id(node) not in parts | docs else ""
            if " " in text.strip():
                found.append((f"{path.parent.name}/{path.name}:{node.lineno}", text, id(node) in helps))
    return found


STRINGS = strings()
# Errors and notes; those of two parts, what is wrong and what to do, are held to every name in them.
MESSAGES = [(place, text) for place, text, is_help in STRINGS if not is_help]


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
    assert sum("PiD Loader" in text for _, text in MESSAGES) > 5


def test_nodes_of_ours_are_named_as_they_are_shown(info):
    shown = [node["display_name"] for node in our_nodes(info).values()]
    # a name may have another capital beside it: "For Context Window (PiD)"
    known = [one for name in shown for one in (f" {name} ",)]
    found = [(place, name) for place, text, _ in STRINGS for name in OURS.findall(text)]
    assert [(place, name) for place, name in found if not any(one in f" {name} " for one in known)] == []
    assert len(found) > 100


def test_nodes_of_comfyui_are_named_as_they_are_shown(info):
    for name, kind in CORE.items():
        assert info[kind]["display_name"].startswith(name), kind
    assert [(place, text) for place, text in MESSAGES if CLASSES.search(text)] == []


def test_inputs_that_are_named_exist(inputs):
    known = OTHERS | inputs.keys() | {str(option) for options in inputs.values() for option in options}
    found = [(place, name) for place, text in MESSAGES for name in SNAKE.findall(PLACES.sub("", text))]
    assert [(place, name) for place, name in found if name not in known] == []
    assert ("shared/guide.py", "colour_hold") in [(place.partition(":")[0], name) for place, name in found]


def test_options_that_are_advised_exist(inputs, info):
    core = {name: entry[0] for name, entry in info["CLIPLoader"]["input"]["optional"].items()}
    found = [(place, *pair) for place, text in MESSAGES for pair in SETTING.findall(text)]
    wrong = []
    for place, name, value in found:
        options = inputs.get(name) or core.get(name) or []
        if (name not in inputs and name not in core) or (options and value not in options):
            wrong.append((place, name, value))
    assert wrong == []
    assert len(found) > 3
