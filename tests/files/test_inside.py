"""inside: a path that a file names, or a link, never leads out of its folder; the Hub's cache is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from polydistill.errors import PolydistillError
from polydistill.files.inside import files_below, inside, leads_out, links_out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file and a sub-folder, beside another with a secret."""
    for name in ("m/config.json", "m/0_Transformer/model.safetensors", "other/secret.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("", "."),
        (".", "."),
        ("config.json", "config.json"),
        ("./config.json", "config.json"),
        ("0_Transformer/", "0_Transformer"),
        ("0_Transformer/model.safetensors", "0_Transformer/model.safetensors"),
        ("not there yet", "not there yet"),
        ("..config", "..config"),
        ("été/ü", "été/ü"),
    ],
)
def test_a_path_in_the_folder_is_given_whether_it_exists_or_not(name: str, place: str, folder: Path) -> None:
    assert inside(folder, name, folder / "modules.json") == folder / place


UPWARDS = ["..", "../other", "a/../../other", "../" * 20 + "etc", "0_Transformer/.."]
ABSOLUTE = ["/etc/passwd", "//etc", "\\\\server\\share", "..\\other", "C:\\x", "C:x"]
NO_PATHS = [None, 3, 1.5, True, [], ["config.json"], {}, "\0", "a\0b", "a\nb", "\x1b[2J", "\ud800"]
TOO_LONG = ["x" * 256, "é" * 128, "a/" * 501]


@pytest.mark.parametrize("name", [*UPWARDS, *ABSOLUTE, *NO_PATHS, *TOO_LONG])
def test_what_leads_out_or_is_no_path_is_refused_in_one_sentence(name: object, folder: Path) -> None:
    said = "leads out of its folder" if name in (*UPWARDS, *ABSOLUTE) else "is not a valid path"
    with pytest.raises(PolydistillError, match=said) as caught:
        inside(folder, name, folder / "modules.json")
    assert str(folder / "modules.json") in caught.value.message and caught.value.hint
    assert len(caught.value.message) < 400 and caught.value.message.isprintable()


def test_links_that_lead_out_are_told_from_those_that_stay(folder: Path) -> None:
    leading_out = {
        "to_file": "../other/secret.txt",
        "to_folder": "../other",
        "to_root": "/",
        "chain": "to_file",
        "longer_chain": "chain",
        "through": "to_folder/secret.txt",
        "broken": "../nothing",
        "to_parent": "..",
    }
    for name, target in leading_out.items():
        (folder / name).symlink_to(target)
        assert leads_out(folder / name, folder), name
        with pytest.raises(PolydistillError, match="a link that leads out"):
            inside(folder, name, folder / "modules.json")
    assert leads_out(folder / "to_folder/secret.txt", folder), "below a link"
    (folder / "0_Transformer/up").symlink_to("../config.json")
    staying = {
        "stays": "config.json",
        "absolute": str(folder.resolve() / "config.json"),
        "around": f"../{folder.name}/config.json",
        "to_sub_folder": "0_Transformer",
        "broken_inside": "nothing",
        "loop": "loop",
    }
    for name, target in staying.items():
        (folder / name).symlink_to(target)
        assert not leads_out(folder / name, folder), name
    assert not leads_out(folder / "0_Transformer/up", folder)
    assert leads_out(folder / "0_Transformer/up", folder / "0_Transformer")


def test_a_folder_that_is_itself_a_link_is_like_any_other(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short").symlink_to(folder)
    assert inside(tmp_path / "short", "config.json", folder) == tmp_path / "short/config.json"


def test_files_below_follow_no_link_out_and_none_to_a_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").symlink_to(tmp_path / "other/secret.txt")
    (folder / "deep").mkdir()
    (folder / "deep/other").symlink_to(tmp_path / "other")
    (folder / "deep/again").symlink_to("../0_Transformer")
    (folder / "again.json").symlink_to("config.json")
    (folder / "broken").symlink_to("nothing")
    found = [str(path.relative_to(folder)) for path in files_below(folder)]
    assert found == ["again.json", "config.json", "0_Transformer/model.safetensors"]
    assert [str(path.relative_to(folder)) for path in links_out(folder)] == ["notes.txt", "deep/other"]


def test_a_snapshot_of_the_hubs_cache_has_its_files_in_its_blobs_and_nowhere_else(tmp_path: Path) -> None:
    for name in ("models--org--a", "models--org--b"):
        (tmp_path / name / "blobs").mkdir(parents=True)
        (tmp_path / name / "blobs/0123").write_text("{}")
        (tmp_path / name / "snapshots/c0ffee/1_Pooling").mkdir(parents=True)
    snapshot = tmp_path / "models--org--a/snapshots/c0ffee"
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    (snapshot / "1_Pooling/config.json").symlink_to("../../../blobs/0123")
    (snapshot / "other.json").symlink_to(tmp_path / "models--org--b/blobs/0123")
    (snapshot / "blobs").symlink_to("../../blobs")
    (tmp_path / "models--org--a/refs").write_text("c0ffee")
    (snapshot / "refs").symlink_to("../../refs")
    assert inside(snapshot, "config.json", snapshot / "x").is_file()
    assert inside(snapshot / "1_Pooling", "config.json", snapshot / "x").is_file(), "a part of a snapshot"
    for name in ("other.json", "blobs", "refs"):
        assert leads_out(snapshot / name, snapshot), name
    assert [path.name for path in files_below(snapshot)] == ["config.json", "config.json"]

    (tmp_path / "plain/snapshots/c0ffee").mkdir(parents=True)
    (tmp_path / "plain/blobs").mkdir()
    (tmp_path / "plain/blobs/0123").write_text("secret")
    (tmp_path / "plain/snapshots/c0ffee/notes.txt").symlink_to("../../blobs/0123")
    assert leads_out(tmp_path / "plain/snapshots/c0ffee/notes.txt", tmp_path / "plain/snapshots/c0ffee")
