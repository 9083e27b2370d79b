"""Write languages/*.toml from CLDR and from what languages.toml beside this script adds.

    python scripts/make_languages.py                # fetches CLDR's npm packages into a temporary folder
    python scripts/make_languages.py --cldr DIR     # DIR is a node_modules folder that already has them

Only the standard library is needed. Files of languages that languages.toml does not name are left alone.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import tomllib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGES = ("cldr-core", "cldr-misc-full", "cldr-localenames-full", "cldr-numbers-full")
VERSION = "48.2.0"
WIKIPEDIA = "20231101"
# Codes of the multilingual mBART-50, as users of translation models know them.
MBART = [
    *["ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX"],
    *["kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN"],
    *["zh_CN", "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN"],
    *["mn_MN", "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA"],
    *["ur_PK", "xh_ZA", "gl_ES", "sl_SI"],
]
# Scripts whose vowel signs CLDR often lists as auxiliary, though no word can be written without them.
ABUGIDAS = {"Beng", "Deva", "Gujr", "Guru", "Khmr", "Knda", "Laoo", "Mlym", "Mymr", "Orya", "Sinh", "Taml", "Telu"}
FIELDS = {"flores", "wiki", "wordfreq", "cldr", "scripts", "aliases", "letters", "name", "native_name", "variants"}
FIELDS |= {"iso639_3", "punctuation", "qa_normaliser", "writings"}
WRITING_FIELDS = {"cldr", "wiki", "wordfreq", "regions"}
SYMBOLS = ("letters", "auxiliary", "punctuation", "digits")
WIDTH = 100


def unicode_set(text: str) -> list[str]:
    r"""The strings of a flat UnicodeSet such as `[a-z {ch} \u200C \-]`, in its order."""
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f"not a UnicodeSet: {text}")
    body, found, position = text[1:-1], [], 0
    while position < len(body):
        char = body[position]
        if char.isspace():
            position += 1
        elif char == "{":
            end = body.index("}", position)
            found.append("".join(_characters(body[position + 1 : end])))
            position = end + 1
        elif char == "-" and found:
            last, position = _character(body, position + 1)
            found += [chr(code) for code in range(ord(found[-1]) + 1, ord(last) + 1)]
        elif char in "[]^&$":
            raise ValueError(f"only flat sets are understood: {text}")
        else:
            symbol, position = _character(body, position)
            found.append(symbol)
    return list(dict.fromkeys(found))


def _character(body: str, position: int) -> tuple[str, int]:
    """One character, escaped or not, and the position after it."""
    if body[position] != "\\":
        return body[position], position + 1
    escape = re.compile(r"\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})|\\x([0-9A-Fa-f]{2})|\\u\{([0-9A-Fa-f]+)\}")
    match = escape.match(body, position)
    if match:
        return chr(int(next(group for group in match.groups() if group), 16)), match.end()
    return body[position + 1], position + 2


def _characters(body: str) -> Iterable[str]:
    position = 0
    while position < len(body):
        symbol, position = _character(body, position)
        if not symbol.isspace():
            yield symbol


class Cldr:
    """The few facts of CLDR's JSON that are needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.english = self._main("cldr-localenames-full", "en", "languages")["localeDisplayNames"]["languages"]
        core = folder / "cldr-core" / "supplemental"
        self.likely = self._read(core / "likelySubtags.json")["supplemental"]["likelySubtags"]
        systems = self._read(core / "numberingSystems.json")["supplemental"]["numberingSystems"]
        self.digits = {name: system["_digits"] for name, system in systems.items() if "_digits" in system}
        self.alias = self._read(core / "aliases.json")["supplemental"]["metadata"]["alias"]["languageAlias"]

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _main(self, package: str, locale: str, file: str) -> dict[str, Any]:
        return self._read(self.folder / package / "main" / locale / f"{file}.json").get("main", {}).get(locale, {})

    def native_name(self, locale: str) -> str | None:
        names = self._main("cldr-localenames-full", locale, "languages").get("localeDisplayNames", {})
        return names.get("languages", {}).get(locale)

    def exemplars(self, locale: str, kind: str) -> list[str]:
        characters = self._main("cldr-misc-full", locale, "characters").get("characters", {})
        return unicode_set(characters.get(kind, "[]"))

    def native_digits(self, locale: str) -> str:
        """Native digits: those that the language writes by default and those that it may write."""
        numbers = self._main("cldr-numbers-full", locale, "numbers").get("numbers", {})
        names = [numbers.get("defaultNumberingSystem"), numbers.get("otherNumberingSystems", {}).get("native")]
        # Chinese numerals are letters, and listed as such.
        sets = [self.digits[n] for n in dict.fromkeys(names) if n in self.digits and n not in ("latn", "hanidec")]
        return "".join(sets)

    def regions(self, code: str, script: str) -> list[str]:
        """Countries that write the language in this script, where it is not the likeliest one."""
        likely = {
            key: value.split("-") for key, value in self.likely.items() if re.fullmatch(f"{code}-[A-Z]{{2}}", key)
        }
        return sorted(key[-2:] for key, (_, found, _) in likely.items() if found == script)

    def codes(self, code: str) -> dict[str, list[str]]:
        """Other codes of a language by CLDR's reason: overlong, bibliographic, macrolanguage, ..."""
        found: dict[str, list[str]] = {}
        for other, entry in self.alias.items():
            if entry["_replacement"] == code and re.fullmatch("[a-z]{2,3}", other):
                found.setdefault(entry["_reason"], []).append(other)
        return found


def entry(code: str, given: dict[str, Any], cldr: Cldr) -> dict[str, Any]:
    """Everything that goes into a language's file."""
    if unknown := set(given) - FIELDS:
        raise ValueError(f"{code}: unknown {unknown}")
    locales = given.get("cldr", [code])
    codes = cldr.codes(code)
    iso = given.get("iso639_3") or (code if len(code) == 3 else _only(code, codes["overlong"]))
    scripts = given.get("scripts") or [cldr.likely[code].split("-")[1]]
    name = given.get("name") or cldr.english[code]
    symbols = symbols_of(locales, scripts, cldr, given)
    if not symbols["letters"] or not symbols["punctuation"]:
        raise ValueError(f"{code}: CLDR has no exemplars; give letters and punctuation in languages.toml")
    aliases = [c for others in codes.values() for c in others if c != iso]
    aliases += [c.split("_")[0] for c in given.get("flores", [])]
    aliases += [c for c in MBART if c.split("_")[0] == code] + given.get("aliases", [])
    wiki = given.get("wiki", code)
    return {
        "code": code,
        "name": name,
        "native_name": given.get("native_name") or cldr.native_name(locales[0]) or name,
        "scripts": scripts,
        "iso639_3": iso,
        "flores": given.get("flores", []),
        "aliases": list(dict.fromkeys(a for a in aliases if a not in (iso, name))),
        **symbols,
        "wordfreq": given.get("wordfreq"),
        "qa_normaliser": given.get("qa_normaliser"),
        "variants": given.get("variants", {}),
        "corpora": corpora_of(wiki),
        "writings": [writing(code, script, about, given, cldr) for script, about in given.get("writings", {}).items()],
    }


def symbols_of(locales: list[str], scripts: list[str], cldr: Cldr, given: dict[str, Any]) -> dict[str, list[str]]:
    """Letters, auxiliary letters, punctuation and digits of CLDR's locales, with what `given` adds."""
    letters = [s for locale in locales for s in cldr.exemplars(locale, "exemplarCharacters")]
    auxiliary = [s for locale in locales for s in cldr.exemplars(locale, "auxiliary")]
    letters += given.get("letters", "").split()
    if ABUGIDAS & set(scripts):
        letters += [s for s in auxiliary if not s.isascii() and not unicodedata.name(s[0]).startswith("LATIN")]
    punctuation = [s for locale in locales for s in cldr.exemplars(locale, "punctuation")]
    punctuation += given.get("punctuation", "").split()
    return {
        "letters": _visible(letters),
        "auxiliary": [s for s in _visible(auxiliary) if s not in set(letters)],
        "punctuation": [s for s in _visible(punctuation) if len(s) == 1],
        "digits": list(cldr.native_digits(locales[0])) if scripts != ["Latn"] else [],
    }


def writing(code: str, script: str, about: dict[str, Any], given: dict[str, Any], cldr: Cldr) -> dict[str, Any]:
    """What goes into a language's file about one of its scripts; the first one has what the language has."""
    if unknown := set(about) - WRITING_FIELDS:
        raise ValueError(f"{code}-{script}: unknown {unknown}")
    first = script == next(iter(given["writings"]))
    locale = about.get("cldr") or (code if first else f"{code}-{script}")
    symbols = symbols_of([locale], [script], cldr, given if first else {})
    if not symbols["letters"]:
        raise ValueError(f"{code}-{script}: CLDR has no exemplars")
    wiki = about.get("wiki", given.get("wiki", code) if first else "")
    return {
        "script": script,
        "flores": [flores for flores in given.get("flores", []) if flores.endswith(script)],
        "regions": about.get("regions", []) + cldr.regions(code, script),
        "wordfreq": about.get("wordfreq", given.get("wordfreq") if first else None) or None,
        **symbols,
        "corpora": corpora_of(wiki),
    }


def corpora_of(wiki: str) -> list[dict[str, str]]:
    """The language's Wikipedia, where there is one."""
    return [{"dataset": "wikimedia/wikipedia", "config": f"{WIKIPEDIA}.{wiki}"}] if wiki else []


def _only(code: str, found: list[str]) -> str:
    if len(found) != 1:
        raise ValueError(f"{code}: CLDR has {found}; give iso639_3 in languages.toml")
    return found[0]


def _visible(symbols: list[str]) -> list[str]:
    """Without repeats, and without white space, which separates symbols in the files."""
    return list(dict.fromkeys(s for s in symbols if s and not s.isspace()))


def quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    # Invisible characters are written as escapes, so that an editor shows them.
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cf", "Cc", "Co") else c for c in text)


def symbol_field(key: str, symbols: list[str]) -> str:
    """One line if it fits, else a wrapped multi-line string."""
    words = [_escaped(symbol) for symbol in symbols]
    if len(key) + sum(len(word) + 1 for word in words) < WIDTH:
        return f'{key} = "{" ".join(words)}"'
    lines, line = [], ""
    for word in words:
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([f'{key} = """', *lines, line, '"""'])


def as_toml(values: dict[str, Any]) -> str:
    lines = [f"# Written by scripts/make_languages.py; names and letters: Unicode CLDR {VERSION} (Unicode-3.0)."]
    for key in ("code", "name", "native_name", "scripts", "iso639_3", "flores", "aliases", "wordfreq", "qa_normaliser"):
        value = values[key]
        if isinstance(value, list) and value:
            lines.append(f"{key} = [{', '.join(map(quoted, value))}]")
        elif isinstance(value, str):
            lines.append(f"{key} = {quoted(value)}")
    lines += symbol_fields(values)
    if values["variants"]:
        lines += ["", "[variants]", *(f"{quoted(k)} = {quoted(v)}" for k, v in values["variants"].items())]
    lines += corpora_fields(values["corpora"], "corpora")
    for one in values["writings"]:
        lines += ["", "[[writings]]", f"script = {quoted(one['script'])}"]
        for key in ("flores", "regions"):
            lines += [f"{key} = [{', '.join(map(quoted, one[key]))}]"] if one[key] else []
        lines += [f"wordfreq = {quoted(one['wordfreq'])}"] if one["wordfreq"] else []
        lines += symbol_fields(one) + corpora_fields(one["corpora"], "writings.corpora")
    return "\n".join(lines) + "\n"


def symbol_fields(values: dict[str, Any]) -> list[str]:
    return [symbol_field(key, values[key]) for key in SYMBOLS if values[key]]


def corpora_fields(corpora: list[dict[str, str]], section: str) -> list[str]:
    fields = ([f"{key} = {quoted(value)}" for key, value in corpus.items()] for corpus in corpora)
    return [line for field in fields for line in ("", f"[[{section}]]", *field)]


def fetch(folder: Path) -> Path:
    packages = [f"{package}@{VERSION}" for package in PACKAGES]
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages], check=True)
    return folder / "node_modules"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cldr", type=Path, help=f"a node_modules folder with {', '.join(PACKAGES)}")
    parser.add_argument("--output", type=Path, default=HERE.parent / "languages")
    arguments = parser.parse_args()
    hand_kept = tomllib.loads((HERE / "languages.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        cldr = Cldr(arguments.cldr or fetch(Path(folder)))
        for code, given in hand_kept.items():
            text = as_toml(entry(code, given, cldr))
            (arguments.output / f"{code}.toml").write_text(text, encoding="utf-8", newline="\n")
    print(f"{len(hand_kept)} languages written to {arguments.output}")


if __name__ == "__main__":
    main()
