"""What makes the terms of a loss compare."""

from __future__ import annotations

SCALES = NONE, FIRST, TEACHER = "none", "first", "teacher"  # see `objectives.build`
