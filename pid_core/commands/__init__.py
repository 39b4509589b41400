"""The subcommands of `python -m pid_core`: one module each, and one entry in COMMANDS.

A module's docstring is its help; it has add_arguments(parser) and run(args) -> exit code.
"""

from . import convert, doctor, fetch, upscale

COMMANDS = {"upscale": upscale, "fetch": fetch, "convert": convert, "doctor": doctor}
