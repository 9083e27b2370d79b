"""Damaged and hostile versions of the files of a model folder, by a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

DEEP = "DEEP"  # stands for 10,000 lists in each other, which Python's own writer cannot write
JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    255,
    2**31,
    2**32 - 1,
    2**53,
    2**63,
    10**30,
    1.5,
    -1e300,
    1e308,
    "",
    "x",
    "▁",
    "\0",
    "12",
    "../x",
    "a" * 5_000,
    "Sequence",
    "<unk>",
    [],
    {},
    [[]],
    [None],
    [1, 2],
    ["a", "b"],
    {"a": 1},
    {"type": "x"},
    {"content": 3},
    [[[[[[[[1]]]]]]]],
    DEEP,
    {"Regex": "("},
    {"Regex": "(a+)+c"},
    {"Regex": ""},
    {"String": ""},
)
Path = list[Any]


def mutate_json(raw: bytes, rng: random.Random) -> bytes:
    """Mostly well-formed JSON with other values; sometimes bytes that are none."""
    if rng.random() < 0.15:
        return mutate_bytes(raw, rng)
    data = json.loads(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _mutate_tree(data, rng)
    text = json.dumps(data, ensure_ascii=rng.random() < 0.5).replace(f'"{DEEP}"', "[" * 10_000 + "]" * 10_000)
    if rng.random() < 0.1:
        text = _mutate_text(text, rng)
    return text.encode("utf-8", "surrogatepass")


def mutate_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, repeated, in another encoding."""
    place, length = rng.randrange(len(raw) + 1), rng.randrange(1, 200)

    def flipped() -> bytes:
        changed = bytearray(raw)
        for _ in range(rng.choice((1, 2, 8, 64))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return rng.choice(
        (
            lambda: raw[:place],
            lambda: raw[place:],
            flipped,
            flipped,
            lambda: raw[:place] + raw[place + length :],
            lambda: raw[:place] + rng.randbytes(length) + raw[place:],
            lambda: raw[:place] + bytes(length) + raw[place + length :],
            lambda: raw[:place] + raw[place : place + length] * 2 + raw[place + length :],
            lambda: raw + raw,
            lambda: b"\xef\xbb\xbf" + raw,
            lambda: raw.decode("utf-8", "replace").encode("utf-16"),
            lambda: b"",
        )
    )()


def _mutate_text(text: str, rng: random.Random) -> str:
    """What a reader of JSON must not take: other numbers, keys twice."""
    numbers = [i for i, c in enumerate(text) if c.isdigit() and not text[i - 1].isalnum()]
    if numbers and rng.random() < 0.7:
        place = rng.choice(numbers)
        end = next((i for i in range(place, len(text)) if not text[i].isalnum()), len(text))
        number = rng.choice(("NaN", "Infinity", "-Infinity", "1e999", "9" * 5_000, "-0", "0x1", "01", "1_0"))
        return text[:place] + number + text[end:]
    commas = [i for i, c in enumerate(text) if c == ","]
    place = rng.choice(commas) if commas else 0
    return text[:place] + rng.choice((",,", ', "a": 1', ', "id": 0', "")) + text[place:]


def _mutate_tree(data: Any, rng: random.Random) -> Any:
    """One value changed, wherever it stands."""
    data = copy.deepcopy(data)
    path: Path = []
    here = data
    while isinstance(here, dict | list) and here and rng.random() < 0.85:
        key = rng.choice(list(here)) if isinstance(here, dict) else rng.randrange(len(here))
        path.append(key)
        here = here[key]
    if not path:
        return rng.choice(JUNK) if rng.random() < 0.3 else data
    owner = data
    for key in path[:-1]:
        owner = owner[key]
    rng.choice(_CHANGES)(owner, path[-1], rng)
    return data


def _replace(owner: Any, key: Any, rng: random.Random) -> None:
    owner[key] = copy.deepcopy(rng.choice(JUNK))


def _delete(owner: Any, key: Any, rng: random.Random) -> None:
    del owner[key]


def _nudge(owner: Any, key: Any, rng: random.Random) -> None:
    value = owner[key]
    if isinstance(value, bool) or value is None:
        owner[key] = not value
    elif isinstance(value, int | float):
        owner[key] = rng.choice((value + 1, value - 1, -value, value * 10**9, float(value), str(value)))
    elif isinstance(value, str):
        owner[key] = rng.choice((value + "x", value[:-1], value * 2, value.upper(), [value], " " + value))
    elif isinstance(value, list):
        owner[key] = rng.choice((value[:-1], value * 2, value[::-1], [], dict(enumerate(value))))
    else:
        owner[key] = rng.choice(({}, list(value), list(value.values()), [value]))


def _swap(owner: Any, key: Any, rng: random.Random) -> None:
    other = rng.choice(list(owner)) if isinstance(owner, dict) else rng.randrange(len(owner))
    owner[key], owner[other] = owner[other], owner[key]


def _copy(owner: Any, key: Any, rng: random.Random) -> None:
    other = rng.choice(list(owner)) if isinstance(owner, dict) else rng.randrange(len(owner))
    owner[key] = copy.deepcopy(owner[other])


def _again(owner: Any, key: Any, rng: random.Random) -> None:
    if isinstance(owner, list):
        owner.insert(rng.randrange(len(owner) + 1), copy.deepcopy(owner[key]))
    else:
        owner[f"{key}{rng.choice('x_2')}"] = copy.deepcopy(owner[key])


def _rename(owner: Any, key: Any, rng: random.Random) -> None:
    if isinstance(owner, dict):
        owner[rng.choice((f"{key}s", str(key)[:-1], "type", ""))] = owner.pop(key)
    else:
        owner.append(owner.pop(key))


_CHANGES: tuple[Callable[[Any, Any, random.Random], None], ...] = (
    _replace,
    _replace,
    _replace,
    _delete,
    _nudge,
    _nudge,
    _swap,
    _copy,
    _again,
    _rename,
)


def mutate_sentencepiece(raw: bytes, rng: random.Random) -> bytes:
    """A SentencePiece model with other pieces and settings, or bytes that are none."""
    from sentencepiece import sentencepiece_model_pb2

    if rng.random() < 0.4:
        return mutate_bytes(raw, rng)
    proto = sentencepiece_model_pb2.ModelProto.FromString(raw)
    for _ in range(rng.choice((1, 1, 2))):
        if not proto.pieces:
            break
        piece, other = rng.choice(proto.pieces), rng.choice(proto.pieces)
        charsmap = bytearray(proto.normalizer_spec.precompiled_charsmap or b"x")
        charsmap[rng.randrange(min(len(charsmap), rng.choice((8, 4_096, len(charsmap)))))] ^= 1 << rng.randrange(8)
        kind = rng.randrange(12)
        if kind == 0:
            piece.piece = rng.choice((other.piece, "", "a" * 5_000, "x", "\0"))
        elif kind == 1:
            piece.score = rng.choice((float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 5.0))
        elif kind == 2:
            piece.type = rng.choice((1, 2, 3, 4, 5, 6))
        elif kind == 3:
            del proto.pieces[rng.randrange(len(proto.pieces)) :]
        elif kind == 4:
            proto.pieces.add().CopyFrom(other)
        elif kind == 5:
            proto.trainer_spec.vocab_size = rng.choice((0, -1, 2**31 - 1, len(proto.pieces) + 1))
        elif kind == 6:
            proto.ClearField(rng.choice(("trainer_spec", "normalizer_spec", "pieces")))
        elif kind == 7:
            proto.trainer_spec.model_type = rng.choice((1, 2, 3, 4))
        elif kind == 8:
            setattr(
                proto.trainer_spec, rng.choice(("unk_id", "bos_id", "eos_id", "pad_id")), rng.choice((-1, 7, 2**30))
            )
        elif kind == 9:
            proto.normalizer_spec.precompiled_charsmap = bytes(charsmap)
        elif kind == 10:
            proto.normalizer_spec.precompiled_charsmap = bytes(charsmap[: rng.randrange(len(charsmap))])
        else:
            proto.trainer_spec.byte_fallback = True
    return proto.SerializePartialToString()


def mutate_safetensors(raw: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, of the length that it says or of another one; or bytes that are none."""
    if rng.random() < 0.2:
        return mutate_bytes(raw, rng)
    length = int.from_bytes(raw[:8], "little")
    header = mutate_json(raw[8 : 8 + length].rstrip(), rng)
    said = len(header) if rng.random() < 0.85 else rng.choice((0, 1, 10**8, 2**63, len(header) + 1, len(header) - 1))
    return max(0, said).to_bytes(8, "little") + header + raw[8 + length :]
