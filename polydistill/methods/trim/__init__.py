"""Trimming: a model's vocabulary cut down to some languages, verified against the original."""

from __future__ import annotations

from polydistill.methods.trim.card import TOLD
from polydistill.methods.trim.options import TrimOptions
from polydistill.runs.method import Maker

METHOD = Maker(name="trim", options=TrimOptions, told=TOLD)
