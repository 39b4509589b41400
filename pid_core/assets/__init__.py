"""Files that ship with the pack."""

from pathlib import Path

NANO_PATH = Path(__file__).with_name("pid_nano.safetensors")  # the bundled checkpoint, family rgb, Apache-2.0
BUNDLED = "pid_nano (bundled)"  # as PiD Loader lists it
