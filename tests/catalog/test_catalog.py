from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import unicodedata
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

from polydistill import catalog
from polydistill.catalog import Arch, Language
from polydistill.catalog.writings import Writing
from polydistill.errors import PolydistillError, UsageError

# The languages of XLM-R's pre-training data; its romanised and Zawgyi parts are no further languages.
XLM_R = """
af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy id
is it ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt ro ru sa sd si
sk sl so sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh
"""
# Names of folders and files in public evaluation sets.
DATA = "hau yor quy gn ay qu ha yo ig rw am ur eu fi hr hu ka ko my nl pt ta uk sw ro de es hi ru th tr zh ar el"
# Prefixes of Unicode character names, by script.
PREFIXES = {
    "Arab": ("ARABIC",),
    "Armn": ("ARMENIAN",),
    "Beng": ("BENGALI",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Ethi": ("ETHIOPIC",),
    "Geor": ("GEORGIAN",),
    "Grek": ("GREEK",),
    "Gujr": ("GUJARATI",),
    "Guru": ("GURMUKHI",),
    "Hans": ("CJK",),
    "Hant": ("CJK",),
    "Hebr": ("HEBREW",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA"),
    "Khmr": ("KHMER",),
    "Knda": ("KANNADA",),
    "Kore": ("HANGUL",),
    "Laoo": ("LAO",),
    "Latn": ("LATIN",),
    "Mlym": ("MALAYALAM",),
    "Mong": ("MONGOLIAN",),
    "Mymr": ("MYANMAR",),
    "Orya": ("ORIYA",),
    "Sinh": ("SINHALA",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Thai": ("THAI",),
}
LANGUAGES = catalog.languages()

MINIMAL = """
code = "xx"
name = "Exish"
iso639_3 = "xxx"
scripts = ["Latn"]
letters = "a b ch"
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("code", [*XLM_R.split(), *DATA.split()])
def test_every_language_that_must_be_there_is_there(code: str) -> None:
    found = catalog.language(code)
    assert code in found.aliases
    assert catalog.language(found.code) == found


def test_a_file_is_called_as_its_code() -> None:
    folder = Path(catalog.__file__).parents[2] / "languages"
    stems = {path.stem for path in folder.glob("*.toml")}
    if not stems:
        pytest.skip("installed without the source tree")
    assert stems == {entry.code for entry in LANGUAGES}
    for stem in stems:
        assert Language.from_toml(folder / f"{stem}.toml").code == stem


def test_no_alias_names_two_languages() -> None:
    owners = defaultdict(set)
    for entry in LANGUAGES:
        for alias in entry.aliases:
            owners[alias.casefold().replace("_", "-")].add(entry.code)
    assert {alias: codes for alias, codes in owners.items() if len(codes) > 1} == {}


@pytest.mark.parametrize(
    "alias", ["ro", "RO", "ron", "rum", "ron_Latn", "ro_RO", "ro-RO", "Romanian", "română", " ro "]
)
def test_every_alias_of_a_language_finds_it(alias: str) -> None:
    assert catalog.language(alias).code == "ro"


@pytest.mark.parametrize(
    ("alias", "code"),
    [
        ("swh_Latn", "sw"),
        ("zho_Hant", "zh-Hant"),
        ("zho_Hans", "zh-Hans"),
        ("iw", "he"),
        ("nob", "no"),
        ("fil", "tl"),
        ("Farsi", "fa"),
        ("en_XX", "en"),
    ],
)
def test_codes_of_other_collections_are_aliases(alias: str, code: str) -> None:
    assert catalog.language(alias).code == code


@pytest.mark.parametrize("entry", LANGUAGES, ids=lambda entry: entry.code)
def test_a_language_is_well_formed(entry: Language) -> None:
    assert re.fullmatch("[a-z]{2,3}", entry.code)
    assert re.fullmatch("[a-z]{3}", entry.iso639_3)
    assert {entry.code, entry.iso639_3, entry.name, *entry.flores} <= set(entry.aliases)
    assert entry.scripts and set(entry.scripts) <= set(PREFIXES)
    for flores in entry.flores:
        assert re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", flores)
    for symbols in (entry.letters, entry.auxiliary, entry.punctuation, entry.digits):
        assert len(symbols) == len(set(symbols))
        assert not any(character.isspace() for symbol in symbols for character in symbol)
    assert all(len(mark) == 1 and not mark.isalpha() for mark in entry.punctuation)
    assert [unicodedata.digit(digit) for digit in entry.digits] in ([], list(range(10)))
    for corpus in entry.corpora:
        assert corpus.dataset == "wikimedia/wikipedia"
        assert re.fullmatch(r"20231101\.[a-z-]+", corpus.config or "")
        assert (corpus.split, corpus.column) == ("train", "text")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("sr-Latn", "sr-Latn"),
        ("sr_latn", "sr-Latn"),
        ("srp_Latn", "sr-Latn"),
        ("Serbian-Latn", "sr-Latn"),
        ("sr-Latn-RS", "sr-Latn"),
        ("sr-ME", "sr-Latn"),
        ("srp_Cyrl", "sr-Cyrl"),
        ("sr-RS", "sr"),
        ("sr", "sr"),
        ("zh-Hant", "zh-Hant"),
        ("zh_Hant", "zh-Hant"),
        ("zh-TW", "zh-Hant"),
        ("zh_CN", "zh-Hans"),
        ("zh", "zh"),
        ("uz-Cyrl", "uz-Cyrl"),
        ("pa-Arab", "pa-Arab"),
        ("pa-PK", "pa-Arab"),
        ("pa-Guru", "pa"),
        ("pan_Guru", "pa"),
        ("az-Cyrl", "az-Cyrl"),
        ("az_AZ", "az"),
        ("az-Latn", "az"),
        ("ku-Arab", "ku-Arab"),
        ("yue-Hans", "yue-Hans"),
        ("pt-BR", "pt"),
        ("ro-MD", "ro"),
        ("es-419", "es"),
        ("ro-Latn", "ro"),
        ("ja-Jpan", "ja"),
        ("kor_Hang", "ko"),
    ],
)
def test_a_language_can_be_asked_for_in_a_script_or_of_a_country(asked: str, code: str) -> None:
    assert catalog.language(asked).code == code


WRITTEN = [entry.written(writing.script) for entry in LANGUAGES for writing in entry.writings]


@pytest.mark.parametrize("entry", WRITTEN, ids=lambda entry: f"{entry.code} {entry.scripts[0]}")
def test_a_language_in_one_script_has_the_letters_of_that_script_alone(entry: Language) -> None:
    characters = [c for letter in entry.letters for c in letter if unicodedata.category(c) in ("Ll", "Lo", "Lu")]
    own = [c for c in characters if unicodedata.name(c).startswith(PREFIXES[entry.scripts[0]])]
    assert len(own) > 15 and len(own) > 0.9 * len(characters)
    assert catalog.language(entry.code) == entry and entry.name and entry.punctuation
    assert all(catalog.language(flores).iso639_3 == entry.iso639_3 for flores in entry.flores)


def test_what_differs_between_scripts_is_that_of_the_script() -> None:
    whole, latin = catalog.language("sr"), catalog.language("sr-Latn")
    assert latin.scripts == ("Latn",) and latin.script_of == "sr" and whole.script_of is None
    assert "č" in latin.letters and "ч" not in latin.letters and {"č", "ч"} <= set(whole.letters)
    assert latin.wordfreq == "sh" and catalog.language("sr-Cyrl").wordfreq is None
    assert not latin.corpora and catalog.language("sr-Cyrl").corpora == whole.corpora
    simplified, traditional = catalog.language("zh-Hans"), catalog.language("zh-Hant")
    assert "们" in simplified.letters and "們" in traditional.letters and "们" not in traditional.letters
    assert traditional.flores == ("zho_Hant",) and "zh_CN" not in traditional.aliases
    assert traditional.qa_normaliser == "characters"
    assert catalog.language("pa-Arab").corpora == (catalog.Corpus("wikimedia/wikipedia", "20231101.pnb"),)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("sr-Arab", r"Serbian \(sr\) has letters in Cyrl and Latn here, not in Arab.*Write sr-Cyrl or sr-Latn"),
        ("ron_Cyrl", r"Romanian \(ro\) has letters in Latn here, not in Cyrl"),
        ("sr-Latin", "Unknown language 'sr-Latin'"),
        ("xx-Latn", "Unknown language 'xx-Latn'"),
    ],
)
def test_a_script_that_a_language_lacks_is_refused_with_those_that_it_has(asked: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        catalog.language(asked)
    assert re.search(said, f"{refused.value.message} {refused.value.hint}")


@pytest.mark.parametrize("entry", LANGUAGES, ids=lambda entry: entry.code)
def test_letters_are_of_the_scripts_and_each_script_has_some(entry: Language) -> None:
    own = dict.fromkeys(entry.scripts, 0)
    characters = [c for letter in entry.letters for c in letter if unicodedata.category(c) in ("Ll", "Lo", "Lu")]
    for character in characters:
        for script in own:
            own[script] += unicodedata.name(character).startswith(PREFIXES[script])
    assert len(entry.letters) > 15
    assert all(count > 15 for count in own.values()), own
    assert sum(any(unicodedata.name(c).startswith(PREFIXES[s]) for s in own) for c in characters) > 0.9 * len(
        characters
    )


def test_every_language_has_letters_for_its_vowels() -> None:
    """CLDR lists only the consonants of some; a Latin or Cyrillic alphabet without vowels is a mistake."""
    for entry in LANGUAGES:
        plain = {unicodedata.normalize("NFD", letter)[0] for letter in entry.letters}
        if "Latn" in entry.scripts:
            assert {"a", "i"} <= plain, entry.code
        if "Cyrl" in entry.scripts:
            assert set("аеоу") <= plain, entry.code


def test_abugidas_have_their_vowel_signs_among_the_letters() -> None:
    for code, signs in {"ml": "ാിീുൂൃെേൈൊോൗ്", "hi": "ािीुूेैोौ्", "my": "ာိီုူေ", "ta": "ாிீுூெேைொோௌ்"}.items():
        assert set(signs) <= set(catalog.language(code).letters), code


def test_romanian_has_its_letters_and_their_old_spellings() -> None:
    romanian = catalog.language("ro")
    assert set("ăâîșț") <= set(romanian.letters)
    assert romanian.variants == {"ș": "ş", "Ș": "Ş", "ț": "ţ", "Ț": "Ţ"}
    assert {"„", "”"} <= set(romanian.punctuation)
    assert romanian.scripts == ("Latn",) and romanian.wordfreq == "ro"


def test_languages_of_two_scripts_have_the_letters_of_both() -> None:
    assert set("шš") <= set(catalog.language("sr").letters)
    assert {"ў", "oʻ"} <= set(catalog.language("uz").letters)
    assert {"国", "國"} <= set(catalog.language("zh").letters)


def test_wordfreq_codes_are_those_of_the_library() -> None:
    wordfreq = pytest.importorskip("wordfreq")
    known = set(wordfreq.available_languages("small"))
    given = {entry.wordfreq for entry in LANGUAGES} - {None}
    assert given == known
    assert catalog.language("sw").wordfreq is None


def test_flores_codes_are_those_of_nllb() -> None:
    nllb = pytest.importorskip("transformers.models.nllb.tokenization_nllb")
    given = [flores for entry in LANGUAGES for flores in entry.flores]
    assert set(given) <= set(nllb.FAIRSEQ_LANGUAGE_CODES)
    assert len(given) == len(set(given))


@pytest.mark.parametrize("wrong", ["rumanian", "romainian", "Romanain"])
def test_a_misspelt_language_is_suggested(wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        catalog.language(wrong)
    assert wrong in caught.value.message
    assert "Did you mean ro (Romanian)" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("wrong", ["xx", "", "../ro", "ro.toml", "/etc/passwd"])
def test_an_unknown_language_is_refused_with_the_way_out(wrong: str) -> None:
    with pytest.raises(UsageError, match="Unknown language"):
        catalog.language(wrong)


def test_an_included_folder_adds_a_language(tmp_path: Path) -> None:
    write(tmp_path / "languages" / "anything.toml", MINIMAL)
    for name in ("xx", "XXX", "exish"):
        assert catalog.language(name, [tmp_path]).letters == ("a", "b", "ch")
    assert [entry.code for entry in catalog.languages([tmp_path])] == sorted([e.code for e in LANGUAGES] + ["xx"])
    with pytest.raises(UsageError):
        catalog.language("xx")


def test_an_included_file_or_flat_folder_adds_too_and_kinds_are_told_apart(tmp_path: Path) -> None:
    file = write(tmp_path / "exish.toml", MINIMAL)
    write(tmp_path / "arch.toml", 'model_type = "new"\nname = "New"\nsupports = ["trim"]\n' + VOCABULARY)
    assert catalog.language("xx", [file]).name == "Exish"
    assert catalog.language("xx", [str(tmp_path)]).name == "Exish"
    assert catalog.arch("new", [tmp_path]).name == "New"
    assert len(catalog.tasks([tmp_path])) == len(catalog.tasks())


def test_an_included_language_overrides_what_ships_and_a_later_one_an_earlier(tmp_path: Path) -> None:
    text = MINIMAL.replace('"xx"', '"ro"').replace('"xxx"', '"ron"')
    write(tmp_path / "one" / "languages" / "ro.toml", text)
    write(tmp_path / "two" / "languages" / "ro.toml", text.replace("Exish", "Second"))
    one, two = tmp_path / "one", tmp_path / "two"
    assert catalog.language("ro", [one]).name == "Exish"
    assert catalog.language("rum", [one]).name == "Exish"  # an alias of the shipped file alone
    assert catalog.language("ro", [one, two]).name == "Second"
    assert catalog.language("ro").name == "Romanian"


def test_an_include_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        catalog.languages([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("code = ", "TOML"),
        (MINIMAL + 'lettters = "a"', "lettters"),
        (MINIMAL.replace('code = "xx"', 'code = "xx"\naliases = "x"'), "aliases"),
        (MINIMAL.replace('"a b ch"', "3"), "letters"),
        (MINIMAL.replace('name = "Exish"', ""), "name"),
        (MINIMAL.replace('["Latn"]', "[1]"), "scripts"),
        (MINIMAL + '[[corpora]]\ndataset = "a/b"\ncolunm = "text"', r"corpora\[0\].colunm"),
        (MINIMAL + "[variants]\na = 1", "variants.a"),
        (MINIMAL.replace('code = "xx"', 'code = "/../../xx"'), "'code' cannot be '/../../xx'"),
        ('title = "what is this"', "neither a language, a task nor an architecture"),
    ],
)
def test_a_wrong_file_is_refused_by_its_name_and_key(tmp_path: Path, text: str, named: str) -> None:
    write(tmp_path / "broken.toml", text)
    with pytest.raises(PolydistillError, match=named) as caught:
        catalog.language("xx", [tmp_path])
    assert "broken.toml" in caught.value.message


def test_a_misspelt_key_is_suggested(tmp_path: Path) -> None:
    file = write(tmp_path / "broken.toml", MINIMAL + 'lettters = "a"')
    with pytest.raises(PolydistillError, match="Did you mean 'letters'"):
        Language.from_toml(file)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_bytes(MINIMAL.replace("Exish", "Română").encode("latin2"))
    with pytest.raises(PolydistillError, match="is not UTF-8"):
        Language.from_toml(tmp_path / "broken.toml")


def test_letters_may_be_a_list(tmp_path: Path) -> None:
    file = write(tmp_path / "xx.toml", MINIMAL.replace('"a b ch"', '["a", "b"]'))
    assert Language.from_toml(file).letters == ("a", "b")


VOCABULARY = """
[[vocabulary]]
suffix = "word_embeddings.weight"
role = "embedding"
[[vocabulary]]
suffix = "cls.decoder.weight"
axis = 1
role = "head"
"""


def test_an_architecture_finds_its_vocabulary_tensors(tmp_path: Path) -> None:
    header = 'model_type = "new"\nname = "New"\nsupports = ["trim"]\n'
    layers = '[layers]\npath = "encoder.layer"\ncount_key = "n"\n'
    layers += '[attention]\nquery = "q"\nkey = "k"\nvalue = "v"\n'
    new = Arch.from_toml(write(tmp_path / "new.toml", header + VOCABULARY + layers))
    found = new.vocabulary_tensor("bert.word_embeddings.weight")
    assert found is not None and (found.axis, found.role) == (0, "embedding")
    head = new.vocabulary_tensor("cls.decoder.weight")
    assert head is not None and (head.axis, head.role) == (1, "head")
    assert new.vocabulary_tensor("bert.my_word_embeddings.weight") is None
    assert new.rows_keys == ("vocab_size",)
    assert new.layers is not None and not new.layers.shared
    assert new.attention is not None and new.attention.query == "q"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"head"', '"heads"', "role"),
        ("axis = 1", "axis = true", "axis"),
        ("axis = 1", "axis = -1", "axis"),
        ('["trim"]', '["trimm"]', "trimm"),
        (VOCABULARY, "", "vocabulary"),
        (VOCABULARY, VOCABULARY + '[attention]\nquery = "q"\n', "attention.key"),
        ('["trim"]', '["trim", "reduce"]', r"has 'reduce', but there is no \[layers\]"),
        ('["trim"]', '["trim", "relations"]', r"has 'relations', but there is no \[layers\]"),
        (VOCABULARY, VOCABULARY + '[layers]\npath = "q"\n', "layers.count_key"),
    ],
)
def test_a_wrong_architecture_is_refused(tmp_path: Path, old: str, new: str, named: str) -> None:
    text = 'model_type = "new"\nname = "New"\nsupports = ["trim"]\n' + VOCABULARY
    assert old in text
    with pytest.raises(PolydistillError, match=named) as caught:
        Arch.from_toml(write(tmp_path / "broken.toml", text.replace(old, new)))
    assert "broken.toml" in caught.value.message


@pytest.mark.parametrize(
    ("line", "capability", "reason"),
    [
        ("shared = true", "reduce", "same weights"),
        ('decoder_path = "d"', "reduce", "a decoder beside its encoder"),
        ('decoder_path = "d"', "masked", "a decoder beside its encoder"),
    ],
)
def test_a_file_cannot_support_what_its_layers_rule_out(
    line: str, capability: str, reason: str, tmp_path: Path
) -> None:
    text = f'model_type = "new"\nname = "New"\nsupports = ["trim", "{capability}"]\n' + VOCABULARY
    layers = f'[layers]\npath = "layers"\ncount_key = "n"\n{line}\n'
    with pytest.raises(PolydistillError, match=f"has '{capability}', but .*{reason}"):
        Arch.from_toml(write(tmp_path / "new.toml", text + layers))


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("[a-d f]", ["a", "b", "c", "d", "f"]),
        ("[a {ch} áà {cʼh}]", ["a", "ch", "á", "à", "cʼh"]),
        (r"[\- \u200C \: \[ \] \{ \\ ']", ["-", "\u200c", ":", "[", "]", "{", "\\", "'"]),
        (r"[\u0905-\u0907 {\u0061 b}]", ["अ", "आ", "इ", "ab"]),
        ("[a a]", ["a"]),
        ("[]", []),
    ],
)
def test_the_generator_reads_sets_of_characters(text: str, symbols: list[str]) -> None:
    assert generator().unicode_set(text) == symbols


@pytest.mark.parametrize("text", ["a-z", "[a[b]]", "[^a]", "[a & b]"])
def test_the_generator_refuses_sets_that_it_does_not_understand(text: str) -> None:
    with pytest.raises(ValueError, match=r"Set|sets"):
        generator().unicode_set(text)


def test_what_the_generator_writes_reads_back(tmp_path: Path) -> None:
    make = generator()
    given = catalog.language("fa")
    values = {name: getattr(given, name) for name in ("code", "name", "native_name", "iso639_3", "variants")}
    values |= {name: list(getattr(given, name)) for name in ("scripts", "flores", "letters", "auxiliary")}
    values |= {"aliases": ['say "x"\\'], "punctuation": ['"', "\\", "'"] * 40, "digits": list(given.digits)}
    values |= {"wordfreq": None, "qa_normaliser": None, "corpora": [{"dataset": "a/b", "config": "c"}]}
    one = {"script": "Latn", "regions": ["IR"], "flores": [], "wordfreq": "x", "letters": ["a", "ʼ"], "auxiliary": []}
    one |= {"punctuation": ["."], "digits": [], "corpora": [{"dataset": "d/e", "config": "f"}]}
    values["writings"] = [one]
    read = Language.from_toml(write(tmp_path / "fa.toml", make.as_toml(values)))
    assert (read.letters, read.auxiliary, read.variants) == (given.letters, given.auxiliary, given.variants)
    assert read.punctuation == ('"', "\\", "'") * 40 and 'say "x"\\' in read.aliases
    assert read.corpora == (catalog.Corpus("a/b", "c"),)
    latin = catalog.Corpus("d/e", "f")
    assert read.writings == (
        Writing(script="Latn", letters=("a", "ʼ"), punctuation=(".",), regions=("IR",), corpora=(latin,), wordfreq="x"),
    )


def generator() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "make_languages.py"
    spec = importlib.util.spec_from_file_location("make_languages", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("model_type", ["glm4", "bertt"])
def test_an_unknown_architecture_says_what_is_supported_and_how_one_is_added(model_type: str) -> None:
    """No name is guessed from its spelling: models that are called alike need not be alike."""
    with pytest.raises(PolydistillError, match=model_type) as caught:
        catalog.arch(model_type)
    said = caught.value.hint
    assert caught.value.exit_code == 1 and "lose" not in said and "mean" not in said
    assert f"Supported are {', '.join(a.model_type for a in catalog.architectures())}." in said
    assert "`include_path`" in said and (Path(__file__).parents[2] / catalog.PAGE).is_file() and catalog.PAGE in said


def test_one_language_loads_fast_and_alone() -> None:
    """In a fresh process: nothing heavy is imported, no other language is read, and it takes under 100 ms."""
    code = """
import time
start = time.process_time()
from polydistill import catalog
romanian = catalog.language("ro")
seconds = time.process_time() - start
import sys
heavy = {"numpy", "torch", "transformers", "datasets", "difflib"} & set(sys.modules)
assert not heavy, heavy
assert catalog._shipped.cache_info().currsize == 0
print(seconds)
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(3)]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert min(float(run.stdout) for run in runs) < 0.1
