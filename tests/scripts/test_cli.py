"""The program conda-bridge: its options, what it prints, and how it fails."""

# ruff: noqa: E501  (tables: a case a line)

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import factories
import foreign
import foreign_wheels
import pytest
import toy_artifacts as toy

import conda_bridge
from conda_bridge import errors
from conda_bridge.cli.main import main

COMMANDS = ("to-wheel", "to-conda", "verify", "compare", "index", "label", "show")
SCRIPTS = Path(conda_bridge.__file__).parents[1]
TABLE = """
[tool.conda-bridge]
package = "toy"
[tool.conda-bridge.label]
build = "{cuda}[_g{commit}]_{number}"
local = "{cuda}[.g{commit}]"
rank = "cuda"
fields.cuda = { form = "cu{major:2}{minor}", none = "cpu" }
[[tool.conda-bridge.fold]]
package = "libtoy"
build = "{cuda}_h{number}"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with nothing above it that is a project's."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(*arguments: str | Path, cwd: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "conda_bridge.cli", *map(str, arguments)],
        cwd=cwd,
        env={"PYTHONPATH": str(SCRIPTS), "PATH": os.environ["PATH"], **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    process = started(*arguments, cwd=cwd, **environ)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def pure_wheel(folder: Path) -> Path:
    return foreign_wheels.wheel(
        folder,
        {"toy.py": "x = 1\n"},
        metadata=["Summary: a toy \u2013 für alle", "Requires-Dist: numpy"],
    )


# ------------------------------------------------------------ the program as a whole


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples_and_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*filter(None, [command]), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"conda-bridge {command or 'to-wheel'} " in text
    assert "Exit status: 0 " in text
    if command:
        assert "--json" in text
        assert ("--config" in text) is (command != "compare")
        assert ("--dry-run" in text) is (command in ("to-wheel", "to-conda", "index"))
        assert ("--mapping" in text) is (command in ("to-wheel", "to-conda"))


def test_help_imports_nothing_that_takes_time(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom conda_bridge.cli.main import main\n"
        "try: main([*sys.argv[1:], '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    for command in ([], *([name] for name in COMMANDS)):
        done = subprocess.run(
            [sys.executable, "-S", "-c", program, *command],
            env={"PYTHONPATH": str(SCRIPTS)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] in ("['conda_bridge']", "['__main__', 'conda_bridge']")


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["show"], ["label", "--nonsense"], ["index", "--dry", "x"]]
)
def test_a_call_that_is_none_is_unusable_input(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: conda-bridge" in capsys.readouterr().err


CALLS: list[list[str]] = [
    ["to-wheel", "nothing.conda"],
    ["to-conda", "nothing.whl"],
    ["verify", "nothing"],
    ["compare", "nothing", "nowhere"],
    ["index", "nothing"],
    ["label", "--parse", "nothing"],
    ["show", "nothing.whl"],
]


@pytest.mark.parametrize("arguments", CALLS, ids=lambda arguments: arguments[0])
def test_unusable_input_is_said_in_words_and_in_json(
    here: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and "nothing" in printed.err
    assert main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.err == ""
    document = json.loads(printed.out)
    [error] = document.get("errors", [document])
    assert error["what"] and "nothing" in error["where"]
    assert list(here.iterdir()) == []


# ------------------------------------------------------------ which project


def test_the_nearest_table_is_the_project(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pyproject.toml").write_text(TABLE)
    below = here / "a" / "b"
    below.mkdir(parents=True)
    (here / "a" / "pyproject.toml").write_text("[tool.other]\n")
    monkeypatch.chdir(below)
    parse = ["label", "--json", "--parse", "toy-1.0-cu124_3.conda"]
    assert main(parse) == 0
    assert json.loads(capsys.readouterr().out)["fields"] == {"cuda": "12.4", "commit": None}
    assert main([*parse, "--no-config"]) == 0
    assert json.loads(capsys.readouterr().out)["fields"] == {}
    (here / "own.toml").write_text('package = "other"\n')
    assert main([*parse, "--config", str(here / "own.toml")]) == 2
    assert "'toy' is not a package of this project" in capsys.readouterr().out
    assert main(["label", "--parse", "x-1.0-0.conda", "--config", str(here / "no.toml")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*parse, "--no-config", "--config", "x"])


def test_a_broken_file_above_says_how_to_leave_it_out(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pyproject.toml").write_text("[tool.conda-bridge]\nwheel-nam = 1\n")
    assert main(["label", "--parse", "toy-1.0-0.conda"]) == 2
    err = capsys.readouterr().err
    assert "write 'wheel-name'" in err and "--no-config" in err
    assert main(["label", "--parse", "toy-1.0-0.conda", "--no-config"]) == 0


def test_looking_at_a_package_runs_no_code_of_the_folder(here: Path) -> None:
    """A folder of downloads may have any pyproject.toml; hooks are for those who publish."""
    (here / "pyproject.toml").write_text('[tool.conda-bridge]\nhooks = "evil"\n')
    (here / "evil.py").write_text(
        "import pathlib; pathlib.Path('run').touch()\n"
        "from conda_bridge.hooks import Hooks\nHOOKS = Hooks()\n"
    )
    wheel = pure_wheel(here)
    for arguments in (["show", wheel], ["label", "--parse", wheel], ["compare", here, here]):
        run(*arguments, cwd=here)
        assert not (here / "run").exists()
    run("to-conda", wheel, "--dry-run", cwd=here)
    assert (here / "run").exists()  # and they are found beside the file


# ------------------------------------------------------------ the commands


def test_there_and_back(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = pure_wheel(here / "wheels")
    assert main(["to-conda", str(wheel), "-o", "made", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("would write  made/toy-1.0-py_0.conda  (")
    assert not (here / "made").exists()
    assert main(["to-conda", str(wheel), "-o", "made"]) == 0
    assert capsys.readouterr().out.startswith("written      made/toy-1.0-py_0.conda  ")
    assert main(["to-conda", str(wheel), "-o", "made"]) == 0
    assert capsys.readouterr().out.startswith("unchanged    made/toy-1.0-py_0.conda  ")
    assert main(["to-wheel", "made/toy-1.0-py_0.conda"]) == 0
    assert capsys.readouterr().out.startswith("written      toy-1.0-py3-none-any.whl  ")
    (here / "names.toml").write_text('numpy-of-ours = "numpy"\n')
    assert main(["to-conda", str(wheel), "-o", "named", "--mapping", "names.toml", "--json"]) == 0
    [item] = json.loads(capsys.readouterr().out)["packages"]
    assert "numpy-of-ours" in item["packages"][0]["depends"]
    # One that fails keeps no other; a name with other bytes is a finding.
    Path("made/toy-1.0-py_0.conda").write_bytes(b"another")
    assert main(["to-conda", "nothing.whl", str(wheel), "-o", "third", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (len(document["packages"]), len(document["errors"])) == (1, 1)
    assert main(["to-conda", str(wheel), "-o", "made"]) == 1
    assert "other bytes" in capsys.readouterr().err
    assert main(["to-conda", str(wheel), "-o", "made", "--overwrite"]) == 0


def test_index_and_compare(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = pure_wheel(here / "wheels")
    assert main(["to-conda", str(wheel), "-o", "one"]) == 0
    package = "one/toy-1.0-py_0.conda"
    assert main(["compare", "one", "one"]) == 0
    capsys.readouterr()
    assert main(["index", "dist", "--add", str(wheel), "--add", package, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["wheels"] == [wheel.name]
    assert document["packages"] == [Path(package).name]
    assert main(["index", "dist"]) == 0
    assert "nothing has changed" in capsys.readouterr().out
    assert main(["index", "new", "--add", package]) == 0
    assert "nothing has changed" not in capsys.readouterr().out
    assert main(["index", "new", "--add", package]) == 0
    assert "nothing has changed" in capsys.readouterr().out


@pytest.mark.parametrize("threads", ["-1", "x", "1e3", "99999"])
def test_a_number_of_threads(here: Path, capsys: pytest.CaptureFixture[str], threads: str) -> None:
    for command in (["to-wheel", "x.conda"], ["to-conda", "x.whl"]):
        with pytest.raises(SystemExit) as caught:
            main([*command, f"--threads={threads}"])
        assert caught.value.code == 2
        assert f"{threads!r} is no number of threads" in capsys.readouterr().err


def test_every_failure_says_of_which_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """METADATA's own faults, and those of a member, name neither the package nor the wheel."""
    text = foreign.metadata("demo", "1.2.0", "License-Expression: Foo")
    own = {"site-packages/demo-1.2.0.dist-info/METADATA": text}
    kind = {"noarch": "python", "subdir": "noarch", "license": ""}
    made = foreign.package(here, build="py_0", files=own, about={"summary": "x"}, **kind)
    names = [made.name]
    program = foreign.compiled("int main(void) { return 0; }", program=True)
    made = foreign.package(here, files={f"{foreign.SITE}demo.py": "", "bin/demo": program})
    names.append(made.name)
    tag = ["--platform-tag", "manylinux_2_5_x86_64"]
    assert main(["to-wheel", *names, *tag, "--json"]) == 2
    failures = json.loads(capsys.readouterr().out)["errors"]
    assert [failure["where"].partition(":")[0] for failure in failures] == names
    assert main(["to-wheel", *names, *tag]) == 2
    said = capsys.readouterr().err
    assert all(f"error: {name}: " in said for name in names), said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cuda=12.4", "--version", "1.0rc1", "--build-number", "2"], {"conda_version": "1.0.rc1", "conda_build": "cu124_2", "conda_build_number": 1204002, "wheel_version": "1.0rc1+cu124", "libtoy_build": "cu124_h2", "name": "toy"}),
        (["--version", "1.0"], {"conda_build": "cpu_0", "wheel_version": "1.0+cpu"}),
        (["cuda=", "commit=1a2b3c4", "--version", "1.0"], {"conda_build": "cpu_g1a2b3c4_0", "wheel_version": "1.0+cpu.g1a2b3c4"}),
        (["--parse", "dir/toy-1.0+cu118-2-py3-none-any.whl"], {"conda_build": "cu118_2", "build_number": 2}),
        (["--parse", "toy-1.0.rc1-cu118_2.tar.bz2"], {"public_version": "1.0rc1", "build_number": 2}),
        (["--parse", "libtoy-1.0-cu118_h2.conda"], {"name": "libtoy", "libtoy_build": "cu118_h2"}),
    ],
)  # fmt: skip
def test_label(
    here: Path,
    arguments: list[str],
    expected: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "pyproject.toml").write_text(TABLE)
    assert main(["label", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {key: found.get(key) for key in expected} == expected
    assert main(["label", *arguments]) == 0
    assert str(found["public_version"]) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to name"),
        (["cuda=12.4"], "no version"),
        (["cuda", "--version", "1.0"], "no value of a field"),
        (["cuda=1", "cuda=2", "--version", "1.0"], "twice"),
        (["cuda=12", "--version", "1.0"], "does not fit"),
        (["torch=2.4", "--version", "1.0"], "no field 'torch'"),
        (["--version", "1.0+cu124"], "has a local part"),
        (["--version", "1.0", "--build-number", "-1"], "no build number"),
        (["--version", "1.0", "--parse", "toy-1.0-cpu_0.conda"], "takes no other setting"),
        (["--parse", "toy-1.0-cu1_0.conda"], "not a build string"),
        (["--parse", "toy-1.0.tar.gz"], "neither a wheel nor a conda package"),
        (["--parse", "toy.conda"], "not a conda package's name"),
    ],
)
def test_a_label_that_cannot_be(
    here: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pyproject.toml").write_text(TABLE)
    assert main(["label", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_show(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = factories.label_of("cu130_torch213")
    package = toy.write_conda_library(here, label)
    wheel = pure_wheel(here)
    old = factories.as_tar_bz2(package)
    assert main(["show", str(package), str(wheel), str(old), "--json"]) == 0
    conda, pure, same = json.loads(capsys.readouterr().out)["artifacts"]
    assert (conda["name"], conda["version"], conda["build"]) == (
        "libflashinfer",
        "0.1.6",
        "cu130_0",
    )
    assert conda["depends"] == ["__glibc >=2.28,<3.0.a0"]
    [library] = conda["libraries"]
    assert library["soname"] == "libflashinfer.so"
    assert library["gpu_code"] and "sm_80" in library["gpu_code"]
    assert [item["path"] for item in conda["files"]] == [
        "include/flashinfer/api.h",
        "lib/libflashinfer.so",
        "share/libflashinfer/sboms/libflashinfer.cdx.json",
    ]
    assert conda["payload_size"] == sum(item["size"] for item in conda["files"])
    assert (pure["tags"], pure["requires"]) == (["py3-none-any"], ["numpy"])
    assert {**same, "file": "", "size": 0, "sha256": ""} == {
        **conda,
        "file": "",
        "size": 0,
        "sha256": "",
    }
    assert main(["show", str(package), str(wheel), "--files"]) == 0
    text = capsys.readouterr().out
    assert "GPU code" in text and "sm_80" in text and "a toy \u2013 für alle" in text
    assert "  lib/libflashinfer.so" in text and "toy.py" in text
    (here / "notes.txt").write_text("")
    assert main(["show", "notes.txt"]) == 2
    assert "neither a conda package nor a wheel" in capsys.readouterr().err


def test_show_says_which_library_cannot_be_read(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = foreign_wheels.wheel(here, {"toy.so": b"\x7fELF but no more", "toy.so.1": b"text"})
    assert main(["show", str(wheel)]) == 0
    assert capsys.readouterr().out.count("unreadable") == 2


# ------------------------------------------------------------ surroundings


def no_traceback(done: subprocess.CompletedProcess[str]) -> None:
    assert "Traceback" not in done.stdout + done.stderr
    assert "fault of the program" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environ", "code"),
    [
        ({"PYTHONIOENCODING": "ascii"}, 0),
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, 0),
        ({"TERM": "nonsense", "COLUMNS": "many", "LINES": "-1"}, 0),
        ({"HOME": "/nonexistent", "XDG_CACHE_HOME": "relative"}, 0),
        ({"SOURCE_DATE_EPOCH": "tomorrow"}, 2),
        ({"SOURCE_DATE_EPOCH": "-1"}, 2),
        ({"TMPDIR": "/nonexistent"}, 0),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_whatever_the_environment_holds(here: Path, environ: dict[str, str], code: int) -> None:
    wheel = pure_wheel(here)
    done = run("show", wheel, cwd=here, **environ)
    no_traceback(done)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("to-conda", wheel, cwd=here, **environ)
    no_traceback(done)
    assert done.returncode == code, done.stderr
    assert code == 0 or "SOURCE_DATE_EPOCH" in done.stderr


def test_a_reader_that_has_enough(here: Path) -> None:
    wheel = foreign_wheels.wheel(here, {f"toy/{n:05}.py": "" for n in range(9000)})
    process = started("show", wheel, "--files", cwd=here)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 128 + signal.SIGPIPE


def waits_for(lock: Path, process: subprocess.Popen[str]) -> bool:
    """Whether the process has opened the lock that another holds."""
    assert process.poll() is None
    opened = []
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            opened.append(str(entry.readlink()))
    return str(lock) in opened


def test_an_interrupt(here: Path) -> None:
    """While it waits for the lock of another publisher."""
    wheel = pure_wheel(here / "built")
    (here / "dist").mkdir()
    from conda_bridge.system import atomic

    with atomic.lock(here / "dist" / ".lock"):
        # A shell that started the tests in the background ignores interrupts for all of them.
        earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = started("index", "dist", "--add", wheel, cwd=here)
        signal.signal(signal.SIGINT, earlier)
        while not waits_for(here / "dist" / ".lock", process):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert err == "interrupted\n"
    assert process.returncode == 128 + signal.SIGINT
    assert not (here / "dist" / "wheels").exists()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'cd {gone} && rmdir {gone} && exec "$@"'
    command = [sys.executable, "-m", "conda_bridge.cli", "label", "--parse", "toy-1.0-0.conda"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        env={"PYTHONPATH": str(SCRIPTS), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    no_traceback(done)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">/dev/full"])
def test_output_that_goes_nowhere(here: Path, closed: str) -> None:
    wheel = pure_wheel(here)
    script = f'"$@" {closed}'
    command = [sys.executable, "-m", "conda_bridge.cli", "show", str(wheel)]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        env={"PYTHONPATH": str(SCRIPTS), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    no_traceback(done)
    assert done.returncode == (2 if "full" in closed else 0), done.stderr


def test_a_fault_of_the_program_is_said_to_be_one(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("conda_bridge.cli.show.contents", broken)
    monkeypatch.setattr("conda_bridge.system.failure.CAUGHT", [])
    assert main(["show", "x.whl"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: x.whl: reading: RuntimeError: oops\n")
    assert "mistake in the program" in said
    assert "in broken" in said  # where it was
    assert main(["show", "x.whl", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["error"] == "Fault"
    assert "in broken" in told["traceback"]


def test_every_kind_of_failure_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if not (isinstance(kind, type) and issubclass(kind, errors.BridgeError)):
            continue
        error = kind(OSError(28, "x")) if kind is errors.StorageError else kind("x")

        def fail(*_arguments: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("conda_bridge.cli.show.contents", fail)
        assert main(["show", "x.whl"]) == kind.exit_code
