"""The page of `compare --html`: whole, safe, without network, and as a reader sees it in a browser."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pytest
from browser import chromium, open_browser
from runs import STUDENT, TEACHER, Items, Model, right, run, score, two_models

from polydistill.cli import main
from polydistill.metrics.paired import FEW
from polydistill.reports.compare import compare
from polydistill.reports.figures import SERIES, key
from polydistill.reports.page import page

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Say = Callable[..., Said]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of predictions."""
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def say(cache: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Compares runs in this process."""

    def say(*args: str | Path) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["compare", *map(str, args)])
            sys.exit(0)
        return Said(int(stop.value.code or 0), *capsys.readouterr())

    return say


class Parsed(HTMLParser):
    """A page as its tags, attributes and text; every element must be closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.words.setdefault(self._open[-1], []).append(data.strip())

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]


def many(folder: Path, cache: Path, third: Model | None = None) -> Path:
    """A run of three models, two tasks, and languages of several scripts."""
    third = third or Model("org/third-model", "c" * 64, 250_000, 750_000, lineage=("trim (en) of a", "finetune of b"))
    scores = []
    for model, base in ((TEACHER, 9), (STUDENT, 8), (third, 6)):
        for i, language in enumerate(("en", "sw", "ro", "zh", "ar", "yo")):
            hits = base - i % 3
            tags: Items = [[1, 1, 1]] * hits + [[0, 1, 1]] * (10 - hits)
            for how in ("strict-iob2", "conlleval"):
                scores.append(
                    score(
                        model,
                        language,
                        tags,
                        cache=cache,
                        task="ner",
                        metric="f1",
                        normalisation=how,
                        interval=(hits / 10 - 0.2, min(hits / 10 + 0.2, 1)),
                    )
                )
        scores.append(score(model, "en", right("1" * base + "0" * (10 - base)), cache=cache, interval=(0.4, 1.0)))
    return run(folder / "many.json", [TEACHER, STUDENT, third], scores)


@pytest.fixture
def parsed(cache: Path, tmp_path: Path, say: Say) -> Parsed:
    """The page of three models."""
    said = say(many(tmp_path, cache), "--html", tmp_path / "out" / "page.html")
    assert said.code == 0 and said.out == f"3 models compared. Written to {tmp_path / 'out' / 'page.html'}.\n"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["page.html"]
    return Parsed((tmp_path / "out" / "page.html").read_text(encoding="utf-8"))


# --- what is in it


def test_everything_is_on_the_page(parsed: Parsed) -> None:
    for name in ("teacher", "student", "org/third-model"):
        assert name in parsed.words["th"] and name in parsed.words["li"]
    assert {"en", "sw", "ro", "zh", "ar", "yo", "average of 6"} <= set(parsed.words["td"])
    assert {"trim (en) of a", "finetune of b", "trim (sw) of teacher"} <= set(parsed.words["li"])
    assert {"4,000,000", "75.0%", "16.0 MB"} <= set(parsed.words["dd"])
    assert any(note.startswith(FEW) for note in parsed.words["li"])
    captions = ["ner, test, f1 (conlleval)", "ner, test, f1 (strict-iob2)", "nli, test, accuracy"]
    assert parsed.words["caption"] == captions
    titles = parsed.words["title"][1:]
    assert titles == [
        "Size against quality: ner, test, f1 (conlleval), average of 6 languages: en, sw, ro, zh, ar, yo",
        "Scores by language: ner, test, f1 (conlleval)",
        "Size against quality: nli, test, accuracy, en",
        "Scores by language: nli, test, accuracy",
    ]
    size, bars = parsed.words["desc"][:2]
    # The same sentences are right in all six languages, so that their average is no surer than one of them.
    assert size == (
        "teacher: 4,000,000 parameters, 80.0 [56.7, 100.0]; student: 1,000,000 parameters, 70.0 [43.3, 93.3]; "
        "org/third-model: 1,000,000 parameters, 50.0 [23.3, 76.7]"
    )
    assert "sw, student: 70.0 [50.0, 90.0]" in bars and "average of 6, teacher: 80.0 [56.7, 100.0]" in bars
    assert "en" in parsed.words["text"] and "average of 6" in parsed.words["text"]


def test_nothing_comes_from_elsewhere(parsed: Parsed) -> None:
    assert not parsed.values("src") and not parsed.values("href") and not parsed.values("action")
    links = parsed.values("xlink:href")
    assert links and all(link.startswith("#") and link[1:] in parsed.values("id") for link in links)
    texts = [*parsed.words["style"], *parsed.words["script"], *parsed.values("style")]
    assert not [text for text in texts if "http" in text or "@import" in text or "//" in text.replace("// A click", "")]
    assert not {tag for tag, _ in parsed.tags} & {"link", "img", "iframe", "object", "embed", "base", "form"}
    (policy,) = (attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy


def test_page_can_be_read_by_everyone(parsed: Parsed) -> None:
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    for named in parsed.values("aria-labelledby"):
        assert set(named.split()) <= set(ids)
    for tag, attrs in parsed.tags:
        if tag == "th":
            assert attrs["scope"] in ("col", "row")
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-labelledby"])
    assert ("html", {"lang": "en"}) in parsed.tags
    (viewport,) = (a["content"] for t, a in parsed.tags if t == "meta" and a.get("name") == "viewport")
    assert viewport.startswith("width=device-width")
    style = parsed.words["style"][0]
    assert "@media (prefers-color-scheme: dark)" in style


def lightness(colour: str) -> float:
    """Relative luminance (WCAG 2) of `#rrggbb`."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(*colours: str) -> float:
    """Contrast ratio (WCAG 2) of two colours."""
    low, high = sorted(map(lightness, colours))
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out(parsed: Parsed) -> None:
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6});", part)) for part in re.split("@media", parsed.words["style"][0])[:2]
    )
    assert len([name for name in light if name.startswith("series")]) == SERIES
    for colours in (light, light | dark):
        for text in ("ink", "muted"):
            assert min(contrast(colours[text], colours[under]) for under in ("paper", "card")) > 4.5
        for i in range(SERIES):
            series = colours[f"series-{i}"]
            assert min(contrast(series, colours[other]) for other in ("paper", "card", "ink")) > 3, (i, series)


def test_plots_take_their_colours_from_the_page(cache: Path, tmp_path: Path) -> None:
    text = page(compare([many(tmp_path, cache)]))
    drawings = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(drawings) == 4 + 3 + 2 * 3  # plots, models' keys, legends
    for drawing in drawings:
        assert not re.search(r"(fill|stroke): ?(#[0-9a-f]{3,6}|black|white|rgb)", drawing)
        assert "<style" not in drawing and "<metadata" not in drawing
    plots = [drawing for drawing in drawings if 'role="img"' in drawing]
    assert len(plots) == 4 and all(f"var(--series-{i})" in plot for plot in plots for i in range(3))
    assert "var(--series-1)" in key(SERIES + 1, "k") and "--series-9" not in key(SERIES + 1, "k")


def test_the_same_input_gives_the_same_bytes(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = many(tmp_path, cache)
    first = page(compare([path]))
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "path")
    assert page(compare([path])) == first
    assert matplotlib.rcParams["svg.fonttype"] == "path"  # the user's settings are left alone


def test_what_users_wrote_is_escaped(cache: Path, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"&$title${x}$\\alpha$ 漢字 العربية"
    odd = Model(evil, "f" * 64, 10, 10, source=f"<b>{evil}", lineage=(f"trim of {evil}",), languages=("<i>",))
    nli = [score(m, "<u>&", right("1100"), cache=cache, task="<h1>") for m in (TEACHER, odd)]
    lacking = score(TEACHER, "<em>", right("1100"), cache=cache, task="<h1>")
    text = page(compare([run(tmp_path / "a.json", [TEACHER, odd], [*nli, lacking])]))
    found = Parsed(text)
    assert evil in found.words["th"] and f"trim of {evil}" in found.words["li"] and "<i>" in found.words["dd"]
    assert "<u>&" in found.words["td"] and "<u>&" in found.words["text"]
    assert any("<em>" in note for note in found.words["li"])
    tags = [tag for tag, _ in found.tags]
    assert tags.count("script") == 1 and tags.count("h1") == 1
    assert not {"b", "i", "u", "em"} & set(tags)


def test_sizes_that_are_not_known(cache: Path, tmp_path: Path) -> None:
    path = two_models(tmp_path, cache)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace('"rest": 500000', '"rest": null'), encoding="utf-8")
    said = Parsed(page(compare([path])))
    assert "The size of 1 is not known." in said.words["figcaption"][0] and "student" not in said.words["desc"][0]
    path.write_text(re.sub(r'"rest": \d+', '"rest": null', whole), encoding="utf-8")
    said = Parsed(page(compare([path])))
    assert any("do not say how large the models are" in words for words in said.words["p"])
    assert len(said.words["desc"]) == 1  # the bars


def test_no_language_that_all_models_have(cache: Path, tmp_path: Path) -> None:
    third = Model("third", "c" * 64)
    pairs = ((TEACHER, "en"), (TEACHER, "sw"), (STUDENT, "en"), (third, "sw"))
    scores = [score(m, language, right("10"), cache=cache) for m, language in pairs]
    said = Parsed(page(compare([run(tmp_path / "a.json", [TEACHER, STUDENT, third], scores)])))
    assert any("no language that all of them have" in words for words in said.words["p"])


# --- writing it


def test_page_that_exists(cache: Path, tmp_path: Path, say: Say) -> None:
    path, html = two_models(tmp_path, cache), tmp_path / "page.html"
    html.write_text("mine", encoding="utf-8")
    said = say(path, "--html", html)
    assert said.code == 1 and f"Error: {html} already exists and was left as it is." in said.err
    assert "--html" in said.err and "--overwrite" in said.err and html.read_text(encoding="utf-8") == "mine"
    assert say(path, "--html", html, "--overwrite").code == 0
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")
    said = say(path, "--html", tmp_path, "--overwrite")
    assert said.code == 1 and "is a folder, not a file" in said.err


def test_page_appears_whole_or_not_at_all(
    cache: Path, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, html = two_models(tmp_path, cache), tmp_path / "out" / "page.html"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = say(path, "--html", html)
    assert said.code == 1 and "the disk is full" in said.err and "another place with --html" in said.err
    assert not [p for p in tmp_path.rglob("*") if "page" in p.name]


def test_without_the_plotting_library(cache: Path, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    path = two_models(tmp_path, cache)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = say(path, "--html", tmp_path / "page.html")
    assert said.code == 1 and not (tmp_path / "page.html").exists()
    assert said.err.splitlines() == [
        "Error: The page's plots need matplotlib, which is not installed.",
        "Install it with: pip install 'polydistill[report]'.",
    ]
    assert say(path, "--markdown").code == 0  # nothing else needs it


def test_plotting_and_torch_are_loaded_only_when_needed(cache: Path, tmp_path: Path) -> None:
    path = two_models(tmp_path, cache)
    code = (
        "import sys\nfrom polydistill.cli import main\nimport polydistill.reports.page\n"
        f"try: main(['compare', {str(path)!r}])\nexcept SystemExit: pass\n"
        "print({'torch', 'transformers', 'datasets', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()" and "average of 2" in done.stdout


# --- as a reader sees it


def column(browser: Any, number: int) -> list[str]:
    """The texts of a column of the first table."""
    script = f"[...document.querySelector('tbody').rows].map((row) => row.cells[{number}].textContent)"
    found: list[str] = browser.run(script)
    return found


@pytest.mark.skipif(chromium() is None, reason="needs Chromium")
def test_page_in_a_browser(cache: Path, tmp_path: Path) -> None:
    artefacts = Path(os.environ.get("POLYDISTILL_ARTEFACTS") or tmp_path)
    long = Model("org/a-model-with-a-name-that-is-far-longer-than-a-phone-is-wide-in-any-font", "c" * 64, 10**9, 10**9)
    html = tmp_path / "page.html"
    html.write_text(page(compare([many(tmp_path, cache, third=long)])), encoding="utf-8")
    paper = "getComputedStyle(document.body).backgroundColor"
    label = "getComputedStyle(document.querySelector('figure svg text')).fill"
    with open_browser(tmp_path / "profile") as browser:
        seen = {}
        for name, width, dark in (("phone-dark", 390, True), ("desktop-light", 1280, False)):
            browser.open(html, width=width, dark=dark, phone=width < 500)
            browser.screenshot(artefacts / f"compare-{name}.png")
            assert browser.run("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
            assert (
                browser.run("Math.min(...[...document.querySelectorAll('figure svg')].map((s) => s.clientWidth))") > 300
            )
            outside = "[...document.querySelectorAll('h1, h2, h3, p, li, dd, figure, .scroll')]"
            outside += f".filter((e) => e.getBoundingClientRect().right > {width} || e.scrollWidth > e.clientWidth + 1)"
            assert browser.run(f"{outside}.map((e) => e.className || e.tagName)") in ([], ["scroll"] * 3)
            seen[dark] = browser.run(paper), browser.run(label)
        assert seen == {
            True: ("rgb(20, 23, 28)", "rgb(232, 235, 239)"),
            False: ("rgb(255, 255, 255)", "rgb(27, 31, 36)"),
        }
        # A click sorts by number, a second one turns it round, and empty cells stay last.
        heads = browser.run(
            "[...document.querySelectorAll('table')[0].querySelectorAll('th button')].map((b) => b.textContent)"
        )
        assert heads == ["Language", "Model", "Value [95%]", "Difference [95%]", "Retained", "n"]
        before = column(browser, 3)
        click = f"document.querySelectorAll('th button')[{heads.index('Difference [95%]')}].click()"
        browser.run(click)
        up = column(browser, 3)
        browser.run(click)
        down = column(browser, 3)
        numbers = [float(text.split()[0]) for text in up if text]
        assert numbers == sorted(numbers) and len(set(numbers)) > 1 and up[-7:] == down[-7:] == [""] * 7
        assert [float(text.split()[0]) for text in down if text] == sorted(numbers, reverse=True)
        assert sorted(before) == sorted(up) and before != up
        sorts = "[...document.querySelectorAll('table')[0].querySelectorAll('th[aria-sort]')].map((h) => h.ariaSort)"
        assert browser.run(sorts) == ["none"] * 3 + ["descending"] + ["none"] * 2
        events = browser.events
    requests = [e["params"]["request"]["url"] for e in events if e.get("method") == "Network.requestWillBeSent"]
    assert requests == [html.resolve().as_uri()]
    assert not [e for e in events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert {p.name for p in artefacts.glob("compare-*.png")} == {"compare-phone-dark.png", "compare-desktop-light.png"}
