"""Every command, every kind of hostile model folder: no code of it runs, nothing outside is read, written or lost."""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import hostile
import numpy as np
import pytest
import tiny

import polydistill
from polydistill.cli import commands, main
from polydistill.errors import PolydistillError
from polydistill.methods.bistil import job as bistil_job
from polydistill.methods.sparse import method as sparse
from polydistill.models.folder import card_licence
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.records.record import RunRecord
from polydistill.sparse.files import TASK, BaseTensor, Difference, Entries
from polydistill.stacks.description import Description, Parent
from polydistill.vocab.tokenizer_config import TokenizerConfig


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model, text, labelled data, a difference, and everything beside it that nobody may touch."""
    root = tmp_path_factory.mktemp("home")
    tiny.model_folder("bert", "base", root / "good", tokenizer="xlm-roberta")
    source = {"name": "org/base", "source": "org/base@1", "weights_hash": "0" * 64, "licence": "mit"}
    RunRecord("trim", {}, source, [], {"languages": ["en"]}).save(root / "good")
    (root / "text.txt").write_text("\n".join(tiny.sentences("en", count=60)) + "\n", encoding="utf-8")
    for split in ("train", "dev", "test"):
        path = root / f"data/ner/en/{split}.conll"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Ana B-PER\nsees O\nCluj B-LOC\nand O\nAcme B-ORG\n\n" * 4)
    (root / "data/sts/en").mkdir(parents=True)
    (root / "data/sts/en/test.tsv").write_text("a house\tthe house\t4.0\na letter\tthe sea\t1.0\na ship\ta boat\t3.5\n")
    entries = {"w": Entries(np.array([1]), np.array([0.5], np.float32))}
    Difference(entries, {"w": BaseTensor((4,), "0" * 64)}, TASK).save(root / "difference.safetensors")
    return root


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a victim and a secret beside the hostile model, and yes to every question."""
    shutil.copytree(home / "good", tmp_path / "victim")
    (tmp_path / "secret.txt").write_text("the secret")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return tmp_path


@pytest.fixture
def say(
    home: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Runs a command of `hostile.COMMANDS` on a folder in this process."""

    def say(line: str, evil: Path, *more: str) -> Said:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"y\n" * 9)))
        beside = {"GOOD": "good", "TEXT": "text.txt", "DATA": "data", "DIFFERENCE": "difference.safetensors"}
        paths = {"EVIL": evil, **{name: home / path for name, path in beside.items()}}
        for name, path in paths.items():
            line = line.replace(name, str(path))
        with pytest.raises(SystemExit) as stop:
            main([*line.split(), *more])
            sys.exit(0)
        return Said(int(stop.value.code or 0), *capsys.readouterr())

    return say


@pytest.fixture
def evil(home: Path, place: Path) -> Callable[[str], Path]:
    """Makes a hostile folder of a kind."""

    def make(kind: str) -> Path:
        shutil.rmtree(place / "evil", ignore_errors=True)
        shutil.copytree(home / "good", place / "evil")
        hostile.FOLDERS[kind][0](place / "evil")
        return place / "evil"

    return make


@pytest.mark.parametrize("command", hostile.COMMANDS)
def test_every_command_refuses_every_hostile_folder_before_it_does_anything(
    command: str, say: Callable[..., Said], evil: Callable[[str], Path], place: Path
) -> None:
    before = hostile.hashes(place / "victim")
    for kind, (_, said) in hostile.FOLDERS.items():
        found = say(hostile.COMMANDS[command], evil(kind))
        assert found.code == 1 and said in found.err, f"{kind}: {found.err}"
        assert found.out == "" and "Traceback" not in found.err and "the secret" not in found.err, kind
        assert not list(place.rglob(hostile.MARKER)), f"{kind}: its code ran"
        assert {path.name for path in place.iterdir()} <= {"victim", "secret.txt", "evil", "cache"}, kind
    assert hostile.hashes(place / "victim") == before
    assert (place / "secret.txt").read_text() == "the secret"


def test_every_command_that_opens_a_model_is_tried() -> None:
    tried = {line.split()[0] for line in hostile.COMMANDS.values()}
    others = {"ls", "card", "compare", "run", "tune"}
    assert set(commands()) - tried == others, "these read records alone, or recipes that name other commands"


# --- code


def with_include_path(home: Path, place: Path) -> list[str]:
    """Options that declare the architecture `evil`."""
    known = (Path(polydistill.__file__).parent / "arch/bert.toml").read_text()
    (place / "mine/arch").mkdir(parents=True, exist_ok=True)
    (place / "mine/arch/evil.toml").write_text(known.replace('"bert"', '"evil"', 1))
    return ["--include-path", str(place / "mine")]


@pytest.mark.parametrize(
    "command", [c for c in hostile.COMMANDS if not c.startswith(("sparse ", "embed", "diff", "publish"))]
)
def test_code_does_not_run_either_where_the_user_has_described_the_architecture(
    command: str, say: Callable[..., Said], evil: Callable[[str], Path], home: Path, place: Path
) -> None:
    folder, options = evil("code for its architecture"), with_include_path(home, place)
    assert say(hostile.COMMANDS[command], folder, *options).code == 1
    hostile.change_json(folder / "config.json", architectures=["BertModel"])  # a class that transformers has
    found = say(hostile.COMMANDS[command], folder, *options)
    assert "a bug in polydistill" not in found.err and "Traceback" not in found.err
    assert not list(place.rglob(hostile.MARKER))


@pytest.mark.parametrize("command", ["trim", "finetune", "evaluate, vectors"])
@pytest.mark.parametrize("class_name", ["BertTokenizer", "EvilTokenizer"])
def test_code_of_a_tokenizer_does_not_run(
    command: str, class_name: str, say: Callable[..., Said], home: Path, place: Path
) -> None:
    shutil.copytree(home / "good", place / "evil")
    hostile.with_code(place / "evil")
    auto = {"AutoTokenizer": ["evil.EvilModel", "evil.EvilModel"]}
    hostile.change_json(place / "evil/tokenizer_config.json", tokenizer_class=class_name, auto_map=auto)
    found = say(hostile.COMMANDS[command], place / "evil")
    assert "a bug in polydistill" not in found.err and not list(place.rglob(hostile.MARKER))


def test_the_functions_of_the_library_refuse_what_the_commands_refuse(
    evil: Callable[[str], Path], home: Path, place: Path
) -> None:
    folder, good, text = evil("code for its architecture"), home / "good", str(home / "text.txt")
    calls: list[Callable[[], object]] = [
        lambda: polydistill.count(str(folder), languages=["en"], text=[text]),
        lambda: polydistill.info(str(folder)),
        lambda: polydistill.diff(str(good), str(folder), [text]),
        lambda: polydistill.trim(str(folder), languages=["en"], text=[text], output=place / "out"),
        lambda: polydistill.finetune(str(folder), task="ner", languages=["en"], data_dir=home / "data"),
        lambda: polydistill.evaluate([folder], task="ner", languages=["en"], data_dir=home / "data"),
        lambda: polydistill.stack(folder, good, text=[text]),
        lambda: polydistill.load_stack(folder),
        lambda: polydistill.embed(folder, ["a"]),
        lambda: polydistill.export(folder, output=place / "out"),
        lambda: polydistill.publish(folder, "acme/model", dry_run=True),
    ]
    for call in calls:
        with pytest.raises(PolydistillError, match="code of its own"):
            call()
    assert not list(place.rglob(hostile.MARKER)) and not (place / "out").exists()


def test_a_part_of_a_stack_is_looked_at_like_any_model(home: Path, place: Path) -> None:
    part = Parent("encoder", "org/encoder", "0" * 64, "0" * 64, 1, 4)
    shutil.copytree(home / "good", place / "s")
    (place / "s/encoder").symlink_to(place / "victim")
    Description(part, replace(part, name="llm"), (32, 32, 32), None, 64, whole=True).write(place / "s")
    with pytest.raises(PolydistillError, match="a link that leads out"):
        polydistill.load_stack(place / "s")
    (place / "s/encoder").unlink()
    shutil.copytree(home / "good", place / "s/encoder")
    hostile.own_architecture(place / "s/encoder")
    with pytest.raises(PolydistillError, match="code of its own"):
        polydistill.load_stack(place / "s")
    assert not list(place.rglob(hostile.MARKER))


def test_an_architecture_that_is_not_known_is_refused_before_anything_is_loaded(
    say: Callable[..., Said], home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "good", place / "evil")
    hostile.change_json(place / "evil/config.json", model_type="not-yet-known")
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    assert "not-yet-known" in say(hostile.COMMANDS["finetune"], place / "evil").err


def test_no_call_that_loads_a_model_forgets_to_say_that_code_is_not_trusted() -> None:
    loading, found = {"from_pretrained", "from_config", "SentenceTransformer"}, 0
    for file in sorted(Path(polydistill.__file__).parent.rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", getattr(call.func, "id", "")) in loading:
                trusted = [k.value for k in call.keywords if k.arg == "trust_remote_code"]
                found += 1
                assert [getattr(value, "value", None) for value in trusted] == [False], f"{file}:{call.lineno}"
    assert found >= 15


# --- what lies outside


def test_links_that_lead_out_are_not_followed_into_the_copy_and_are_named(
    say: Callable[..., Said], home: Path, place: Path
) -> None:
    folder = place / "evil"
    shutil.copytree(home / "good", folder)
    (folder / "LICENSE.txt").write_text("free")
    (folder / "licence").symlink_to("LICENSE.txt")
    (folder / "notes.txt").symlink_to("more")
    (folder / "more").symlink_to(place / "secret.txt")
    (folder / "everything").symlink_to(place)
    (folder / ".hidden").symlink_to(place / "secret.txt")
    (folder / "README.md").symlink_to(place / "secret.txt")
    found = say("trim --model EVIL --lang en --text TEXT -o out", folder)
    assert found.code == 0, found.err
    assert "'notes.txt' was not copied: it is a link" in found.err + found.out
    assert "'everything' was not copied" in found.err + found.out and ".hidden" not in found.err + found.out
    copied = {path.name: path.read_bytes() for path in (place / "out").rglob("*")}
    assert not {"notes.txt", "more", "everything", ".hidden"} & copied.keys()
    assert b"the secret" not in b"".join(copied.values()) and copied["licence"] == b"free"
    assert not any(path.is_symlink() for path in (place / "out").rglob("*"))


@pytest.mark.parametrize("command", ["sparse train", "bistil"])
def test_other_copies_do_not_follow_them_either(
    command: str, say: Callable[..., Said], home: Path, place: Path
) -> None:
    shutil.copytree(home / "good", place / "evil")
    (place / "evil/notes.txt").symlink_to(place / "secret.txt")
    more = {"sparse train": "--steps 1 --max-length 16 --batch-size 2", "bistil": "--preset smoke --layers 1 --steps 1"}
    found = say(hostile.COMMANDS[command], place / "evil", *more[command].split())
    assert found.code == 0, found.err
    assert "'notes.txt' was not copied" in found.err
    assert not list((place / "out").rglob("notes.txt"))


def test_a_snapshot_of_the_hubs_cache_is_trimmed_like_a_folder(
    say: Callable[..., Said], home: Path, place: Path
) -> None:
    snapshot, blobs = place / "models--org--m/snapshots/c0ffee", place / "models--org--m/blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for number, file in enumerate(sorted((home / "good").iterdir())):
        shutil.copyfile(file, blobs / f"{number:040}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040}")
    shutil.copyfile(home / "text.txt", blobs / "text")
    (snapshot / "LICENSE.txt").symlink_to("../../blobs/text")
    (snapshot / "notes.txt").symlink_to(place / "secret.txt")
    found = say("trim --model EVIL --lang en --text TEXT -o out", snapshot)
    assert found.code == 0, found.err
    assert (place / "out/LICENSE.txt").is_file() and not (place / "out/notes.txt").exists()
    assert not (place / "out/model.safetensors").is_symlink()


def test_a_copy_of_a_model_is_made_in_the_copy_and_nowhere_else(home: Path, place: Path) -> None:
    source = Source.open(resolve(ModelRef.parse(str(home / "good"))))
    (place / "out").mkdir()
    assert source.place_in(place / "out") == place / "out"
    (place / "out/0_Transformer").symlink_to(place / "victim")
    for model in (source.folder / "../victim", source.folder / "0_Transformer"):
        with pytest.raises(PolydistillError, match="lies outside"):
            replace(source, model=model).place_in(place / "out")


@pytest.mark.parametrize("name", ["vocab.txt", "merges.txt"])
def test_a_file_of_another_kind_of_tokenizer_is_left_out(
    name: str, say: Callable[..., Said], home: Path, place: Path
) -> None:
    shutil.copytree(home / "good", place / "m")
    (place / "m" / name).write_text("a b\n")
    assert say("trim --model EVIL --lang en --text TEXT --no-verify -o out", place / "m").code == 0
    assert not (place / "out" / name).exists()


def test_paths_of_the_machine_where_a_tokenizer_was_written_do_no_harm(
    say: Callable[..., Said], home: Path, place: Path
) -> None:
    shutil.copytree(home / "good", place / "m")
    old = "/root/.cache/huggingface/transformers/226a3071"
    hostile.change_json(place / "m/tokenizer_config.json", tokenizer_file=old, special_tokens_map_file="/etc/passwd")
    assert say(hostile.COMMANDS["trim"], place / "m").code == 0


def test_what_a_student_was_made_of_is_not_looked_for_behind_a_link(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "good", place / "m")
    (place / "m/stages").mkdir()
    (place / "m/stages/vocabulary").symlink_to(place)
    (place / "teacher").symlink_to(place / "victim")
    monkeypatch.setattr(bistil_job, "is_student", lambda source: True)
    with pytest.raises(PolydistillError, match="a link that leads out"):
        bistil_job.own_teacher(Source.open(resolve(ModelRef.parse(str(place / "m")))))


def test_a_difference_behind_a_link_is_not_read(home: Path, place: Path) -> None:
    (place / "d").mkdir()
    (place / "d/difference.safetensors").symlink_to(home / "difference.safetensors")
    with pytest.raises(PolydistillError, match="a link that leads out"):
        sparse.info(place / "d")


def test_a_card_and_templates_behind_links_are_not_read(home: Path, place: Path) -> None:
    shutil.copytree(home / "good", place / "m")
    (place / "card.md").write_text("---\nlicense: mit\n---\n")
    (place / "m/README.md").symlink_to(place / "card.md")
    (place / "m/deep").mkdir()
    (place / "m/deep/x.jinja").symlink_to(place / "secret.txt")
    assert card_licence(place / "m") is None
    assert TokenizerConfig(place / "m").chat_templates == []


# --- chat templates

RAISES = "{{ raise_exception('it was rendered') }}"


@pytest.mark.parametrize(
    "template", [RAISES, "{% for i in range(10 ** 9) %}{% for j in range(10 ** 9) %}x{% endfor %}{% endfor %}"]
)
def test_no_chat_template_is_rendered_when_vectors_are_scored(
    template: str, say: Callable[..., Said], place: Path
) -> None:
    tiny.model_folder("llama", "causal-lm", place / "evil")
    plain = say("evaluate --model EVIL --task sts --lang en --data-dir DATA --json", place / "evil")
    (place / "evil/chat_template.jinja").write_text(template)
    found = say("evaluate --model EVIL --task sts --lang en --data-dir DATA --json", place / "evil")
    assert found.code == 0, found.err
    values = [json.loads(said.out)["scores"][0]["value"] for said in (plain, found)]
    assert values[0] == values[1]


def test_a_model_that_takes_nothing_but_conversations_is_refused(say: Callable[..., Said], place: Path) -> None:
    tiny.model_folder("llama", "causal-lm", place / "evil")
    (place / "evil/chat_template.jinja").write_text(RAISES)
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    hostile.change_json(
        place / "evil/sentence_bert_config.json",
        modality_config={"text": forward, "message": {**forward, "format": "flat"}},
        module_output_name="token_embeddings",
    )
    hostile.modules(place / "evil")
    found = say("evaluate --model EVIL --task sts --lang en --data-dir DATA", place / "evil")
    assert found.code == 1 and "chat template" in found.err and "rendered here" in found.err
