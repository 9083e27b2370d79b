"""Loads all that trainings need, by training once: forks of a process that has imported it begin at once."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
os.environ["HF_HUB_OFFLINE"] = "1"

import trainings

with tempfile.TemporaryDirectory() as folder:
    trainings.tune(trainings.prepare(Path(folder) / "data"), Path(folder) / "model", epochs=0.1)
