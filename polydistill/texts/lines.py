"""Lines of text files, packed with gzip or not, within bounds: no file can fill the memory.

Only line feeds end a line (U+2028 and U+0085 are characters of the text), but in a file that has none, carriage
returns do.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from polydistill.errors import PolydistillError, library_said

BLOCK_BYTES = 1 << 22
LONGEST_LINE = 1 << 24  # bytes; a longer one of plain text is cut, so a file without line endings stays readable
LONGEST_TEXT = 1_000_000  # characters; a longer one is cut too, as tokenizers need about 150 bytes for each
LONGEST_DOCUMENT = 1 << 28  # bytes of a file that is read as a whole
_MARK = b"\xef\xbb\xbf"


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield a UTF-8 file's lines, blank ones too, with their numbers from 1, without line endings.

    Raises:
        PolydistillError: The file cannot be read, is damaged, or not UTF-8.
    """
    with FileErrors(path):
        yield from enumerate((line for block in line_blocks(path) for line in block), 1)


def read_document(path: Path) -> str:
    """A UTF-8 file as one text.

    Raises:
        PolydistillError: The file cannot be read, is damaged, too large, or not UTF-8.
    """
    with FileErrors(path):
        with open_file(path) as file:
            content = file.read(LONGEST_DOCUMENT + 1)
        if len(content) > LONGEST_DOCUMENT:
            raise PolydistillError(
                f"{path} has more than {LONGEST_DOCUMENT >> 20} MiB of text.", "Split it into smaller files."
            )
        _check_start(path, content)
        mark = len(_MARK) if content.startswith(_MARK) else 0
        return "\n".join(_decode(path, content[mark:], mark, 1))


def pieces(texts: list[str]) -> list[str]:
    """Texts of at most 1,000,000 characters: a longer one is cut, at spaces if it has any."""
    if max(map(len, texts), default=0) <= LONGEST_TEXT:
        return texts
    return [piece for text in texts for piece in _cut(text)]


def _cut(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > LONGEST_TEXT:
        end = text.rfind(" ", start, start + LONGEST_TEXT) + 1 or start + LONGEST_TEXT
        yield text[start:end]
        start = end
    yield text[start:]


def unix_ends(data: bytes) -> bytes:
    """Text with the line endings of the classic Mac turned into line feeds."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def only_returns(data: bytes) -> bool:
    """Whether carriage returns alone end the lines of a text."""
    return b"\r" in data and b"\n" not in data


class FileErrors:
    """Turns what goes wrong with a file into a `PolydistillError` that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (gzip.BadGzipFile, zlib.error, EOFError)):
            raise PolydistillError(
                f"{self.path} is not a whole gzip file ({library_said(error)}).",
                "Check it with gzip -t, or fetch it again.",
            ) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise PolydistillError(
                f"{self.path} cannot be read: {error.strerror}.", "Check the file and who may read it."
            ) from error


def open_file(path: Path) -> IO[bytes]:
    """A file's bytes, unpacked if its name says that it is packed with gzip."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def line_blocks(path: Path, *, cut_long: bool = False) -> Iterator[list[str]]:
    """Yield a UTF-8 file's lines in blocks, blank ones too.

    Raises:
        PolydistillError: A line is too long and must not be cut.
    """
    line, offset, rest = 1, 0, b""
    with open_file(path) as file:
        classic = False
        while chunk := file.read(BLOCK_BYTES):
            if offset == 0 and not rest:
                _check_start(path, chunk)
                classic = only_returns(chunk)
                if chunk.startswith(_MARK):
                    chunk, offset = chunk[len(_MARK) :], len(_MARK)
            data = rest + (unix_ends(chunk) if classic else chunk)
            cut = data.rfind(b"\n") + 1
            if not cut and len(data) > LONGEST_LINE:
                if not cut_long:
                    raise too_long(path, line)
                cut = data.rfind(b" ") + 1 or _whole_characters(data)
            if not cut:
                rest = data
                continue
            block, rest = data[:cut], data[cut:]
            yield _decode(path, block, offset, line)[: -1 if block.endswith(b"\n") else None]
            line += block.count(b"\n")
            offset += len(block)
        if rest:
            yield _decode(path, rest, offset, line)


def too_long(path: Path, line: int) -> PolydistillError:
    """The error for a line that is too long."""
    return PolydistillError(
        f"{path} line {line} is longer than {LONGEST_LINE >> 20} MiB.", "Split it, or check its line endings."
    )


def _whole_characters(data: bytes) -> int:
    """Length of UTF-8 up to its last character, which may not be whole."""
    end = len(data) - 1
    while end > len(data) - 4 and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _check_start(path: Path, start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PolydistillError(f"{path} is UTF-16, not UTF-8.", "Convert it: iconv -f UTF-16 -t UTF-8 IN > OUT.")
    if start.startswith(b"\x1f\x8b"):
        raise PolydistillError(f"{path} is gzip-compressed.", "Give it a name that ends in .gz.")


def _decode(path: Path, block: bytes, offset: int, line: int) -> list[str]:
    nul = block.find(b"\0")
    if nul >= 0:
        raise PolydistillError(
            f"{path} is not text: it has a zero byte at offset {offset + nul}.",
            "Give a text file; if it is UTF-16, convert it: iconv -f UTF-16 -t UTF-8 IN > OUT.",
        )
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        at = line + block.count(b"\n", 0, error.start)
        raise PolydistillError(
            f"{path} is not UTF-8: byte 0x{block[error.start]:02X} at offset {offset + error.start}, line {at}.",
            "Convert it: iconv -f ISO-8859-1 -t UTF-8 IN > OUT (with the encoding that it has).",
        ) from error
    return text.replace("\r\n", "\n").split("\n")
