"""A text with an output that goes into any input, as other packs have them: ComfyUI checks nothing of it."""


class AnyType(str):
    """A type that no other differs from."""

    def __ne__(self, other):
        return False


class AnyText:
    CATEGORY = "tests"
    RETURN_TYPES = (AnyType("*"),)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("STRING", {"multiline": True})}}

    def run(self, value):
        return (value,)


NODE_CLASS_MAPPINGS = {"TestAnyText": AnyText}
