"""Sparse differences: put on models and taken off again."""

from __future__ import annotations

from polydistill.methods.sparse.card import ADDED, TAKEN_OFF
from polydistill.methods.sparse.options import ApplyOptions, RemoveOptions
from polydistill.runs.method import Maker

APPLY = Maker(name="sparse apply", options=ApplyOptions, told=ADDED)
REMOVE = Maker(name="sparse remove", options=RemoveOptions, told=TAKEN_OFF)
