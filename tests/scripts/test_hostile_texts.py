"""Whatever an artifact says, a program ends with an exit status and texts that can be printed.

The artifacts are of hostile_inputs.py; every program is entered by its own door, in this process.
What its last net catches is counted: nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hostile_inputs as hostile
import programs
import pytest
import toy_artifacts
from factories import FLASHINFER, label_of
from hostile_inputs import FAKED, TEXTS, Hostile

from conda_bridge.errors import BridgeError, Fault
from conda_bridge.formats import foreign, limits
from conda_bridge.printable import as_json, printable, printable_lines
from conda_bridge.publish.html_page import as_html
from conda_bridge.system import failure, terminal
from conda_bridge.verify.gate import verify
from flashinfer_build.checks import build_info

# Of the artifacts every so many are given to the programs; HOSTILE_EVERY=1 gives all.
EVERY = int(os.environ.get("HOSTILE_EVERY", "61"))


@pytest.fixture(autouse=True)
def nothing_is_caught() -> Iterator[None]:
    """The last net of every program stays empty, whatever a test feeds it."""
    failure.CAUGHT.clear()
    yield
    assert [str(fault) for fault in failure.CAUGHT] == []


def ended_well(
    program: str, *arguments: str, terminal: bool = False, **environ: str
) -> programs.Ended:
    """A run that ended as every run has to."""
    ended = programs.run(program, *arguments, terminal=terminal, environ=environ)
    assert ended.code in (0, 1, 2), ended
    assert not programs.raw_characters(ended, terminal=terminal), ended
    lines = ended.both.decode().splitlines()
    assert not any(line.strip().startswith("faked") for line in lines), ended
    assert "Traceback" not in ended.both.decode(), ended
    return ended


def shown(artifact: str, folder: Path, *, conda: bool) -> Iterable[tuple[str, ...]]:
    """Every program that reads an artifact, with its arguments."""
    out = str(folder / "out")
    plain = ("conda-bridge", "show", "--no-config", "--files", artifact)
    yield plain
    yield (*plain, "--json")
    yield ("conda-bridge", "verify", "--no-config", artifact)
    yield ("conda-bridge", "verify", "--no-config", artifact, "--json")
    yield ("conda-bridge", "to-wheel" if conda else "to-conda", "--no-config", artifact, "-o", out)
    yield ("conda-bridge", "index", "--no-config", f"{out}/dist", "--add", artifact, "--replace")
    yield ("conda-bridge", "label", "--no-config", "--parse", artifact)
    yield ("conda-bridge", "compare", artifact, str(folder / "toy-1.0-py_1.conda"), "--builders")
    yield ("verify", artifact)
    yield ("label", "--parse", artifact)
    yield ("bridge", artifact, "-o", out)
    yield ("index", out, "--add", artifact)
    yield ("compare", artifact, artifact)


def chosen(made: Iterable[Hostile], *, every: int) -> list[Hostile]:
    """Every so many of them, and not always the same value of a place."""
    return [item for number, item in enumerate(made) if number % every == every // 2]


ARTIFACTS = {
    item.what: (item, conda)
    for made, conda in ((hostile.conda_packages(), True), (hostile.wheels(), False))
    for item in chosen(made, every=EVERY)
}
# Of what a terminal obeys every place is tried, by the programs that show most.
OBEYED = {
    item.what: (item, conda)
    for made, conda in ((hostile.conda_packages(), True), (hostile.wheels(), False))
    for item in made
    if item.what.endswith((": controls", ": lines")) and "form" not in item.what
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Hostile], Path | None]:
    """Writes an artifact; None where no file system takes its name."""

    def write(item: Hostile) -> Path | None:
        _, other = hostile.conda(build="py_1")
        (tmp_path / "toy-1.0-py_1.conda").write_bytes(other)
        path = tmp_path / "given" / item.file
        path.parent.mkdir(exist_ok=True)
        try:
            path.write_bytes(item.data)
        except OSError:
            return None
        return path

    return write


@pytest.mark.parametrize("what", ARTIFACTS)
def test_every_program_says_what_is_wrong(
    what: str, written: Callable[[Hostile], Path | None], tmp_path: Path
) -> None:
    item, conda = ARTIFACTS[what]
    path = written(item)
    assert path is not None, what
    for number, (program, *arguments) in enumerate(shown(str(path), tmp_path, conda=conda)):
        ended = ended_well(program, *arguments, terminal=bool(number % 2))
        if "--json" in arguments:
            json.loads(ended.out)
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.parametrize("what", OBEYED)
def test_no_field_commands_the_terminal(
    what: str, written: Callable[[Hostile], Path | None], tmp_path: Path
) -> None:
    item, conda = OBEYED[what]
    path = written(item)
    assert path is not None, what
    ended_well("conda-bridge", "show", "--no-config", "--files", str(path))
    ended_well("conda-bridge", "verify", "--no-config", str(path), terminal=True)
    if conda:
        other = str(tmp_path / "toy-1.0-py_1.conda")
        ended_well("conda-bridge", "compare", "--builders", other, str(path))


def test_a_whole_artifact_passes(tmp_path: Path, written: Callable[[Hostile], Path | None]) -> None:
    """Without this every refusal above would prove nothing."""
    for item in (Hostile("", *hostile.conda()), Hostile("", *hostile.wheel())):
        path = written(item)
        ended = ended_well("conda-bridge", "verify", "--no-config", str(path))
        assert ended.code == 0, ended
    ended = ended_well("conda-bridge", "compare", str(tmp_path / "given/toy-1.0-py_0.conda"),
                       str(tmp_path / "toy-1.0-py_1.conda"))  # fmt: skip
    assert ended.code == 1, ended


def test_a_folder_is_named_as_its_owner_likes(tmp_path: Path) -> None:
    """What no builder gives an artifact, a person may give a folder: it is shown, not refused."""
    folder = tmp_path / f"a\u3000b\x1b[31m\n{FAKED}"
    folder.mkdir()
    for file, data in (hostile.conda(), hostile.wheel()):
        (folder / file).write_bytes(data)
    for words in ([], ["--json"]):
        ended = ended_well("conda-bridge", "verify", "--no-config", str(folder), *words)
        assert ended.code == 0, ended
    package, out = str(folder / "toy-1.0-py_0.conda"), str(folder / "out")
    ended = ended_well("conda-bridge", "to-wheel", "--no-config", package, "-o", out)
    assert ended.code == 0, ended
    assert b"\\x1b[31m" in ended.out
    ended = ended_well("conda-bridge", "index", "--no-config", out, "--add", package)
    assert ended.code == 0, ended


# ------------------------------------------------------------ arguments, variables, files


@pytest.mark.parametrize("program", programs.PROGRAMS)
@pytest.mark.parametrize("text", [TEXTS["controls"], TEXTS["lines"], "\udcff", "9" * 5000])
def test_an_argument_that_no_program_knows(program: str, text: str) -> None:
    if program == "test":  # where a word with a space is one for pytest, after everything else
        text = text.replace(" ", "")
    for words in ([f"--{text}"], ["--json", f"--{text}"], ["show", f"--{text}"]):
        ended = ended_well(program, *words)
        assert ended.code == 2, ended


_FEW = ("controls", "lines", "digits", "parentheses", "half a byte")
_PATHS: dict[str, Sequence[str]] = {
    "bridge": ["{}"],
    "build --variant": ["--variant", "{}", "--dry-run"],
    "build --arch": ["--arch", "{}", "--dry-run"],
    "build --library": ["--library", "{}", "--dry-run"],
    "compare": ["{}", "{}"],
    "gpu_check": ["--peer-site", "{}"],
    "index": ["{}", "--dry-run"],
    "index --add": ["x", "--add", "{}", "--dry-run"],
    "label": ["{}"],
    "label --parse": ["--parse", "{}"],
    "label --parse whl": ["--parse", "flashinfer-0.1.6+{}-cp38-abi3-linux_x86_64.whl"],
    "label --parse conda": ["--parse", "flashinfer-0.1.6-{}.conda"],
    "label --parse library": ["--parse", "libflashinfer-{}-cpu_0.conda"],
    "label --build-number": ["cpu_torch213", "--build-number", "{}"],
    "label --nightly": ["cpu_torch213", "--nightly", "{}"],
    "label --commit": ["cpu_torch213", "--commit", "{}"],
    "label --after": ["cpu_torch213", "--after", "{}"],
    "lock_toolchain": ["--python", "{}", "--dry-run"],
    "matrix conda-args": ["conda-args", "{}", "--dry-run"],
    "matrix report": ["report", "--variant", "{}"],
    "staged_recipe": ["{}", "--maintainer", "{}", "--archive", "{}", "--dry-run"],
    "verify": ["{}"],
    "verify --arch": [".", "--arch", "{}"],
    "conda-bridge show": ["show", "--no-config", "{}"],
    "conda-bridge verify": ["verify", "--no-config", "{}"],
    "conda-bridge compare": ["compare", "{}", "{}"],
    "conda-bridge to-wheel": ["to-wheel", "--no-config", "{}"],
    "conda-bridge to-conda": ["to-conda", "--no-config", "{}"],
    "conda-bridge index": ["index", "--no-config", "{}", "--dry-run"],
    "conda-bridge label": ["label", "--no-config", "--version", "{}"],
    "conda-bridge label field": ["label", "--no-config", "{}", "--version", "1"],
    "conda-bridge label --parse": ["label", "--no-config", "--parse", "{}"],
    "conda-bridge label whl": ["label", "--no-config", "--parse", "toy-{}-py3-none-any.whl"],
    "conda-bridge label conda": ["label", "--no-config", "--parse", "toy-{}-h_0.conda"],
    "conda-bridge label number": ["label", "--no-config", "--parse", "toy-1-h_{}.conda"],
    "conda-bridge label tag": ["label", "--no-config", "--parse", "toy-1-{}-py3-none-any.whl"],
    "conda-bridge --config": ["label", "--config", "{}", "--version", "1"],
    "conda-bridge --mapping": ["to-conda", "--no-config", "--mapping", "{}", "x.whl"],
}


@pytest.mark.parametrize("call", _PATHS)
def test_an_argument_of_any_text(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = call.split(maxsplit=1)[0]
    for what, text in (*TEXTS.items(), ("half a byte", "a\udcffb")):
        if what == "zero" or (what in ("blank", "empty") and "index" in call):
            continue  # no shell can give the one; the others are this folder
        if program in ("build", "matrix") and what not in _FEW:
            continue  # each of these plans a build
        ended_well(program, *(word.replace("{}", text) for word in _PATHS[call]))


@pytest.mark.parametrize(
    "variable",
    [
        *("FLASHINFER_BUILD_VERSION", "FLASHINFER_BUILD_COMMIT", "FLASHINFER_BUILD_NUMBER"),
        *("FLASHINFER_CUDA_ARCH_LIST", "FLASHINFER_EXPECT_VARIANT", "MAX_JOBS", "NVCC_THREADS"),
        *("SOURCE_DATE_EPOCH", "FLASHINFER_COMPILER_CACHE", "CXX", "NVCC", "CXXFLAGS"),
    ],
)
def test_a_variable_of_any_text(variable: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "build")
    for text in TEXTS.values():
        if "\0" in text or len(text) > 100_000:  # no variable has them
            continue
        ended_well("label", "cpu_torch213", **{variable: text})
        if variable in ("MAX_JOBS", "FLASHINFER_CUDA_ARCH_LIST", "SOURCE_DATE_EPOCH"):
            ended_well("native", "info", **{variable: text[:4000]})
            ended_well("build", "--list", "--output", folder, **{variable: text[:4000]})


@pytest.mark.parametrize("what", dict(hostile.toml_texts()))
def test_a_configuration_of_any_bytes(what: str, tmp_path: Path) -> None:
    text = dict(hostile.toml_texts())[what]
    (tmp_path / "pyproject.toml").write_bytes(text)
    (tmp_path / "mapping.toml").write_bytes(text)
    (tmp_path / "own.toml").write_bytes(text.replace(b"a = ", b"[label.fields.x]\nleast = "))
    for file in ("pyproject.toml", "own.toml"):
        config = str(tmp_path / file)
        ended = ended_well("conda-bridge", "label", "--config", config, "--version", "1")
        assert ended.code == 2, ended
    mapping = str(tmp_path / "mapping.toml")
    ended_well("conda-bridge", "to-conda", "--no-config", "--mapping", mapping, "x.whl")


@pytest.mark.parametrize("what", dict(hostile.documents()))
def test_documents_of_any_bytes(what: str, tmp_path: Path) -> None:
    """A lock, a mapping, the pages of an index and a channel's repodata."""
    text = dict(hostile.documents())[what]
    for name in ("lock.json", "dist/channel/noarch/repodata.json", "dist/index/index.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    lock = str(tmp_path / "lock.json")
    assert ended_well("lock_toolchain", "--output", lock, "--python", sys.executable).code == 2
    ended = ended_well("conda-bridge", "to-conda", "--no-config", "--mapping", lock, "x.whl")
    assert ended.code == 2
    file, data = hostile.conda()
    (tmp_path / "dist/channel/noarch" / file).write_bytes(data)
    file, data = hostile.wheel()
    (tmp_path / "dist/wheels").mkdir()
    (tmp_path / "dist/wheels" / file).write_bytes(data)
    (tmp_path / "dist/index/toy").mkdir()
    (tmp_path / "dist/index/toy/index.json").write_bytes(text)
    (tmp_path / "dist/index/toy/index.html").write_bytes(b"<a href='" * 10_000 + text)
    ended_well("conda-bridge", "index", "--no-config", str(tmp_path / "dist"))


def yaml_texts() -> Iterator[tuple[str, str]]:
    """YAML that is none, or has no end."""
    yield "flow lists", "a: " + "[" * 1200 + "]" * 1200
    yield "block lists", "a:\n" + "".join(" " * n + "-\n" for n in range(1500))
    yield "itself", "a: &x [*x]\n"
    yield "itself as a key", "? &x [*x]\n: 1\n"
    yield (
        "anchors in anchors",
        "a: &a [x, x]\n"
        + "".join(
            f"{new}: &{new} [*{old}, *{old}]\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
    )
    yield "digits", f"a:\n  - {'1' * 5000}\n"
    yield "a day", "a: 2024-99-99\n"
    yield "controls", f'a: "{TEXTS["controls"]}"\n'
    yield "escapes", 'zip_keys:\n  - ["\\e[31m"]\n"\\x9b": ["x"]\n'
    yield "a tag", "a: !!python/object/apply:os.system [x]\n"


@pytest.mark.parametrize("what", dict(yaml_texts()))
def test_a_recipe_of_any_text(what: str, tmp_path: Path) -> None:
    from flashinfer_build import variants
    from flashinfer_build.forge import commented_yaml
    from flashinfer_build.toolchain.channel_names import _condarc

    text = dict(yaml_texts())[what]
    path = tmp_path / "conda_build_config.yaml"
    path.write_text(text)
    for read in (
        lambda: variants.load(path),
        lambda: commented_yaml.load(text, "recipe.yaml"),
        lambda: _condarc({"CONDARC": str(path)}),
    ):
        try:
            read()
        except BridgeError as error:
            assert str(error).replace("\n", "").isprintable()


# ------------------------------------------------------------ what the build wrote


def test_a_legitimate_package_for_the_first_torch_of_a_major(tmp_path: Path) -> None:
    """Versions below 2.0 and 3.0 are asked for, to see that they are not accepted."""
    for variant in ("cpu_torch20", "cpu_torch30", "cu124_torch20"):
        label = label_of(variant)
        for path in (
            toy_artifacts.write_conda(tmp_path, label),
            toy_artifacts.write_conda_library(tmp_path, label),
            toy_artifacts.write_wheel(tmp_path, label),
        ):
            report = verify([path], project=FLASHINFER)
            assert not report.errors, [str(error) for error in report.errors]
            assert not [f for f in report.findings if f.check == "dependencies"], report.findings


_BUILD_INFOS = {
    "bytes": b"A = b'x'",
    "signs": b"A = " + b"-" * 30_000 + b"1",
    "terms": b"A = 1" + b"+1" * 15_000,
    "calls": b"A = a" + b"()" * 15_000,
    "parentheses": b"A = " + b"(" * 5000 + b"1" + b")" * 5000,
    "digits": b"A = " + b"1" * 5000,
    "hexadecimal": b"A = 0x" + b"f" * 5000,
    "half a pair": b'A = "\\ud800"',
    "infinity": b"A = 1e999",
    "fraction": b"A = 1.5",
    "ellipsis": b"A = ...",
    "long": b"A = 1\n" * 20_000,
    "not UTF-8": b"A = '\xff'",
    "a zero": b"A = '\0'",
    "an open text": b'A = """x',
    "a carriage return": b"A = 1\rA = 2",
    "a carriage return at the end": b"A = 1\r",
    "an indent": b"if 1:\n    A = 1\n  B = 1",
    "two": b"A = 1; B = 2",
    "f-string": b"A = f'{1}'",
}


@pytest.mark.parametrize("what", _BUILD_INFOS)
def test_a_build_info_with_more_than_constants(what: str) -> None:
    with pytest.raises(ValueError, match=r"line|Python|bytes"):
        build_info.parse(_BUILD_INFOS[what])


def test_a_build_info_is_read_as_python_reads_it() -> None:
    text = '"""Doc."""\n# Comment.\nA = "x\\n"\nB = -3\nC = True\nD = None\nE = \'\xe9\'\r\n'
    ran: dict[str, object] = {}
    exec(text, ran)
    del ran["__builtins__"]
    ran.pop("__doc__", None)
    assert build_info.parse(text.encode()) == ran


def test_a_build_info_in_a_report(tmp_path: Path) -> None:
    label = label_of()
    for what in ("bytes", "half a pair", "digits"):
        text = _BUILD_INFOS[what]
        path = toy_artifacts.write_wheel(tmp_path, label, build_info=text)
        ended = ended_well("verify", str(path), "--json")
        assert ended.code == 1, ended
        assert "build_info" in ended.out.decode()
    controls = f"A = {TEXTS['controls']!r}".encode()
    path = toy_artifacts.write_wheel(tmp_path, label, build_info=controls)
    for words in ([], ["--json"]):
        assert ended_well("verify", str(path), *words, terminal=not words).code == 1


# ------------------------------------------------------------ others' parsers


@pytest.mark.parametrize(
    "parse",
    [
        *(foreign.match_spec, foreign.version_spec, foreign.conda_version, foreign.pip_version),
        *(foreign.specifiers, foreign.requirement, foreign.wheel_name, foreign.tags),
        *(foreign.license_expression, foreign.entry_points),
    ],
)
def test_another_parser_is_given_what_it_can_bear(parse: Callable[[Any], Any]) -> None:
    forms = [
        *TEXTS.values(),
        *(spec for text in TEXTS.values() for spec in hostile.dependencies(text)),
        *(item for text in TEXTS.values() for item in hostile.requirements(text)),
    ]
    for text in forms:
        try:
            parse(text)
        except foreign.Unreadable as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 400
    if parse is not foreign.entry_points:
        for value in (*hostile.VALUES.values(), b"x"):
            with pytest.raises(foreign.Unreadable):
                parse(value)


def test_bounds_of_a_text() -> None:
    deepest = "(" * limits.TEXT_DEPTH + ")" * limits.TEXT_DEPTH
    assert foreign.check(deepest, 100) == deepest
    assert foreign.check("1" * limits.DIGITS, 100)
    for text in (f"({deepest})", "1" * (limits.DIGITS + 1), "a" * 101, "\u0661" * 65):
        with pytest.raises(foreign.Unreadable):
            foreign.check(text, 100)


def test_a_parser_that_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends it, ends a copy of this process, and is a refusal here."""
    import rattler

    here = os.getpid()

    def crash(_text: str) -> None:
        assert os.getpid() != here, "tried in this process"
        os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr(rattler, "MatchSpec", crash)
    with pytest.raises(foreign.Unreadable, match="does not survive"):
        foreign.match_spec("toy[version='1']")


def test_a_parser_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import rattler

    monkeypatch.setattr(rattler, "MatchSpec", lambda _text: signal.pause())
    monkeypatch.setattr(foreign, "_PATIENCE", 0.1)
    with pytest.raises(foreign.Unreadable, match="does not survive"):
        foreign.match_spec("toy[version='1']")


def test_a_panic_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import rattler

    class PanicException(BaseException):
        """As pyo3 has it: no Exception."""

    def panic(_text: str) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(rattler, "MatchSpec", panic)
    for text in ("toy", "toy[version='1']"):
        with pytest.raises(foreign.Unreadable, match="index out of bounds"):
            foreign.match_spec(text)


# ------------------------------------------------------------ doors and streams


@pytest.mark.parametrize("program", programs.PROGRAMS)
def test_every_program_has_a_door(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mistake anywhere in it is told as one, with its place and exit status 2."""

    def broken(*_arguments: object, **_named: object) -> None:
        raise RecursionError(f"oops\x1b[31m\n{FAKED}")

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", broken)
    for words in ([], ["--json"]):
        ended = programs.run(program, *words)
        assert ended.code == 2, ended
        assert not programs.raw_characters(ended)
        assert FAKED not in ended.both.decode().splitlines()
        if words:
            told = json.loads(ended.out)
            assert told["error"] == "Fault"
            assert "in broken" in told["traceback"]
        else:
            assert ended.err.decode().startswith("error: ")
            assert "mistake in the program" in ended.err.decode()
            assert "in broken" in ended.err.decode()
    assert len(failure.CAUGHT) == 2
    failure.CAUGHT.clear()


def test_a_mistake_with_one_file_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conda_bridge.verify import gate

    good, data = hostile.conda()
    (tmp_path / good).write_bytes(data)
    bad, data = hostile.wheel()
    (tmp_path / bad).write_bytes(data)

    def broken(*_arguments: object, **_named: object) -> None:
        raise IndexError("oops")

    monkeypatch.setattr(gate, "check_wheel", broken)
    report = verify([tmp_path / bad, tmp_path / good])
    [error] = report.errors
    assert isinstance(error, Fault)
    assert error.where == f"{bad}: checking"
    assert report.exit_code == 2
    assert [item.artifact for item in report.artifacts if item.checks] == [good]
    failure.CAUGHT.clear()


def test_what_is_printable() -> None:
    for character in map(chr, (*range(0x20), *range(0x7F, 0xA0), *map(ord, hostile.CONTROLS))):
        assert printable(character).isascii()
        assert printable(character) != character
        assert json.loads(as_json(character)) == character
        assert as_json(character).isascii()
        assert as_json(character).isprintable()
        assert as_html(character).isprintable()
        kept = character in "\n\t"
        assert (printable_lines(f"a{character}b") == f"a{character}b") == kept
    assert printable("\ud800") == "\\ud800"
    assert printable("\u00e9 \U0001f600 a\\b") == "\u00e9 \U0001f600 a\\b"


def test_a_console_colours_nothing_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    out = programs.terminal_stream()
    monkeypatch.setattr(sys, "stdout", out)
    with terminal.guarded():
        console = terminal.console()
        console.print(f"[red]mine[/] {TEXTS['controls']}".replace("[31m", ""))
        print(TEXTS["controls"])
    ended = programs.Ended(0, out.bytes.getvalue(), b"")
    assert b"\x1b[31mmine" in ended.out
    assert not programs.raw_characters(ended, terminal=True)
    assert sys.stdout is out
