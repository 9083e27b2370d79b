"""Schemes of entity tags: IOB1, IO, BIOES, BILOU and their like, converted to IOB2.

In IOB2 an entity begins with B- and continues with I-. In IOB1 it begins with I-, and with B- only where it follows
another one of its type (Ramshaw and Marcus 1995). IO has no B- at all, or bare types, so that neighbours of one type
are one entity. The others mark its end (E-, L-) and entities of one word (S-, U-, W-) as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from polydistill.errors import PolydistillError
from polydistill.labelled.rows import Row

IOB2, IOB1, IO = "IOB2", "IOB1", "IO"
# The schemes that mark ends -> their prefixes.
MARKING_ENDS = {"BIOES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
SCHEMES = (IOB2, IOB1, IO, *MARKING_ENDS)
_PREFIXES = frozenset("BIESLUMW")
_WITHIN, _SINGLE, _CLOSING = frozenset("IMEL"), frozenset("SUW"), frozenset("ELSUW")
_LONG_NAMES = {"PERSON": "PER", "PERS": "PER", "ORGANIZATION": "ORG", "ORGANISATION": "ORG", "LOCATION": "LOC"}


def parts(tag: str) -> tuple[str, str]:
    """(prefix, type) of a tag: `B-PER` is ("B", "PER"), a bare `PER` is ("", "PER"), `O` is ("O", "")."""
    if tag == "O":
        return "O", ""
    return (tag[0], tag[2:]) if tag[1:2] == "-" and tag[0] in _PREFIXES and tag[2:] else ("", tag)


def known_type(kind: str, types: Iterable[str]) -> str | None:
    """A task's name of a type, in any case and also for PERSON instead of PER; None if it has no such type."""
    types = tuple(types)
    return kind if kind in types else {_short(name): name for name in types}.get(_short(kind))


def _short(kind: str) -> str:
    return _LONG_NAMES.get(kind.upper(), kind.upper())


def _refuse_typeless(row: Row, word: int, tag: str) -> NoReturn:
    raise PolydistillError(f"{row.where(word)}: the tag {tag} has no entity type.", "Add the type, as in B-PER.")


# --- which scheme


def recognise(rows: Sequence[Row], types: Collection[str], *, mend: bool = False) -> str:
    """The scheme of tagged sentences, the same for all of them.

    Args:
        rows: All sentences of a file or data set; each has `tags`.
        types: The possible entity types; a bare tag that is none of them tells nothing here.
        mend: Whether I- tags that begin an entity count as faults of IOB2 if no other scheme fits.

    Raises:
        PolydistillError: No scheme allows all of the tags; the message names the first that does not fit.
    """
    first: dict[str, tuple[Row, int]] = {}
    for row, word, prefix, kind in _tagged(rows):
        if not prefix and kind in _PREFIXES:
            _refuse_typeless(row, word, kind)
        if prefix or known_type(kind, types):
            first.setdefault(prefix, (row, word))
    used = set(first)
    if "" in used and len(used) > 1:
        _refuse_mixture(first, "", next(prefix for prefix in first if prefix))
    if used <= {"B", "I"}:
        return _of_two_prefixes(rows, mend)
    if used == {""}:
        return IO
    for scheme, prefixes in MARKING_ENDS.items():
        if used <= set(prefixes):
            _check_ends(rows, scheme)
            return scheme
    likeliest = max(MARKING_ENDS.values(), key=lambda prefixes: len(used & set(prefixes)))
    _refuse_mixture(first, next(p for p in first if p not in likeliest), next(p for p in first if p in likeliest))


def _tagged(rows: Iterable[Row]) -> Iterator[tuple[Row, int, str, str]]:
    """(sentence, word, prefix, type) of each tag but O."""
    for row in rows:
        for word, tag in enumerate(row.values["tags"]):
            if tag != "O":
                yield row, word, *parts(tag)


def _refuse_mixture(first: dict[str, tuple[Row, int]], one: str, other: str) -> NoReturn:
    (row, word), (there, at) = first[one], first[other]
    raise PolydistillError(
        f"{row.where(word)}: the tag {row.values['tags'][word]} and {there.values['tags'][at]} "
        f"({there.where(at)}) belong to different schemes.",
        "Write all tags in one scheme: B-TYPE begins an entity, I-TYPE continues it, and O is outside.",
    )


def _of_two_prefixes(rows: Sequence[Row], mend: bool) -> str:
    """IOB2, or else IOB1 or IO if every I- and B- follows their rules."""
    lone: tuple[Row, int, str] | None = None  # an I- that continues nothing, which IOB2 does not have
    early: tuple[Row, int] | None = None  # a B- that does not follow its own type, which IOB1 does not have
    begins = False
    for row in rows:
        before = ""
        for word, tag in enumerate(row.values["tags"]):
            prefix, kind = parts(tag)
            begins = begins or prefix == "B"
            if prefix == "I" and kind != before:
                lone = lone or (row, word, row.values["tags"][word - 1] if word else "O")
            if prefix == "B" and kind != before:
                early = early or (row, word)
            before = kind
    if lone is None:
        return IOB2
    if not begins:
        return IO
    if early is None:
        return IOB1
    if mend:
        return IOB2
    row, word, previous = lone
    tag, (there, at) = row.values["tags"][word], early
    raise PolydistillError(
        f"{row.where(word)}: the tag {tag} follows {previous}, which IOB2 does not allow; nor does IOB1 allow the "
        f"{there.values['tags'][at]} of {there.where(at)}.",
        f"Let the entity begin with B-{tag[2:]}.",
    )


def _check_ends(rows: Iterable[Row], scheme: str) -> None:
    """Refuses an entity without a beginning or an end."""
    for row in rows:
        open_type, before = "", "O"
        for word, tag in enumerate(row.values["tags"]):
            prefix, kind = parts(tag)
            within = prefix in _WITHIN
            if (open_type and not (within and kind == open_type)) or (within and not open_type):
                _refuse_order(row, word, f"the tag {tag} follows {before}", scheme)
            open_type, before = (kind if prefix in ("B", "I", "M") else ""), tag
        if open_type:
            _refuse_order(row, len(row.values["tags"]) - 1, f"the sentence ends with {before}", scheme)


def _refuse_order(row: Row, word: int, what: str, scheme: str) -> NoReturn:
    begin, _, end, single = tuple(MARKING_ENDS[scheme])
    raise PolydistillError(
        f"{row.where(word)}: {what}, which {scheme} does not allow.",
        f"There an entity has {begin}- first and {end}- last, a single word {single}-; or write IOB2, B- and I- alone.",
    )


def to_iob2(tags: Iterable[str], scheme: str) -> list[str]:
    """The tags of a sentence in IOB2; where they break the rules of their scheme, as `conlleval` reads them.

    Args:
        tags: One per word.
        scheme: One of `SCHEMES`.
    """
    if scheme == IOB2:
        return list(tags)
    found, last, before = [], "O", ""
    for tag in tags:
        prefix, kind = parts(tag)
        new = scheme in (IOB1, IO) if kind != before else last in _CLOSING
        opens = new or prefix == "B" or prefix in _SINGLE
        found.append("O" if prefix == "O" else f"{'B' if opens else 'I'}-{kind}")
        last, before = prefix, kind
    return found


# --- the tags of a model


@dataclass(frozen=True)
class ModelTags:
    """What the outputs of a tagger mean.

    Args:
        scheme: One of `SCHEMES`.
        tags: (L,) the model's tag of each output, with the task's names of types; O for types that are not scored.
        labels: (L,) the same in IOB2, as far as a single tag determines it: an I- of IOB1 and IO stays as it is, though
            it may begin an entity.
    """

    scheme: str
    tags: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def by_context(self) -> bool:
        """Whether the meaning of a tag depends on the word before."""
        return self.scheme in (IOB1, IO)


def model_tags(
    names: Sequence[str], labels: Sequence[str], not_scored: Collection[str], model: object, *, own: bool = False
) -> ModelTags:
    """Reads the names of a tagger's outputs.

    Args:
        names: (L,) as its configuration has them.
        labels: The task's, in IOB2.
        not_scored: Types of entities that count as O.
        model: What messages call it.
        own: Whether the labels are those of the user's data, which the model need not share.

    Raises:
        PolydistillError: An output is not one of the task's labels, the model cannot predict one of its types, or its
            labels follow no scheme.
    """
    types = tuple(dict.fromkeys(parts(label)[1] for label in labels if label != "O"))
    found = []
    for name in names:
        tag = _spelt(name, (*types, *not_scored), own)
        if tag is None:
            raise PolydistillError(
                f"{model} has the label {name}, which the task does not know ({', '.join(labels)}).",
                "Choose a model or a task with the same labels, or list it under not_scored in the task's file.",
            )
        found.append(tag)
    scheme = _model_scheme(found, model)
    tags = tuple("O" if parts(tag)[1] in not_scored else tag for tag in found)
    predicts = {parts(tag)[1] or "O" for tag in tags}
    if not own and (missing := [kind for kind in ("O", *types) if kind not in {*predicts, *not_scored}]):
        raise PolydistillError(
            f"{model} cannot predict {', '.join(missing)}, which the task scores.",
            "Choose a model that was tuned with these labels.",
        )
    return ModelTags(scheme, tags, tuple(to_iob2([tag], scheme)[0] if scheme in MARKING_ENDS else tag for tag in tags))


def _spelt(name: str, types: Sequence[str], own: bool) -> str | None:
    """A label with the task's name of its type; None if the task has no such type, and no others are allowed."""
    if name.upper() == "O":
        return "O"
    if bare := known_type(name, types):
        return bare
    prefix, kind = parts(name[:1].upper() + name[1:])
    known = known_type(kind, types) if prefix else None
    if own:
        return f"{prefix}-{known or kind}" if prefix else name
    return f"{prefix}-{known}" if known else None


def taught_labels(names: Sequence[str], labels: Sequence[str], not_scored: Collection[str], model: object) -> ModelTags:
    """The same for a teacher, each of whose outputs has to stand for one of the task's labels.

    Raises:
        PolydistillError: What one of its tags means depends on the word before it, or it lacks one of the labels.
    """
    found = model_tags(names, labels, not_scored, model)
    if found.by_context:
        begins = next(tag for tag in found.tags if parts(tag)[0] in ("", "I"))
        raise PolydistillError(
            f"{model} tags in {found.scheme}: whether its {begins} begins an entity depends on the word before, so it "
            "cannot teach the tags B- and I-.",
            "Tune it with `polydistill finetune` first, or choose a teacher with B- and I- tags of every type.",
        )
    scored = [label for label in labels if parts(label)[1] not in not_scored]
    if missing := [label for label in scored if label not in found.labels]:
        raise PolydistillError(
            f"{model} cannot predict {', '.join(missing)}, which the task scores.",
            "Choose a model that was tuned with these labels.",
        )
    return found


def _model_scheme(tags: Sequence[str], model: object) -> str:
    """The scheme of a set of labels.

    Raises:
        PolydistillError: No scheme has them all.
    """
    used = {prefix: {parts(tag)[1] for tag in tags if parts(tag)[0] == prefix} for prefix in ("", *_PREFIXES)}
    prefixes = {prefix for prefix, kinds in used.items() if kinds}
    if prefixes <= {"B", "I"}:
        return IOB2 if used["I"] <= used["B"] else IOB1 if used["B"] else IO
    if prefixes == {""}:
        return IO
    for scheme, letters in MARKING_ENDS.items():
        if prefixes <= set(letters):
            return scheme
    raise PolydistillError(
        f"The labels of {model} follow no known scheme: {', '.join(tags)}.",
        f"Known are {', '.join(SCHEMES)}; rename its labels in id2label and label2id of its config.json.",
    )
