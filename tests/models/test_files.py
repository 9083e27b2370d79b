"""What of a model's folder a copy has: what fits it, and nothing else; pickles of modules are read as tensors alone."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import tiny
import torch
from conftest import Cut
from safetensors.torch import load_file, save_file

from polydistill.catalog import task
from polydistill.errors import PolydistillError
from polydistill.evaluation.subjects import Settings, Subject
from polydistill.models import pickles
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.copying import copy_beside, copy_model, copy_rest
from polydistill.models.door import check_folder
from polydistill.models.loading import load_sentence_model
from polydistill.models.pickles import check_pickle, to_safetensors
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.progress import Progress
from polydistill.records.record import source_facts
from polydistill.trimming import sentence_vectors

PROMPTS = {"query": "Ένα γράμμα: ", "passage": "Ο γέρος δάσκαλος " * 9, "none": ""}
FOREIGN = {
    "consolidated.safetensors",
    "model.fp16.safetensors",
    "model-00001-of-00002.safetensors",
    "pytorch_model.bin",
    "tf_model.h5",
    "flax_model.msgpack",
    "rust_model.ot",
    "m-Q8_0.gguf",
    "params.json",
    "model_head.pkl",
    "training_args.bin",
    "1_Pooling/old.bin",
    "openvino/openvino_model.bin",
    "openvino/openvino_model.xml",
    "onnx/model.onnx",
    "runs/1/events",
    "other/config.json",
    "dict.txt",
    "labels.json",
    "modeling.py",
}
OTHER_TOKENIZERS = {"tekken.json", "tokenizer.model.v3", "qwen.tiktoken"}
OWN = {"LICENSE", "NOTICE.txt", "USE_POLICY.md", "GEMMA_TERMS.html", "chat_template.jinja", "licenses/third-party.txt"}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with a Dense module, and prompts that a trim to Romanian has no text for."""
    from sentence_transformers import SentenceTransformer, models

    root = tmp_path_factory.mktemp("sentences")
    base = tiny.model_folder("bert", "base", root / "base", tokenizer="xlm-roberta", rows=421)
    torch.manual_seed(0)
    parts = [models.Transformer(str(base), max_seq_length=48), models.Pooling(32, "mean"), models.Dense(32, 12)]
    model = SentenceTransformer(modules=parts, prompts=PROMPTS, default_prompt_name="query", device="cpu")
    model.save(str(root / "st"))
    return root / "st"


@pytest.fixture
def labse(sentences: Path, tmp_path: Path) -> Path:
    """The same with the Dense module's weights in a pickle, as LaBSE has them."""
    folder = Path(shutil.copytree(sentences, tmp_path / "labse"))
    weights = dense_of(folder) / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    return folder


def dense_of(folder: Path) -> Path:
    (found,) = folder.glob("2_*")
    return found


def opened(folder: Path) -> Source:
    return Source.open(resolve(ModelRef.parse(str(folder))))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def size(folder: Path) -> int:
    """Bytes of weights, those of modules too, and of the tokenizer."""
    names = [n for n in files(folder) if n.endswith(".safetensors") or n.startswith("tokenizer")]
    return sum((folder / name).stat().st_size for name in names)


# ---- what is copied ----


def test_a_trim_copies_what_fits_names_the_rest_and_reports_the_size_of_the_folder(
    sentences: Path, cut: Cut, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sentences, tmp_path / "old"))
    for name in FOREIGN | OTHER_TOKENIZERS | OWN:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"x" * 5000)
    new = cut(folder, tmp_path / "new")
    theirs = files(sentences)
    assert files(new.folder) == (theirs | OWN | {"polydistill.json"}) - {"special_tokens_map.json"}
    copied = next(note for note in new.result.notes if "consolidated.safetensors" in note)
    named = set(copied.rpartition(": ")[2].rstrip(".").split(", "))
    assert named == {n for n in FOREIGN if n.startswith("1_Pooling") or "/" not in n} | {
        "onnx/",
        "openvino/",
        "other/",
        "runs/",
    }
    assert all([name in note for note in new.result.notes].count(True) == 1 for name in OTHER_TOKENIZERS)
    assert new.result.bytes == {"before": size(sentences) + 3 * 5000, "after": size(new.folder)}
    assert size(new.folder) > sum((new.folder / name).stat().st_size for name in files(new.folder)) - 40_000
    assert json.loads((new.folder / "polydistill.json").read_text())["result"]["notes"] == list(new.result.notes)
    dry = cut(folder, tmp_path / "dry", dry_run=True).result
    assert (dry.bytes, dry.notes) == (new.result.bytes, new.result.notes)


def test_a_copy_with_the_same_vocabulary_keeps_every_tokenizer_and_no_second_weights(
    sentences: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sentences, tmp_path / "old"))
    for name in FOREIGN | OTHER_TOKENIZERS:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"x")
    (tmp_path / "rest").mkdir()
    (note,) = copy_rest(opened(folder), tmp_path / "rest", vocabulary=True)
    assert "consolidated.safetensors, dict.txt" in note and "tekken" not in note
    assert files(tmp_path / "rest") == (files(sentences) | OTHER_TOKENIZERS) - {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    (tmp_path / "model").mkdir()
    assert copy_model(opened(folder), tmp_path / "model") == [note]
    assert files(tmp_path / "model") == (files(sentences) | OTHER_TOKENIZERS) - {"README.md"}


def test_a_new_head_gets_the_tokenizer_and_the_licence_of_its_model_and_no_more(
    sentences: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sentences, tmp_path / "old"))
    for name in OTHER_TOKENIZERS | {"consolidated.safetensors", "LICENSE", "chat_template.jinja"}:
        (folder / name).write_bytes(b"x")
    (tmp_path / "new").mkdir()
    (note,) = copy_beside(folder, Checkpoint.open(folder), tmp_path / "new")
    tokenizer = {"tokenizer.json", "tokenizer_config.json"} | OTHER_TOKENIZERS
    assert files(tmp_path / "new") == tokenizer | {"LICENSE", "chat_template.jinja"}
    assert note.endswith(": consolidated.safetensors.")


def test_a_record_names_what_no_copy_has(sentences: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sentences, tmp_path / "old"))
    (folder / "params.json").write_text("{}")
    source = opened(folder)
    assert source_facts(source.resolved, source.checkpoint)["left_out"] == ["params.json"]


# ---- modules that are pickles ----


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read_from_both_formats_of_torch(zipped: bool, tmp_path: Path) -> None:
    kept = {"linear.weight": torch.randn(3, 4), "half": torch.randn(2).bfloat16(), "n": torch.tensor([1, 2])}
    saved = {**kept, "parameter": torch.nn.Parameter(torch.ones(2)), "turned": torch.arange(6.0).reshape(2, 3).T}
    torch.save(saved, tmp_path / "x.bin", _use_new_zipfile_serialization=zipped)
    to_safetensors(tmp_path / "x.bin", tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name]) and found[name].dtype == saved[name].dtype for name in saved)


def test_a_pickled_module_becomes_safetensors_and_the_whole_model_is_compared(
    sentences: Path, labse: Path, cut: Cut, tmp_path: Path
) -> None:
    pickled = dense_of(labse) / "pytorch_model.bin"
    weights = load_file(dense_of(sentences) / "model.safetensors")
    new = cut(labse, tmp_path / "new", verify=True)
    found = load_file(dense_of(new.folder) / "model.safetensors")
    assert found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in found)
    assert not list(new.folder.rglob("*.bin"))
    assert any(f"{pickled.relative_to(labse)} was read as tensors only" in note for note in new.result.notes)
    vectors = new.result.verification["vectors"]
    assert sorted(vectors["prompts"]) == ["passage", "query"] and vectors["vectors"] >= 6
    assert vectors["max_abs_difference"] == 0
    texts = ["Fratele meu vede casa roșie.", "Nimeni n-a uitat răspunsul?"]
    before, after = (load_sentence_model(folder) for folder in (labse, new.folder))
    for name in (None, *PROMPTS):
        assert np.array_equal(before.encode(texts, prompt_name=name), after.encode(texts, prompt_name=name))
    assert before.encode(texts).shape == (2, 12)
    assert files(labse) == (files(sentences) - {"2_Dense/model.safetensors"}) | {"2_Dense/pytorch_model.bin"}


def test_the_linear_maps_of_bge_m3_become_safetensors_and_stay_in_later_copies(
    sentences: Path, cut: Cut, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sentences, tmp_path / "old"))
    maps = {"sparse_linear": torch.nn.Linear(32, 1), "colbert_linear": torch.nn.Linear(32, 32)}
    for name, linear in maps.items():
        torch.save(linear.state_dict(), folder / f"{name}.pt")
    once = cut(folder, tmp_path / "once")
    twice = cut(once.folder, tmp_path / "twice")
    for name, linear in maps.items():
        assert any(name in note and "FlagEmbedding" in note for note in once.result.notes)
        found = load_file(twice.folder / f"{name}.safetensors")
        assert torch.equal(found["weight"], linear.weight) and torch.equal(found["bias"], linear.bias)
    assert not list(once.folder.glob("*.pt")) and not twice.result.notes


def test_predictions_are_told_apart_by_the_weights_of_a_pickled_module(labse: Path) -> None:
    def files_hash() -> str:
        return Subject("m", resolve(ModelRef.parse(str(labse))), task("sts"), Settings()).files_hash

    before = files_hash()
    assert files_hash() == before
    torch.save({"linear.weight": torch.zeros(12, 32)}, dense_of(labse) / "pytorch_model.bin")
    assert files_hash() != before


class Evil:
    """What runs code when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.place,)


def renamed(content: object, **options: Any) -> Callable[[Path], None]:
    """Saved by torch."""
    return lambda path: torch.save(content, path, **options)


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def packed(path: Path) -> None:
    """Compressed, so that it could unfold to any size."""
    torch.save({"linear.weight": torch.zeros(8, 32)}, path)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def evil(path: Path, **options: Any) -> None:
    torch.save({"linear.weight": torch.zeros(3), "x": Evil(path.with_name("ran"))}, path, **options)


def in_tar(path: Path) -> None:
    """A tar file that begins as a harmless pickle does; torch before 2.6 runs code of such files."""
    content = pickle.dumps(Evil(path.with_name("ran")))
    entry = tarfile.TarInfo("N." * 5)
    entry.size = len(content)
    with tarfile.open(path, "w") as archive:
        archive.addfile(entry, io.BytesIO(content))


def behind_tensors(path: Path) -> None:
    """Code as torch once wrote it, with an archive of tensors behind it."""
    evil(path, _use_new_zipfile_serialization=False)
    archive = io.BytesIO()
    torch.save({"linear.weight": torch.zeros(8, 32)}, archive)
    path.write_bytes(path.read_bytes() + archive.getvalue())


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "code": (evil, r"is a pickle that calls 'pathlib\."),
    "code, as torch wrote it once": (lambda p: evil(p, _use_new_zipfile_serialization=False), "is a pickle that calls"),
    "code alone": (lambda p: p.write_bytes(pickle.dumps(Evil(p.with_name("ran"))) * 5), "is a pickle that calls"),
    "a name that is computed": (
        raw(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R." + b"\x80\x02N." * 4),
        r"calls 'what it computes the name of \(STACK_GLOBAL\)'",
    ),
    "code before an archive of tensors": (behind_tensors, "is a pickle that calls"),
    "a tar file": (in_tar, "is not a whole file of tensors"),
    "a text of 2^40 bytes": (raw(b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little")), "is not a whole file of tensors"),
    "a whole model": (renamed(torch.nn.Linear(2, 2)), r"calls 'torch\.nn\.modules\.linear\.Linear'"),
    "text": (raw(b"version https://git-lfs.github.com/spec/v1\n"), "is not a whole file of tensors"),
    "nothing": (raw(b""), "is not a whole file of tensors"),
    "a compressed file": (packed, "is not a whole file of tensors"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_pickle_that_could_run_code_is_refused_at_the_door_and_nothing_of_it_runs(what: str, labse: Path) -> None:
    write, said = BAD[what]
    file = dense_of(labse) / "pytorch_model.bin"
    write(file)
    with pytest.raises(PolydistillError, match=said) as stop:
        check_folder(labse)
    assert "\n" not in stop.value.message and str(file) in stop.value.message and stop.value.hint
    with pytest.raises(PolydistillError, match=said):
        load_sentence_model(labse)
    assert not list(labse.rglob("ran"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": {"b": torch.zeros(2)}}, "something other than named tensors"),
        ({"a": torch.zeros(2), "n": 3}, "something other than named tensors"),
        ([torch.zeros(2)], "something other than named tensors"),
        ({3: torch.zeros(2)}, "something other than named tensors"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "larger tensors than it holds"),
    ],
)
def test_a_pickle_must_hold_named_tensors_of_its_own_size(content: object, said: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(PolydistillError, match=said):
        to_safetensors(tmp_path / "x.bin", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_damaged_pickle_is_refused_in_one_sentence(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "x.bin").read_bytes()
    for length in (10, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x.bin").write_bytes(whole[:length])
        with pytest.raises(PolydistillError) as stop:
            to_safetensors(tmp_path / "x.bin", tmp_path / "x.safetensors")
        assert "\n" not in stop.value.message


def test_a_pickle_is_only_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(1 << 19)}, tmp_path / "x.bin")
    check_pickle(tmp_path / "x.bin")
    monkeypatch.setattr(pickles, "LARGEST", 1 << 20)
    with pytest.raises(PolydistillError, match="has 2 MiB; the limit for a pickle is 1 MiB"):
        check_pickle(tmp_path / "x.bin")


def test_a_pickled_module_behind_a_link_is_refused(labse: Path, tmp_path: Path) -> None:
    file = dense_of(labse) / "pytorch_model.bin"
    file.rename(tmp_path / "elsewhere.bin")
    file.symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(PolydistillError, match="a link that leads out"):
        check_folder(labse)


# ---- the whole model is verified ----


def changed_weight(folder: Path) -> None:
    file = dense_of(folder) / "model.safetensors"
    tensors = load_file(file)
    tensors["linear.weight"][0, 0] += 0.1
    save_file(tensors, file)


def no_dense(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))


def other_prompt(folder: Path) -> None:
    file = folder / "config_sentence_transformers.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "prompts": {**values["prompts"], "query": "O casa: "}}))


def shorter(folder: Path) -> None:
    file = folder / "sentence_bert_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_seq_length": 9}))


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "a weight of a module": (changed_weight, "sentence vectors differ by up to"),
    "a module that is not listed": (no_dense, r"list of modules: \['Transformer', 'Pooling'\], in"),
    "a module without weights": (lambda f: (dense_of(f) / "model.safetensors").unlink(), "cannot load"),
    "a prompt": (other_prompt, "prompts: {.*O casa"),
    "the length of inputs": (shorter, "length of inputs: 9, in the original 48"),
}


class Compared(NamedTuple):
    """A trim, and with what the vectors of its result were compared."""

    folder: Path
    plan: Any
    texts: Any
    tokenizers: Any


@pytest.fixture(scope="module")
def compared(sentences: Path, cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    out, real = tmp_path_factory.mktemp("compared") / "new", sentence_vectors.compare
    with mock.patch.object(sentence_vectors, "compare", side_effect=real) as seen:
        cut(sentences, out, verify=True)
    plan, _, texts, tokenizers = seen.call_args.args
    return Compared(out, plan, texts, tokenizers)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_or_missing_part_of_a_sentence_model_is_noticed(what: str, compared: Compared, tmp_path: Path) -> None:
    damage, said = WRONG[what]
    folder = Path(shutil.copytree(compared.folder, tmp_path / "new"))
    damage(folder)
    with pytest.raises(PolydistillError, match=said) as stop:
        sentence_vectors.compare(compared.plan, folder, compared.texts, compared.tokenizers)
    assert stop.value.hint and "\n" not in stop.value.message


def test_a_missing_module_is_noticed_without_any_text(compared: Compared, tmp_path: Path) -> None:
    found = sentence_vectors.compare(compared.plan, compared.folder, [], compared.tokenizers)
    assert found == {"vectors": 0, "prompts": [], "max_abs_difference": None}
    folder = Path(shutil.copytree(compared.folder, tmp_path / "new"))
    no_dense(folder)
    with pytest.raises(PolydistillError, match="list of modules"):
        sentence_vectors.compare(compared.plan, folder, [], compared.tokenizers)


def test_a_prompt_that_no_text_fits_behind_is_named(compared: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    prompts = {"chinese": "老师: ", "query": PROMPTS["query"]}
    monkeypatch.setattr(sentence_vectors, "prompts_of", lambda _: (prompts, None))
    progress = Progress()
    monkeypatch.setattr(progress, "warn", told.append)
    found = sentence_vectors.compare(
        compared.plan, compared.folder, compared.texts, compared.tokenizers, progress=progress
    )
    assert found is not None and found["prompts"] == ["query"]
    assert len(told) == 1 and "'chinese'" in told[0]
