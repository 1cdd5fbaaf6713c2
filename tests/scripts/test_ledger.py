"""ledger: a stage is done only while its inputs and outputs are what was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from conda_bridge.system.usage import Cost
from flashinfer_build.pipeline.ledger import Ledger, digest, tree_digest


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def test_done_until_the_key_changes(ledger: Ledger, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("made")
    assert ledger.lookup("a/b", "k1") is None
    ledger.record("a/b", "k1", [output], Cost(1.5, 3.25, 4096), {"summary": "s"})
    entry = ledger.lookup("a/b", "k1")
    assert entry is not None
    assert (entry.cost, entry.facts) == (Cost(1.5, 3.25, 4096), {"summary": "s"})
    assert ledger.lookup("a/b", "k2") is None


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_an_output_that_is_not_what_was_made_makes_it_run_again(
    ledger: Ledger, tmp_path: Path, damage: str
) -> None:
    output = tmp_path / "out"
    output.write_text("made")
    ledger.record("a", "k", [output], Cost())
    if damage == "changed":
        output.write_text("mode")
    else:
        output.unlink()
    assert ledger.lookup("a", "k") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "k"}'])
def test_a_damaged_entry_means_not_done(ledger: Ledger, tmp_path: Path, text: str) -> None:
    ledger.record("a", "k", [], Cost())
    (tmp_path / "ledger" / "a.json").write_text(text)
    assert ledger.lookup("a", "k") is None


def test_a_bit_flipped_anywhere_in_an_entry_means_not_done(ledger: Ledger, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("made")
    ledger.record("a", "k", [output], Cost(1.5, 2.5, 3), {"summary": "18 checks"})
    file = tmp_path / "ledger" / "a.json"
    whole = file.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        file.write_bytes(damaged)
        found = ledger.lookup("a", "k")
        # White space and the case of nothing: what is read is what was written, or nothing.
        wanted = (Cost(1.5, 2.5, 3), {"summary": "18 checks"})
        assert found is None or (found.cost, found.facts) == wanted
    file.write_bytes(whole)
    assert ledger.lookup("a", "k") is not None


def test_forget(ledger: Ledger) -> None:
    ledger.record("a", "k", [], Cost())
    ledger.forget("a")
    ledger.forget("a")
    assert ledger.lookup("a", "k") is None


def test_tree_digest_sees_names_bytes_and_modes(tmp_path: Path) -> None:
    def make(name: str, files: dict[str, str], mode: int = 0o644) -> Path:
        for file, text in files.items():
            path = tmp_path / name / "src" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)
        return tmp_path / name

    base = tree_digest(make("1", {"a": "1", "b/c": "2"}), ["src"])
    assert tree_digest(make("2", {"a": "1", "b/c": "2"}), ["src"]) == base
    assert tree_digest(make("3", {"a": "1", "b/d": "2"}), ["src"]) != base
    assert tree_digest(make("4", {"a": "1", "b/c": "3"}), ["src"]) != base
    assert tree_digest(make("5", {"a": "1", "b/c": "2"}, 0o755), ["src"]) != base
    generated = ("__pycache__/x", "_build_info.py", "b/x.pyc", "x.so")
    made = make("6", {"a": "1", "b/c": "2", **dict.fromkeys(generated, "x")})
    assert tree_digest(made, ["src"]) == base


def test_digest_does_not_depend_on_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_a_path_counts_by_its_name() -> None:
    assert digest({"cache": Path("/a")}) == digest({"cache": "/a"}) != digest({"cache": Path("/b")})


def test_the_folder_may_be_moved_as_a_whole(tmp_path: Path) -> None:
    """What lies beside the ledger moves along; what lies elsewhere stays where it is."""
    inside, elsewhere = tmp_path / "build" / "sub" / "made", tmp_path / "elsewhere"
    inside.parent.mkdir(parents=True)
    for output in (inside, elsewhere):
        output.write_text(output.name)
    Ledger(tmp_path / "build" / "ledger").record("a", "k", [inside, elsewhere], Cost())
    (tmp_path / "build").rename(tmp_path / "moved")
    moved = Ledger(tmp_path / "moved" / "ledger")
    entry = moved.lookup("a", "k")
    assert entry is not None
    assert set(entry.outputs) == {"sub/made", str(elsewhere)}
    (tmp_path / "moved" / "sub" / "made").write_text("mode")
    assert moved.lookup("a", "k") is None
