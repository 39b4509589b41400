"""The subcommands of the command line: one module each, and one entry in COMMANDS.

A module has ABOUT (its help), add_arguments(parser) and run(args) -> exit code.
"""

from . import batch, convert, doctor, fetch, upscale

COMMANDS = {"upscale": upscale, "batch": batch, "fetch": fetch, "convert": convert, "doctor": doctor}
