"""Specs: name, weight and options, as they are written and as they are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polydistill.errors import UsageError
from polydistill.options.settings import Options, setting
from polydistill.options.specs import Listed, Listing, Spec


@dataclass(frozen=True)
class ThingOptions(Options):
    rate: float = setting(0.5, "How fast.", "", least=0, most=2)
    count: int = setting(3, "How many.", "", least=1)
    open: bool = setting(True, "Whether it is open.", "")
    form: str = setting("round", "Its form.", "", choices=("round", "square"))
    layers: tuple[int, ...] = setting((), "Which layers.", "")
    heads: int | None = setting(None, "Heads. [default: the model's]", "", least=1)


class Thing:
    options_class: ClassVar[type[Options]] = ThingOptions

    def __init__(self, options: ThingOptions, *, width: int, colour: str = "red") -> None:
        self.given = (options, width, colour)


class Plain:
    options_class: ClassVar[type[Options]] = Options


THINGS = Listing(
    "thing",
    (Listed("a-thing", f"{__name__}:Thing", "A thing.", "-", ("here",)), Listed("plain", f"{__name__}:Plain", "", "-")),
)
NAMES = Listing("name", (Listed("plain", f"{__name__}:Plain", "", "-"),), weighted=False)


@pytest.mark.parametrize(
    ("text", "weight", "options"),
    [
        ("a-thing", 1.0, ThingOptions()),
        ("a_thing=0", 0.0, ThingOptions()),
        (" a-thing = 2 : rate = 1.5 ", 2.0, ThingOptions(rate=1.5)),
        ("a-thing:count=7:open=no:form=square", 1.0, ThingOptions(count=7, open=False, form="square")),
        ("a-thing=1e-3:layers=2,11:heads=4", 0.001, ThingOptions(layers=(2, 11), heads=4)),
        ("plain=3", 3.0, Options()),
    ],
)
def test_what_is_written_is_what_is_meant(text: str, weight: float, options: Options) -> None:
    spec = THINGS.parse(text)
    assert (spec.name, spec.weight, spec.options) == (
        (text.strip()[0:1] == "p" and "plain") or "a-thing",
        weight,
        options,
    )
    assert THINGS.parse(str(spec)) == spec


@given(
    st.builds(
        ThingOptions,
        rate=st.floats(0, 2),
        count=st.integers(1, 10**6),
        open=st.booleans(),
        form=st.sampled_from(["round", "square"]),
        layers=st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple),
        heads=st.none() | st.integers(1, 99),
    ),
    st.floats(0, 1e9),
)
def test_a_spec_reads_back_what_it_writes(options: ThingOptions, weight: float) -> None:
    spec = Spec("a-thing", weight, options)
    assert THINGS.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "Unknown thing ''", "Known are a-thing, plain"),
        ("a-thin", "Unknown thing 'a-thin'", "Did you mean a-thing?"),
        ("a-thing=", "'' is not a weight of the thing `a-thing`", "from 0 to"),
        ("a-thing=much", "'much' is not a weight", "from 0 to"),
        ("a-thing=-1", "'-1' is not a weight", "from 0 to"),
        ("a-thing=nan", "'nan' is not a weight", "from 0 to"),
        ("a-thing=1e999", "'1e999' is not a weight", "from 0 to"),
        ("a-thing:rat=1", "has no option 'rat=1'", "It has rate, count, open, form, layers, heads."),
        ("a-thing:rate", "has no option 'rate'", "It has rate"),
        ("a-thing:", "has no option ''", "It has rate"),
        ("plain:rate=1", "has no option 'rate=1'", "It has none."),
        ("a-thing:rate=fast", "'rate' of the thing `a-thing` must be a number, not 'fast'", "Leave it out"),
        ("a-thing:rate=nan", "'rate'", ""),
        ("a-thing:rate=3", "The thing `a-thing`: 'rate' must be at least 0 and at most 2, not 3.0.", "Leave it out"),
        ("a-thing:count=1.5", "must be a whole number, not '1.5'", "Leave it out"),
        ("a-thing:count=0", "'count'", ""),
        ("a-thing:open=maybe", "must be true or false, not 'maybe'", "Leave it out"),
        ("a-thing:form=oval", "The thing `a-thing`: 'form=oval' is unknown", "Choose round, square."),
        ("a-thing:layers=1;2", "must be whole numbers with commas between them, not '1;2'", "Leave it out"),
        ("a-thing:rate=1:rate=2", "'rate' of the thing `a-thing` is given twice", "Give it once."),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        THINGS.parse(text)
    assert message in error.value.message and hint in (error.value.hint or "")


def test_a_name_without_a_weight_is_given_none() -> None:
    assert str(NAMES.parse("plain")) == "plain" and NAMES.parse("plain").weight == 1
    with pytest.raises(UsageError, match="A name has no weight, and 'plain=2' gives one") as error:
        NAMES.parse("plain=2")
    assert error.value.hint == "Write plain."


def test_a_class_gets_what_its_constructor_names() -> None:
    made = THINGS.make(THINGS.parse("a-thing:count=2"), {"width": 7, "height": 9})
    assert made.given == (ThingOptions(count=2), 7, "red")


def test_others_can_be_added_once() -> None:
    more = Listing("thing", ())
    more.add(Listed("mine", f"{__name__}:Plain", "", "-"))
    assert more.parse("mine").name == "mine" and [one.name for one in more] == ["mine"]
    with pytest.raises(UsageError, match="The thing `mine` is listed already"):
        more.add(Listed("mine", f"{__name__}:Thing", "", "-"))
