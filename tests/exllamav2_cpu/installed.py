"""Whether the real package is here: `make test TORCH=` leaves it out."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def require_exllamav2() -> None:
    """Skip the test where torch or exllamav2 is not installed."""
    for name in ("torch", "exllamav2"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed; `make install-exllamav2` does it")
