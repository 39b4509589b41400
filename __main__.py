"""The command line by path: `python path/to/ComfyUI-PiDKit doctor`, as `python -m pid_core doctor` in this folder.

It also starts in a Python that ignores the working folder, such as that of ComfyUI's portable build for Windows.
"""

import sys


def main() -> int:
    try:
        from pid_core.__main__ import main as command_line

        return command_line()
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "pid_core":
            raise
        print(
            f"pid_core: this Python has no {error.name}; run it with the Python that ComfyUI runs in, "
            f"not {sys.executable}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:  # torch takes seconds to import
        print("pid_core: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
