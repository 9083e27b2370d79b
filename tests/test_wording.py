from __future__ import annotations

import pytest

from polydistill.wording import counted


@pytest.mark.parametrize(
    ("n", "expected"), [(0, "0 files"), (1, "1 file"), (1.0, "1 file"), (2, "2 files"), (12345, "12,345 files")]
)
def test_a_number_takes_the_plural_that_it_needs(n: float, expected: str) -> None:
    assert counted(n, "file") == expected
