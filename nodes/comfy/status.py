"""What a node says of a decode: size, windows, memory, seconds; what only some want to know comes last."""

from __future__ import annotations

from dataclasses import dataclass

from ...pid_core.windows.plan import WindowPlan


@dataclass(frozen=True)
class Status:
    """A plan in words. memory: bytes above the weights. expected: how long it will take, where that is known.

    warnings: lines of their own. details: what goes behind "details:".
    """

    plan: WindowPlan
    size: tuple[int, int]
    memory: float
    images: int = 1
    expected: str | None = None
    warnings: tuple[str, ...] = ()
    details: tuple[str, ...] = ()

    def lines(self, seconds: str | None = None, *details: str) -> list[str]:
        """One short line first. seconds: how long it takes or took. details: more of them, to come first."""
        details = (*details, *self.details)
        return [self._first(seconds), *self.warnings, *([f"details: {', '.join(details)}"] if details else [])]

    def _first(self, seconds: str | None) -> str:
        height, width = self.size
        text = f"{width} x {height}"
        if self.images > 1:
            text = f"{self.images} pictures of {text}"
        if self.plan.count == 1:
            text += " in one frame"
        else:
            text += f" in {self.plan.count} windows of {self.plan.size[1]} x {self.plan.size[0]}"
        return ", ".join([text, gigabytes(self.memory), *([seconds] if seconds else [])])


def gigabytes(count: float) -> str:
    """Such as "about 0.4 GB"."""
    return f"about {count / 1e9:.1f} GB" if count >= 5e7 else "less than 0.1 GB"
