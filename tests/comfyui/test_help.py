"""Every node explains itself: tooltips on all inputs and outputs, and a help page."""


def test_every_input_and_output_has_a_tooltip(comfy):
    ours = {k: v for k, v in comfy.object_info().items() if k.startswith("PiDKit")}
    assert ours
    for name, node in ours.items():
        assert node["category"] == "PiD" and not node["display_name"].startswith("PiDKit")
        for kind in ("required", "optional"):
            for key, entry in node["input"].get(kind, {}).items():
                assert entry[1].get("tooltip"), f"{name}.{key}"
        assert len(node["output_tooltips"]) == len(node["output"])
        assert all(node["output_tooltips"]), name


def test_every_node_has_a_help_page(comfy, root):
    for name in (k for k in comfy.object_info() if k.startswith("PiDKit")):
        page = (root / "js" / "docs" / f"{name}.md").read_text()
        assert page.startswith("# ")


def test_the_bundled_model_is_listed_first(comfy):
    options = comfy.object_info("PiDKitLoader")["input"]["required"]["model_name"]
    names = options[0] if isinstance(options[0], list) else options[1]["options"]
    assert names[0] == "pid_nano (bundled)"
