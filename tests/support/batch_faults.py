"""What befalls a batch: a driver that is killed, and kills its workers, at given results; a row that kills its worker.

As a script: `python batch_faults.py KILLS LAST ARGUMENTS`, see `main`.
"""

import errno
import multiprocessing
import os
import signal
import sys

import torch


def deadly(device):
    """In place of a bridge, opened in the worker: the row with the id "deadly" kills it while it is drawn."""
    from pid_core.batch.run_row import RowRunner

    draw = RowRunner.draw

    def kill(self, work):
        if work.job.row.id == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        draw(self, work)

    RowRunner.draw = kill


def full(device):
    """In place of a bridge, opened in the worker: there is no room on the disk."""

    def fsync(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    os.fsync = fsync


class CountingBridge:
    """A text encoder that writes down what it is asked for."""

    def __init__(self, log):
        self.log = log
        with log.open("a", encoding="utf-8") as file:
            file.write("loaded\n")

    def encode_text(self, text):
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
        return torch.full((1, 300, 24), float(len(text)))

    def free(self):
        with self.log.open("a", encoding="utf-8") as file:
            file.write("freed\n")


def main():
    """The command line, in which after so many results a worker is killed (KILLS, 3,7) or the driver (LAST, or 0).

    LAST below 0: after as many, all processes get SIGTERM, the workers first.
    """
    from pid_core.__main__ import main as command_line
    from pid_core.batch.report import Report

    kills, last, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    at = [int(number) for number in kills.split(",") if number]
    end, seen = Report.end, 0

    def end_and_kill(self, result):
        nonlocal seen
        end(self, result)
        seen += 1
        if seen == -last:
            for process in [child.pid for child in multiprocessing.active_children()] + [os.getpid()]:
                os.kill(process, signal.SIGTERM)
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)
        if seen in at:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    Report.end = end_and_kill
    return command_line(arguments)


if __name__ == "__main__":
    sys.exit(main())
