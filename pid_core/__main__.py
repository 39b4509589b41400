"""The command line: `python path/to/ComfyUI-PiDKit COMMAND ...`, or `python -m pid_core` in the pack's folder."""

from __future__ import annotations

import argparse
import io
import signal
import sys
from importlib import import_module

from .commands import COMMANDS
from .commands.remedies import explain
from .hub.catalogue import COMMAND
from .printable import printable

_ABOUT = "PiD from the command line, without ComfyUI. IMAGE -o OUT.png alone is short for the command upscale."
LONGEST_ERROR = 2000  # characters


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. Every error is one line on stderr."""
    _print_anything()
    try:
        args = _arguments(sys.argv[1:] if argv is None else argv)  # imports PyTorch, long enough for Ctrl+C
        return args.run(args)
    except KeyboardInterrupt:
        print("\npid_core: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError) as error:
        return _failed(explain(error))
    except RuntimeError as error:
        from .windows.run import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return _failed(f"out of memory: close other programs, or make the picture smaller ({error})")


def _failed(what: object) -> int:
    print(f"pid_core: {printable(what, LONGEST_ERROR)}", file=sys.stderr)
    return 1


def _print_anything() -> None:
    # a name or an arrow that the terminal's code page lacks must not fail a run that is done
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=_ABOUT)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    if argv and argv[0] not in (*COMMANDS, "-h", "--help"):
        argv = ["upscale", *argv]
    for name in argv[:1] if argv and argv[0] in COMMANDS else COMMANDS:
        module = import_module(f".commands.{name}", __package__)
        what = module.ABOUT.splitlines()[0]
        command = commands.add_parser(name, help=what, description=module.ABOUT)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
