"""How many cases the fault tests try: few in CI, `make test-faults FAULTS=20` for twenty times as many."""

from __future__ import annotations

import os


def cases(few: int) -> int:
    """`few` times what the environment variable FAULTS says."""
    return few * max(1, int(os.environ.get("FAULTS", "1")))
