"""Every target, for a short while, and every input that once was a finding.

The inputs are the same each time: seeds, changed by the targets' own mutators, which one number
decides. docs/security.md has the runs of a million inputs each, with atheris for a guide.
"""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import run  # it knows where the makers of archives are

sys.path[1:1] = [path for path in run.PATHS if path not in sys.path]
from conda_bridge.errors import ArtifactError
from fuzz import targets
from fuzz.mutators.chance import Chance
from fuzz.target import Target, check
from fuzz.worker import ENGINES

FINDINGS = Path(__file__).with_name("findings")
TARGETS = targets.by_name()
MIB = 1 << 20
# Inputs of a target; of those that take longer fewer.
_COUNT = 150
_SLOW = dict.fromkeys(("elf", "verify-own", "same-conda", "same-tar-bz2", "conda-spec"), 60)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_does_what_none_may(name: str) -> None:
    target = TARGETS[name]
    accepted = 0
    for data in itertools.islice(target.changed(1), _SLOW.get(name, _COUNT)):
        good, finding = check(target, data)
        accepted += good
        assert finding is None, f"{finding}\n{finding.trace}\n{base64.b64encode(data).decode()}"
    assert accepted, "not one input was right, so nothing behind the first check was reached"


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_is_right(name: str) -> None:
    """Else a mutator begins at what is refused, and comes to nothing."""
    for data in TARGETS[name].inputs():
        assert len(data) <= TARGETS[name].largest
        assert check(TARGETS[name], data) == (True, None)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_the_same_on_another_day(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    today = TARGETS[name].inputs()
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert TARGETS[name].inputs() == today


@pytest.mark.parametrize("name", TARGETS)
def test_a_mutator_does_the_same_again(name: str) -> None:
    target = TARGETS[name]
    seed, *_ = target.inputs()
    made = [
        [target.mutate(seed, Chance(number, words=target.dictionary)) for number in range(20)]
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len(set(made[0])) > 10
    assert all(isinstance(data, bytes) for data in made[0])


def kept() -> list[Path]:
    """The inputs that were findings: as text, or in base64 below lines that begin with #."""
    return sorted(path for path in FINDINGS.rglob("*.*") if path.suffix in (".txt", ".b64"))


def content(path: Path) -> bytes:
    """The input in a file of :func:`kept`."""
    if path.suffix == ".txt":
        return path.read_bytes()
    lines = path.read_text().splitlines()
    return base64.b64decode("".join(line for line in lines if not line.startswith("#")))


@pytest.mark.parametrize("path", kept(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_was_found_is_mended(path: Path) -> None:
    finding = check(TARGETS[path.parent.name], content(path))[1]
    assert finding is None, f"{finding}\n{finding.trace}"


# ------------------------------------------------------------ the house itself


def refuses_too_little(data: bytes) -> None:
    """A reader with faults, each behind a check of its own."""
    if data.startswith(b"deep"):
        raise KeyError(data)
    if data.startswith(b"slow"):
        while True:
            pass
    if data.startswith(b"mute"):
        raise ArtifactError("")
    if data.startswith(b"wrong"):
        raise AssertionError("a property that does not hold")


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("deep", "KeyError in test_fuzz.refuses_too_little"),
        ("slow", "TooSlow in"),
        ("mute", "AssertionError in target._check_message: 'an error that says nothing"),
        ("wrong", "AssertionError in test_fuzz.refuses_too_little: 'a property"),
    ],
)
def test_each_kind_of_fault_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, word: str, found: str
) -> None:
    monkeypatch.setattr("fuzz.target.SECONDS", 0.2)
    target = Target("faulty", refuses_too_little, (), lambda: [b""])
    finding = check(target, word.encode())[1]
    assert finding is not None
    assert finding.what.startswith(found)
    assert check(target, b"fine") == (True, None)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [(120, 480, False), (120, 500, True), (600, 600, False), (600, 610, True), (120, 120, False)],
)
def test_memory_is_a_finding_of_the_input_that_took_it(
    monkeypatch: pytest.MonkeyPatch, before: int, after: int, found: bool
) -> None:
    peaks = iter((before * MIB, after * MIB))
    monkeypatch.setattr("fuzz.target._memory_at_first", lambda: 110 * MIB)
    monkeypatch.setattr("fuzz.target.peak_memory", lambda: next(peaks))
    finding = check(Target("large", len, (), lambda: [b""]), b"")[1]
    assert (finding is not None) == found


FAULTY = """
from fuzz.target import Target
import os, signal
def read(data):
    if data.startswith(b"\\x7fdie"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if len(data) > 6 and data[2] == 120:
        raise KeyError("found")
def mutate(data, chance):
    return b"\\x7fdie" + data if chance.one_in(40) else chance.bytes_near(data)
TARGETS = (Target("faulty", read, ("fuzz.target",), lambda: [b"abcdefgh"], mutate, ("x",)),)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_the_program_finds_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    """An exception and a process that dies: both found, made small, and written down."""
    if engine == "atheris" and importlib.util.find_spec("atheris") is None:
        assert run.main(["tar"]) == 2
        assert "--engine plain" in capsys.readouterr().err
        return
    folder = tmp_path / "fuzz"
    folder.mkdir()
    for name in Path(run.__file__).parent.iterdir():
        if name.name != "targets":
            (folder / name.name).symlink_to(name)
    (folder / "targets").mkdir()
    own = Path(targets.__file__)
    (folder / "targets/__init__.py").write_text(own.read_text())
    (folder / "targets/faulty.py").write_text(FAULTY)
    arguments = ("--runs", "4000", "--coverage", "--json", "--output", str(tmp_path / "out"))
    code = "import sys; sys.path[0:0] = sys.argv[1:2]; from fuzz import run\n"
    code += "run.PATHS[0] = sys.argv[1]; sys.exit(run.main(sys.argv[2:]))"
    paths = os.pathsep.join(run.PATHS[1:])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "faulty", "--engine", engine, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 1, done.stderr
    [result] = json.loads(done.stdout)
    found = {item["key"]: item for item in result["findings"]}
    assert found.keys() == {"faulty: KeyError in faulty.read", "faulty: signal 11"}
    small = base64.b64decode(found["faulty: KeyError in faulty.read"]["data"])
    assert (len(small), small[2]) == (7, 120)
    assert base64.b64decode(found["faulty: signal 11"]["data"]) == b"\x7fdie"
    assert all(Path(item["path"]).is_file() for item in found.values())
    assert result["executions"] > 100


def test_the_program_says_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["nothing"]) == 2
    said = capsys.readouterr()
    assert "no target 'nothing'" in said.err
    assert not said.out
    assert run.main(["--list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(TARGETS)


def test_a_finding_is_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = TARGETS["json"].inputs()[0]
    for data, said in ((seed, "accepted"), (seed + b"x", "refused")):
        (tmp_path / "x").write_bytes(data)
        assert run.main(["json", "--replay", str(tmp_path / "x")]) == 0
        assert capsys.readouterr().out == f"{said}\n"
