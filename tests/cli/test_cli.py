"""The command line as a person uses it: help, output, configuration, completion, what it loads and leaves alone."""

from __future__ import annotations

import errno
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import tiny
from click.shell_completion import ShellComplete
from safetensors import safe_open

from polydistill.cli import cli, commands, main
from polydistill.cli.output import Console
from polydistill.models.loading import loading_failed
from polydistill.runs.tables import columns

# The options of the issue's synopsis.
TRIM_OPTIONS = (
    "--model --lang --text --weight --coverage --vocab-size --min-count --min-share --keep-token --keep-file "
    "--drop-added --pad-to-multiple --dtype --counts --save-counts --verify-text --no-verify --config --dry-run "
    "--limit --seed -o --overwrite --json -q -v"
)
SIZES = ("vocabulary", "rows", "parameters", "bytes")


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        assert self.code == 0, self.err
        assert self.out.endswith("\n") and self.out.count("\n") == 1
        return json.loads(self.out)


Say = Callable[..., Said]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models (`e5`, `gemma` in shards) and Romanian, Swahili and Russian text."""
    folder = tmp_path_factory.mktemp("models")
    tiny.model_folder("bert", "base", folder / "e5", tokenizer="xlm-roberta", rows=421)
    tiny.model_folder("gemma3_text", "causal-lm", folder / "gemma", shards=3)
    for code in ("ro", "sw", "ru"):
        (folder / f"{code}.txt").write_text("\n".join(tiny.sentences(code, count=150)) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def say(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command in this process, in an empty folder, with `{m}` for the folder of models."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))

    def say(*args: str | Path) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(arg).replace("{m}", str(models)) for arg in args])
            sys.exit(0)
        return Said(int(stop.value.code or 0), *capsys.readouterr())

    return say


TRIM = ("trim", "--model", "{m}/e5", "--lang", "ro", "--text", "{m}/ro.txt", "--no-verify")


def run(*args: str | Path, cwd: Path, **environment: str) -> Said:
    """Runs a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "polydistill", *map(str, args)],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


# --- help


def test_help_is_light(tmp_path: Path) -> None:
    said = run("--help", cwd=tmp_path)
    assert said.code == 0 and "Examples:" in said.out
    code = "import sys\nfrom polydistill.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print({'torch', 'transformers', 'numpy', 'tokenizers', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


HEADINGS = {
    "trim": ["Model:", "Text:", "Size:", "Tokens:", "Verification:", "Output:", "General:"],
    "count": ["Model:", "Text:", "Output:", "General:"],
    "plan": ["Model:", "Data:", "Speed:", "General:"],
    "finetune": ["Model:", "Data:", "Training:", "Output:", "General:"],
    "bistil": ["Model:", "Data:", "Training:", "Output:", "General:"],
    "prokd": ["Model:", "Data:", "Method:", "Training:", "Output:", "General:"],
    "project": ["Model:", "Data:", "Method:", "Training:", "Output:", "General:"],
    "run": ["Recipe:", "Output:", "General:"],
    "tune": ["Recipe:", "Output:", "General:"],
    "stack": ["Method:", "Data:", "Training:", "Output:", "General:"],
    "embed": ["Text:", "Speed:", "Output:", "General:"],
    "evaluate": ["Model:", "Data:", "Speed:", "Output:", "General:"],
    "sparse": ["Commands:"],
    "compare": ["Output:", "General:"],
    "export": ["Files:", "Checks:", "Scores:", "Output:", "General:"],
    "card": ["Output:", "General:"],
    "publish": ["Repository:", "Card:", "Checks:", "General:"],
    "info": ["Model:", "Text:", "General:"],
    "diff": ["Text:", "General:"],
    "ls": ["General:"],
}


@pytest.mark.parametrize("command", commands())
def test_help_has_sections_and_examples(command: str, say: Say) -> None:
    said = say(command, "--help")
    assert said.code == 0 and not said.err
    for heading in HEADINGS[command]:
        assert f"\n{heading}\n" in said.out
    assert "Example" in said.out and f"polydistill {command}" in said.out
    assert max(map(len, said.out.splitlines())) <= 110


def test_every_option_of_the_synopsis_is_there() -> None:
    command = cli.get_command(click.Context(cli), "trim")
    assert command is not None
    known = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    assert set(TRIM_OPTIONS.split()) <= known
    assert not [p.name for p in command.params if isinstance(p, click.Option) and not p.help]


def _examples() -> list[str]:
    context = click.Context(cli)
    epilogs = [cli.epilog, *(cli.get_command(context, name).epilog for name in commands())]  # type: ignore[union-attr]
    return [line.strip() for text in epilogs for line in (text or "").splitlines() if "polydistill " in line]


@pytest.mark.parametrize("example", _examples())
def test_every_example_parses(example: str) -> None:
    name, *args = shlex.split(example.partition(" < ")[0].partition(" > ")[0])[1:]  # what the shell sees to
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, args)  # raises on an unknown option or a missing argument


def test_the_examples_are_many_enough() -> None:
    assert len(_examples()) >= 3 + len(commands())


def test_version(say: Say) -> None:
    assert say("--version").out.startswith("polydistill 0.")


def test_shell_completion_of_languages(tmp_path: Path) -> None:
    complete = ShellComplete(cli, {}, "polydistill", "_POLYDISTILL_COMPLETE")
    by_name = {item.value: item.help for item in complete.get_completions(["trim", "--lang"], "Roman")}
    assert by_name["ro"] == "Romanian" and "sw" not in by_name
    assert {"sw"} <= {item.value for item in complete.get_completions(["count", "--lang"], "s")}
    assert {item.value for item in complete.get_completions([], "tr")} == {"trim"}
    words = {"COMP_WORDS": "polydistill trim --lang swa", "COMP_CWORD": "3", "_POLYDISTILL_COMPLETE": "bash_complete"}
    env = {**os.environ, **words}
    shell = ["-c", "import sys; sys.argv = ['polydistill']; from polydistill.__main__ import main; main()"]
    done = subprocess.run([sys.executable, *shell], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert "plain,sw" in done.stdout.splitlines()


# --- output


def test_json_is_one_object_with_the_keys_of_the_issue(say: Say, models: Path) -> None:
    args = [arg for arg in TRIM if arg != "--no-verify"]
    said = say(*args, "--json", "-v", "-o", "out")
    got = said.json
    assert got["command"] == "trim" and got["output"] == "out" and got["languages"] == ["ro"]
    assert got["model"] == str(models / "e5")
    for key in SIZES:
        assert 0 < got[key]["after"] < got[key]["before"]
    assert set(got["coverage"]) == {"ro"} and 0.999 < got["coverage"]["ro"] <= 1
    assert {"special", "letters", "corpus"} <= set(got["kept"])
    assert sum(got["kept"].values()) == got["vocabulary"]["after"] == got["rows"]["after"]
    check = got["verification"]
    assert {"sentences", "identical", "max_abs_difference", "fertility", "unknown_rate"} <= set(check)
    assert check["identical"] == check["sentences"] > 0 and check["max_abs_difference"] < 1e-4
    assert check["fertility"]["before"] == check["fertility"]["after"] > 1
    assert check["unknown_rate"] == {"before": 0.0, "after": 0.0}
    assert got["seconds"] > 0 and got["peak_memory_bytes"] > 1_000_000
    record = json.loads(Path("out/polydistill.json").read_text(encoding="utf-8"))
    assert record["result"] == {**got, "seconds": record["result"]["seconds"]}
    assert record["config"]["languages"] == ["ro"]
    # Progress with its rate is on stderr, and only there.
    assert "cutting" in said.err and "B/s" in said.err and "counting Romanian" in said.err
    assert "Loading weights" not in said.err


def test_table(say: Say) -> None:
    said = say(*TRIM, "-o", "out")
    assert said.code == 0 and not said.err
    for words in ("before", "after", "tokens", "embedding rows", "parameters", "size on disk", "Written to out in"):
        assert words in said.out
    assert "of ro" in said.out and "{" not in said.out
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert "trimmed to ro" in card and "| embedding rows | 421 |" in card


def test_table_says_what_was_verified(say: Say) -> None:
    said = say(*[arg for arg in TRIM if arg != "--no-verify"], "-o", "out", "-q")
    assert "3 of 3 lines tokenize identically; their outputs are equal, bit for bit." in said.out
    assert "Chosen without those lines, the vocabulary would be right for" in said.out
    assert not said.err


def test_verify_text(say: Say) -> None:
    args = [arg for arg in TRIM if arg != "--no-verify"]
    check = say(*args, "--json", "-o", "out", "--verify-text", "{m}/ru.txt").json["verification"]
    assert check["sentences"] == 125 and check["identical"] == 0  # Russian letters are gone
    assert check["unknown_rate"]["before"] == 0 < check["unknown_rate"]["after"]


def test_quiet_keeps_only_the_result_and_warnings(say: Say) -> None:
    said = say(*TRIM[:-3], "--text", "{m}/ru.txt", "--no-verify", "-o", "out", "-q", "--json")
    assert said.json["command"] == "trim"
    assert said.err.startswith("Warning: ") and said.err.count("\n") == 1


def test_bars_are_drawn_only_where_someone_looks(capsys: pytest.CaptureFixture[str]) -> None:
    for options in ({}, {"quiet": True}):
        with Console(as_json=True, **options).bar("work", 10, "B") as done:  # type: ignore[arg-type]
            done(10)
    with Console(as_json=True, verbose=True).bar("work", 2, "model") as done:
        done(2)
    out, err = capsys.readouterr()
    assert not out and err.count("work") >= 1 and "model/s" in err
    assert columns([["a", "bb"], ["ccc", "d"]], right=(1,)) == "a    bb\nccc   d"


@pytest.mark.parametrize("model", ["e5", "gemma"])
def test_dry_run_writes_nothing_and_knows_the_sizes(model: str, say: Say, tmp_path: Path, models: Path) -> None:
    args = ("trim", "--model", f"{{m}}/{model}", "--lang", "ro", "--text", "{m}/ro.txt", "--pad-to-multiple", "8")
    before = tree(tmp_path), tree(models)
    dry = say(*args, "--dry-run", "--json").json
    assert say(*args, "--dry-run", "-o", "a/b/c").out.count("Nothing was written (--dry-run)") == 1
    assert (tree(tmp_path), tree(models)) == before
    real = say(*args, "--no-verify", "--json").json
    assert dry["output"] is None and dry["verification"] is None
    assert real["output"] == f"polydistill-out/{model}-ro"
    for key in (*SIZES, "coverage", "kept", "languages", "model", "notes"):
        assert dry[key] == real[key], key
    folder = Path(real["output"])
    others = ("config.json", "generation_config.json", "README.md", "polydistill.json", "chat_template.jinja")
    files = [p for p in folder.iterdir() if p.name not in (*others, "model.safetensors.index.json")]
    assert real["bytes"]["after"] == sum(p.stat().st_size for p in files)
    values = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            values += sum(tensors.get_tensor(name).size for name in tensors.keys())  # noqa: SIM118
    assert real["parameters"]["after"] == values
    assert real["rows"]["after"] % 8 == 0


def test_places_with_odd_names(say: Say, models: Path) -> None:
    text = Path("a text, în română #1.txt")
    text.write_text((models / "ro.txt").read_text(encoding="utf-8"), encoding="utf-8")
    args = ("trim", "--model", "{m}/e5", "--lang", "ro", "--text", text, "--no-verify", "--json")
    assert say(*args, "-o", "nouă [x]/my model/").json["output"] == "nouă [x]/my model"
    assert say(*args, "-o", "../here/out").code == 0
    assert Path("out/config.json").is_file() and Path("nouă [x]/my model/config.json").is_file()
    assert say("info", "nouă [x]/my model", "--json").json["rows"] > 0
    again = say(*args[:2], "nouă [x]/my model", *args[3:], "-o", "twice").json
    assert again["vocabulary"]["after"] <= again["vocabulary"]["before"]


def test_one_language_by_many_names(say: Say) -> None:
    names = [part for name in ("ron", "ro_RO", "Romanian", "RO", "ron_Latn") for part in ("--lang", name)]
    got = say("trim", "--model", "{m}/e5", *names, "--text", "{m}/ro.txt", "--dry-run", "--json").json
    assert got["languages"] == ["ro"]


def test_several_languages(say: Say) -> None:
    both = ("--lang", "ro", "--lang", "sw", "--text", "ro={m}/ro.txt", "--text", "Swahili={m}/sw.txt")
    got = say("trim", "--model", "{m}/e5", *both, "--weight", "sw=3", "--no-verify", "--json").json
    assert got["output"] == "polydistill-out/e5-ro-sw" and set(got["coverage"]) == {"ro", "sw"}
    small = ("trim", "--model", "{m}/e5", *both, "--vocab-size", "95", "--dry-run", "--json")
    even, more = (say(*small, "--weight", f"sw={n}").json for n in (1, 20))
    assert even["vocabulary"]["after"] == more["vocabulary"]["after"] == 95
    assert more["coverage"]["sw"] > even["coverage"]["sw"]


# --- counts


def test_shards_add_up_to_one_count(say: Say, models: Path) -> None:
    lines = (models / "ro.txt").read_text(encoding="utf-8").splitlines()
    for name, part in (("one", lines), ("a", lines[:100]), ("b", lines[100:])):  # whole multiples of 50 lines
        Path(f"{name}.txt").write_text("\n".join(part) + "\n", encoding="utf-8")
        got = say(
            "count", "--model", "{m}/e5", "--lang", "ro", "--text", f"{name}.txt", "-o", f"c/{name}.json", "--json"
        )
        assert got.json["languages"]["ro"]["lines"] == len(part)
    outputs = {}
    for name, shards in (("one", ["one"]), ("ab", ["a", "b"]), ("ba", ["b", "a"])):
        counts = [part for shard in shards for part in ("--counts", f"c/{shard}.json")]
        args = ("trim", "--model", "{m}/e5", "--lang", "ro", *counts, "--coverage", "0.95", "--no-verify", "-o", name)
        outputs[name] = say(*args, "--json").json
    for name in ("ab", "ba"):
        assert outputs[name]["kept"] == outputs["one"]["kept"]
        for file in ("tokenizer.json", "model.safetensors"):
            assert Path(name, file).read_bytes() == Path("one", file).read_bytes()


def test_saved_counts_can_be_used_again(say: Say) -> None:
    first = say(*TRIM, "--save-counts", "new folder/counts.json", "-o", "first", "--json").json
    again = say(
        "trim",
        "--model",
        "{m}/e5",
        "--lang",
        "ro",
        "--counts",
        "new folder/counts.json",
        "--no-verify",
        "-o",
        "again",
        "--json",
    ).json
    assert first["kept"] == again["kept"]
    assert Path("first/tokenizer.json").read_bytes() == Path("again/tokenizer.json").read_bytes()
    assert [p.name for p in Path("new folder").iterdir()] == ["counts.json"]


def test_count_prints_a_table(say: Say) -> None:
    said = say("count", "--model", "{m}/e5", "--lang", "ro", "--text", "{m}/ro.txt", "-o", "c.json")
    assert said.code == 0 and "150" in said.out and "Written to c.json." in said.out and not said.err


# --- configuration


def write_config(**values: Any) -> None:
    lines = [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in values.items()]
    Path("c.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_config_file(say: Say, models: Path) -> None:
    base = {"model": str(models / "e5"), "lang": "ro", "text": [str(models / "ro.txt")], "dry_run": True}
    write_config(**base, vocab_size=100, verify=False)
    assert say("trim", "--config", "c.toml", "--json").json["vocabulary"]["after"] == 100
    # The command line wins, also with another of the options that exclude each other.
    assert say("trim", "--config", "c.toml", "--json", "--vocab-size", "90").json["vocabulary"]["after"] == 90
    assert say("trim", "--config", "c.toml", "--json", "--coverage", "1").json["coverage"]["ro"] == 1
    swahili = say("trim", "--config", "c.toml", "--json", "--lang", "sw", "--text", "{m}/sw.txt").json
    assert swahili["languages"] == ["sw"]
    write_config(**base, coverage=1)  # a whole number will do for a number
    assert say("trim", "--config", "c.toml", "--json").json["coverage"]["ro"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = = 2", "is not valid TOML"),
        ('langs = ["ro"]', "'langs' is not an option"),
        ('lang = "ro"\nvocab-size = "big"', "vocab-size must be a whole number, not 'big'"),
        ('lang = "ro"\nvocab_size = true', "vocab_size must be a whole number, not True"),
        ("lang = 3", "lang must be text in quotes, not 3"),
        ('lang = "ro"\nverify = "yes"', "verify must be true or false, not 'yes'"),
        ('model = ["a", "b"]', "model takes one value"),
        ("seed = 1\nvocab_size = 5\nvocab-size = 6", "'vocab-size' is given twice"),
        ('lang = "ro"\ncoverage = 2.0', "--coverage is a share between 0 and 1"),
    ],
)
def test_mistakes_in_a_config_file(text: str, said: str, say: Say) -> None:
    Path("c.toml").write_text(text, encoding="utf-8")
    got = say("trim", "--config", "c.toml", "--dry-run")
    assert got.code == 2 and said in got.err and len(got.err.splitlines()) == 2


def test_config_file_that_cannot_be_read(say: Say) -> None:
    assert "No such file" in say("trim", "--config", "none.toml").err
    assert "directory" in say("trim", "--config", ".").err
    Path("c.toml").write_bytes(b"\xff\xfe")
    assert "is not valid TOML" in say("trim", "--config", "c.toml").err


# --- ls


def test_ls(say: Say) -> None:
    languages = {row["code"]: row for row in say("ls", "languages", "--json").json["languages"]}
    assert len(languages) >= 100 and languages["ro"]["name"] == "Romanian" and languages["sw"]["wordfreq"] is None
    table = say("ls", "languages").out.splitlines()
    assert len(table) == len(languages) + 1 and table[0].split()[:2] == ["code", "name"]
    architectures = {row["model_type"]: row for row in say("ls", "architectures", "--json").json["architectures"]}
    assert architectures["xlm-roberta"]["trim"] is True
    assert {row["name"] for row in say("ls", "tasks", "--json").json["tasks"]}
    methods = {row["name"]: row["summary"] for row in say("ls", "methods", "--json").json["methods"]}
    assert methods.keys() >= {"trim", "bistil", "project", "sparse train"} and all(methods.values())


def test_ls_shows_what_the_user_added(say: Say) -> None:
    Path("mine").mkdir()
    ro = (Path(__file__).parents[2] / "languages" / "ro.toml").read_text(encoding="utf-8")
    Path("mine/ro.toml").write_text(ro.replace('name = "Romanian"', 'name = "My Romanian"'), encoding="utf-8")
    rows = say("ls", "languages", "--include-path", "mine", "--json").json["languages"]
    assert next(row["name"] for row in rows if row["code"] == "ro") == "My Romanian"


# --- processes


LIGHT = """
import json, sys
from polydistill.cli import main
found = {}
for args in json.loads(sys.argv[1]):
    try:
        main(args)
    except SystemExit as stop:
        assert not stop.code, args
    found[args[0]] = sorted({"torch", "transformers", "datasets"} & set(sys.modules))
print(json.dumps(found))
"""


def test_what_builds_no_model_loads_no_torch(models: Path, tmp_path: Path) -> None:
    text = str(models / "ro.txt")
    jobs = [
        ["ls", "languages"],
        ["count", "--model", f"{models}/e5", "--lang", "ro", "--text", text, "-o", "c.json"],
        ["info", f"{models}/e5", "--text", text],
        ["trim", "--model", f"{models}/e5", "--lang", "ro", "--text", text, "--no-verify", "-o", "out"],
        ["diff", f"{models}/e5", "out", "--text", text],
        ["card", "out"],
        ["publish", "out", "me/out", "--dry-run", "--license", "mit"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, json.dumps(jobs)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {job[0]: [] for job in jobs}


HALF_WAY = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job has ignored
from polydistill.trimming import surgery
from polydistill.cli import main
write = surgery.write_checkpoint
def slowly(*args, **options):
    write(*args, **options)
    print("half", flush=True)
    time.sleep(60)
surgery.write_checkpoint = slowly
main(sys.argv[1:])
"""


def test_ctrl_c_half_way(models: Path, tmp_path: Path) -> None:
    args = ["trim", "--model", f"{models}/e5", "--lang", "ro", "--text", f"{models}/ro.txt", "-o", "new/place/out"]
    process = subprocess.Popen(
        [sys.executable, "-c", HALF_WAY, *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "half\n"
    partial = next((tmp_path / "new/place").iterdir())
    assert partial.name.startswith(".out.partial") and any(partial.iterdir())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Interrupted; no unfinished output was left behind." in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_reader_that_goes_away(tmp_path: Path) -> None:
    code = "import sys; from polydistill.cli import main; sys.stdin.readline(); main(['ls', 'languages', '--json'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.write("go\n")
    process.stdin.close()
    assert process.stderr.read() == "" and process.wait(20) == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_no_bug(error: Exception, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*args: Any) -> None:
        raise error

    monkeypatch.setattr("polydistill.catalog.languages", greedy)
    said = say("ls", "languages")
    assert said.code == 1 and said.err.startswith("Error: Not enough memory.\nTry smaller batches")
    assert str(loading_failed("A model cannot be loaded", error, "Mend it.")).endswith("with more memory.")


def test_a_line_of_50_mb_is_counted_in_little_memory(models: Path, tmp_path: Path) -> None:
    with (tmp_path / "t.txt").open("wb") as file:
        for _ in range(50):
            file.write(b"a" * 1_000_000)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "polydistill",
            "count",
            "--model",
            f"{models}/e5",
            "--lang",
            "ro",
            "--text",
            "t.txt",
            "-o",
            "c.json",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "c.json").read_bytes())["languages"]["ro"]["texts"][0]["bytes"] == 50_000_051


def test_no_bug_hides_behind_a_sentence(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("polydistill.catalog.languages", broken)
    said = say("ls", "languages")
    assert said.code == 1 and "This is a bug in polydistill" in said.err and "POLYDISTILL_DEBUG=1" in said.err
    monkeypatch.setenv("POLYDISTILL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["ls", "languages"])


def test_a_name_that_is_not_utf_8_is_refused(say: Say) -> None:
    said = say("trim", "--model", "{m}/e5", "--lang", "ro", "--text", "{m}/ro.txt", "-o", "\udcff")
    assert (said.code, said.err.splitlines()[0]) == (2, r"Error: '\udcff' is not UTF-8.")


@pytest.mark.parametrize(
    ("args", "closed", "code", "err"),
    [
        ("ls languages", ">&-", 0, ""),
        ("ls languages", "2>&-", 0, ""),
        ("info nothing", "2>&-", 2, ""),
        ("info nothing", "<&- >&-", 2, "Error: There is no folder nothing."),
    ],
)
def test_closed_streams(args: str, closed: str, code: int, err: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m polydistill {args} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code and "".join(done.stderr.splitlines()[:1]) == err
