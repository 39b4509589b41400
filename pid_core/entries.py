"""JSON that files carry beside their tensors."""

from __future__ import annotations

import json

LARGEST = 8_000_000  # bytes of one text
MOST_TENSORS = 10_000  # in a file: PiD has about 1,000, quantised three times as many


def read_object(text: str | bytes, what: str) -> dict:
    """The JSON object in a text. Raises ValueError in one line, however the text is made.

    what: names the text in the message, such as "its entry comfy_quant".
    """
    try:
        if len(text) > LARGEST:
            raise ValueError(f"it has {len(text):,} characters")
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
    except RecursionError:
        raise ValueError(f"{what} cannot be read: it is nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what} cannot be read: {str(error)[:80]}") from None
    return found
