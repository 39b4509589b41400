"""The subcommands of the command line: one module each, of the names in COMMANDS.

A module has ABOUT (its help), add_arguments(parser) and run(args) -> exit code. It is imported when it is asked for.
"""

COMMANDS = ("upscale", "batch", "fetch", "convert", "doctor", "bench")
