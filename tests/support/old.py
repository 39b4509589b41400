"""What packages of the oldest versions cannot do, for tests that would only fail over that (`make test-oldest`)."""

from importlib.metadata import PackageNotFoundError, version

import pytest

NO_CARD = "wants an NVIDIA card even for tensors without values"


def skip_before(package: str, wanted: tuple[int, ...], lacks: str) -> None:
    """Skip the test, or the file, where a package is older than wanted. lacks: what such a one cannot do."""
    try:
        found = version(package)
    except PackageNotFoundError:  # whoever needs it says so
        return
    if tuple(int(part) for part in found.split("+")[0].split(".")[: len(wanted)]) < wanted:
        pytest.skip(f"NOT TESTED: {package} {found} {lacks}", allow_module_level=True)
