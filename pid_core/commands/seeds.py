"""Seeds as commands take them."""

SEEDS = 2**64


def check_seed(seed: int) -> None:
    """Raise ValueError for a seed that there is not."""
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed is {seed}, but must be from 0 to 2^64 - 1")
