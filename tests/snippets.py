"""Snippets that users are shown, run as they are printed: of cards, of the README and of docs/."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Block(NamedTuple):
    """A block of code on a page.

    Attributes:
        page: The page's file.
        line: Where it begins.
        kind: `python`, `toml`, ..., empty for a console.
        text: What stands in it.
    """

    page: str
    line: int
    kind: str
    text: str

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of every command line of polydistill in it, without redirections and comments."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.strip().startswith("polydistill "):
                lexer = shlex.shlex(line, posix=True, punctuation_chars="<>|")
                lexer.whitespace_split, lexer.commenters = True, "#"
                words = list(lexer)
                end = next((i for i, word in enumerate(words) if set(word) <= set("<>|")), len(words))
                yield words[1:end]


def blocks(page: Path) -> list[Block]:
    """Every block of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(page.name, text.count("\n", 0, m.start()) + 2, m[1], m[2]) for m in found]


def snippet_of(folder: Path) -> str:
    """The snippet in a folder's card, with the folder in the place of the name."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"## Use\n\n```python\n(.*?)\n```", card, re.DOTALL)
    assert code is not None and f'"{folder.name}"' in code[1]
    return code[1].replace(f'"{folder.name}"', repr(str(folder)))


def printed(code: str) -> str:
    """What Python prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    return out.getvalue()


def run_snippet(folder: Path) -> str:
    """What the snippet in a folder's card prints."""
    return printed(snippet_of(folder))


def session_of(folder: Path, inputs: tuple[str, ...] = ("input_ids", "attention_mask")) -> Any:
    """A stand-in for onnxruntime's InferenceSession, which computes a folder's model in torch.

    Args:
        folder: Of the model.
        inputs: What a graph of it would take.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()

    class Session:
        def __init__(self, path: str) -> None:
            assert Path(path).is_file() and folder.resolve() in Path(path).resolve().parents

        def get_inputs(self) -> list[Any]:
            return [type("Node", (), {"name": name}) for name in inputs]

        def run(self, outputs: list[str] | None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            assert set(feed) == set(inputs)
            with torch.no_grad():
                found = model(**{name: torch.from_numpy(array) for name, array in feed.items()})
            return [found[i].numpy() for i in range(2 if "start_logits" in found else 1)]

    return Session
