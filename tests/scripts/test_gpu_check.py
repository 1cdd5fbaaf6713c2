"""gpu_check.py: which wheel fits which torch, what is run, what is written, how it ends."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from wheel_factory import make_wheel

from conda_bridge.errors import ArtifactError, ConfigError, TestsFailed, ToolchainError
from flashinfer_build.label import Label
from flashinfer_build.tryout import gpu_check, gpu_machine
from flashinfer_build.tryout.gpu_check import TestReport
from flashinfer_build.tryout.gpu_machine import Machine

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts" / "gpu_check.py"
DEVICE = {"name": "NVIDIA H200", "capability": "9.0"}
H200 = Machine("3.12.3", "2.11.0+cu130", "13.0", True, DEVICE)


def wheel(
    folder: Path, cuda: str = "13.0.88", torch: str = "2.11", init: str = "", **changes: Any
) -> Path:
    """A wheel with the facts that a build writes, and a package that imports."""
    runtime = "cu" + "".join(cuda.split(".")[:2]) if cuda else "cpu"
    version = f"0.1.6+{runtime}torch{torch}"
    facts = {
        "VERSION": version, "PUBLIC_VERSION": "0.1.6",
        **Label.parse_wheel_version(version).requests,
        "TORCH": torch, "CUDA": cuda,
        "VARIANT": f"{runtime}_torch{torch.replace('.', '')}", "CXX11_ABI": True,
        "ARCH_LIST": "8.0+PTX;9.0a", **changes,
    }  # fmt: skip
    text = "".join(f"{name} = {value!r}\n" for name, value in facts.items() if value is not None)
    files = {
        "flashinfer/_build_info.py": text,
        "flashinfer/__init__.py": init or f"__version__ = {version!r}\n",
    }
    path, _ = make_wheel(folder, "flashinfer", version, files=files, tag="cp38-abi3-linux_x86_64")
    return path


def test_facts_of_a_wheel(tmp_path: Path) -> None:
    build = gpu_machine.read_build(wheel(tmp_path))
    assert (build.version, build.variant) == ("0.1.6+cu130torch2.11", "cu130_torch211")
    assert build.unfit(H200) == ""


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ({"torch": "2.13"}, "was built for torch 2.13, and this is torch 2.11.0+cu130"),
        ({"cuda": "12.8.61"}, "was built for CUDA 12.8.61, and this is torch 2.11.0+cu130 with"),
        ({"cuda": ""}, "is a CPU build: it has no GPU code"),
        ({"CXX11_ABI": False}, "the old ABI of C++ strings"),
    ],
)
def test_a_wheel_for_another_torch(made: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = wheel(tmp_path, **made)
    with pytest.raises(ToolchainError, match=re.escape(text)) as error:
        gpu_machine.choose(path, tmp_path, H200)
    assert error.value.exit_code == 2
    assert error.value.expected == "a wheel of variant cu130_torch211, for torch 2.11.0+cu130"
    assert "python scripts/build.py --variant cu130_torch211" in error.value.fix


def test_a_minor_cuda_update_fits(tmp_path: Path) -> None:
    machine = Machine("3.12.3", "2.11.1", "13.2", True, DEVICE)
    assert gpu_machine.read_build(wheel(tmp_path)).unfit(machine) == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"VARIANT": None}, "VARIANT is None"),
        ({"CXX11_ABI": "yes"}, "CXX11_ABI is 'yes'"),
    ],
)
def test_a_wheel_that_does_not_say(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=text):
        gpu_machine.read_build(wheel(tmp_path, **changes))


def test_facts_are_read_and_never_run(tmp_path: Path) -> None:
    files = {"flashinfer/_build_info.py": "VERSION = __import__('os').getcwd()\n"}
    path, _ = make_wheel(tmp_path, "flashinfer", files=files)
    with pytest.raises(ArtifactError, match="cannot be read"):
        gpu_machine.read_build(path)
    other, _ = make_wheel(tmp_path, "flashinfer", "2.0", files={"flashinfer/x.py": ""})
    with pytest.raises(ArtifactError, match="the member is missing"):
        gpu_machine.read_build(other)


def test_the_wheel_that_fits_is_found(tmp_path: Path) -> None:
    right = wheel(tmp_path / "wheels")
    wheel(tmp_path / "wheels", torch="2.13")
    wheel(tmp_path / "wheels", cuda="")
    assert gpu_machine.choose(None, tmp_path, H200).path == right
    wheel(tmp_path / "wheels", cuda="13.2.1")
    with pytest.raises(ConfigError, match="2 wheels fit") as error:
        gpu_machine.choose(None, tmp_path, H200)
    assert error.value.fix == "name one with --wheel"


def test_no_wheel_fits(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="none fits; found: no wheel"):
        gpu_machine.choose(None, tmp_path, H200)
    other = wheel(tmp_path / "wheels", torch="2.13")
    with pytest.raises(ToolchainError, match=re.escape(f"found: {other.name}")):
        gpu_machine.choose(None, tmp_path, H200)


FACTS: dict[str, Any] = {
    "python": "3.12.3", "torch": "2.11.0+cu130", "cuda": "13.0", "cxx11_abi": True,
    "device": DEVICE,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"torch": "", "reason": "torch cannot be imported: x"}, "torch cannot be imported"),
        ({"device": None, "reason": "torch 2 sees no GPU"}, "sees no GPU"),
        ({"device": {"name": "Tesla V100", "capability": "7.0"}}, "capability 7.0"),
    ],
)
def test_a_machine_that_will_not_do(changes: dict[str, Any], text: str) -> None:
    assert gpu_machine.machine_of(FACTS) == H200
    with pytest.raises(ToolchainError, match=text):
        gpu_machine.machine_of({**FACTS, **changes})


def test_names_of_a_machine(tmp_path: Path) -> None:
    assert H200.slug == "nvidia-h200"
    assert H200.variant == "cu130_torch211"
    a100 = Machine("3.11", "2.4.1+cu124", "12.4", False, {"name": "NVIDIA A100-SXM4-80GB (x)"})
    assert (a100.slug, a100.variant) == ("nvidia-a100-sxm4-80gb-x", "cu124_torch24")
    path = gpu_check.output_file(tmp_path, H200, "2026-11-25")
    assert path == tmp_path / "2026-11-25-nvidia-h200.json"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d-nvidia-h200\.json",
                        gpu_check.output_file(tmp_path, H200).name)  # fmt: skip


def test_what_is_missing_is_named() -> None:
    gpu_machine.need("json", "x", "y")
    with pytest.raises(ToolchainError, match=r"no_such_module cannot be imported; it is needed"):
        gpu_machine.need("no_such_module", "run the tests", "pip install it")


def test_installed_from_a_folder_and_gone_again(tmp_path: Path) -> None:
    build = gpu_machine.read_build(wheel(tmp_path))
    lines: list[str] = []
    with gpu_check.installed(build, lines.append) as site:
        assert (site / "flashinfer" / "_build_info.py").is_file()
        assert list(site.glob("*.dist-info"))
    assert not site.exists()
    assert lines == [f"pip install --no-deps --no-index --target <scratch> {build.path.name}"]


@pytest.mark.parametrize(
    ("init", "text"),
    [
        ("raise ImportError('undefined symbol: _ZN3c10')", "undefined symbol: _ZN3c10"),
        ("__version__ = '9'", "finds 9 in"),
    ],
)
def test_what_cannot_be_imported_is_a_finding(init: str, text: str, tmp_path: Path) -> None:
    build = gpu_machine.read_build(wheel(tmp_path, init=init))
    with pytest.raises(TestsFailed, match=text), gpu_check.installed(build, lambda _: None):
        pytest.fail("not to be entered")


JUNIT = b"""<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="5">
<testcase classname="tests.ops.test_a" name="test_1[cuda]" time="0.5" />
<testcase classname="tests.ops.test_a" name="test_2[cuda]" time="0.25"><failure
 message="AssertionError: off by 3&#10;more">long</failure></testcase>
<testcase classname="tests.ops.test_a" name="test_3" time="0"><skipped message="s" /></testcase>
<testcase classname="tests.ops.test_b" name="test_4" time="0"><error message="E" /></testcase>
<testcase classname="tests.ops.test_b" name="test_5" time="1"><failure message="F" />
 <error message="G" /></testcase>
</testsuite></testsuites>"""


def test_counts_of_pytest() -> None:
    found = gpu_check.read_junit(JUNIT)
    assert found == TestReport(
        passed=1, failed=2, errors=2, skipped=1, seconds=1.8,
        failures=(
            "tests.ops.test_a::test_2[cuda]: AssertionError: off by 3",
            "tests.ops.test_b::test_4: E",
            "tests.ops.test_b::test_5: F",
            "tests.ops.test_b::test_5: G",
        ),
    )  # fmt: skip
    assert not found.good
    assert TestReport(3, 0, 0, 2, 1.0).good
    assert not TestReport(0, 0, 0, 9, 1.0).good, "skipped is not checked"


def test_pytest_runs_against_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    tests = project / "tests" / "ops"
    tests.mkdir(parents=True)
    (project / "pytest.ini").write_text("[pytest]\nmarkers = gpu: x\n")
    # The source tree's own package is beside the tests, as in this project.
    (project / "flashinfer").mkdir()
    (project / "flashinfer" / "__init__.py").write_text("raise ImportError('source tree')\n")
    (tests / "test_toy.py").write_text(
        "import pytest, flashinfer\n"
        "@pytest.mark.gpu\n"
        "def test_version(): assert flashinfer.__version__ == '0.1.6+cu130torch2.11'\n"
        "@pytest.mark.gpu\n"
        "def test_bad(): assert flashinfer.__version__ == 'other'\n"
        "def test_not_for_the_gpu(): raise SystemError\n"
    )
    monkeypatch.setattr(gpu_check, "_ROOT", project)
    monkeypatch.setattr(gpu_check, "GPU_TESTS", ("tests/ops",))
    build = gpu_machine.read_build(wheel(tmp_path))
    lines: list[str] = []
    with gpu_check.installed(build, lambda _: None) as site:
        found = gpu_check.run_tests(site, lines.append)
        assert (found.passed, found.failed, found.errors, found.skipped) == (1, 1, 0, 0)
        assert found.failures[0].startswith("tests.ops.test_toy::test_bad: AssertionError")
        with pytest.raises(TestsFailed, match="pytest stopped with exit status 4"):
            gpu_check.run_tests(site, lines.append, ["--no-such-option"])
    assert any("1 failed, 1 passed" in line for line in lines)


def test_every_test_for_the_gpu_is_in_the_folders_that_are_run() -> None:
    marked = {
        str(path.relative_to(ROOT).parent)
        for path in (ROOT / "tests").rglob("*.py")
        if re.search(r"^(?!.*\").*pytest\.mark\.gpu\b", path.read_text(), re.MULTILINE)
    }
    assert marked == set(gpu_check.GPU_TESTS)


TOY_RUN = """
import argparse, json, os, sys
line = argparse.ArgumentParser()
line.add_argument("--output")
line.add_argument("--rounds", type=int)
options = line.parse_args()
print("case 1")
if options.rounds < 3:
    open(options.output, "w").write(json.dumps({"rows": [options.rounds]}))
sys.exit([0, 1, 1, 2][options.rounds])
"""


def test_benchmarks_are_run_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "benchmarks" / "gpu" / "run.py"
    program.parent.mkdir(parents=True)
    program.write_text(TOY_RUN)
    monkeypatch.setattr(gpu_check, "_ROOT", tmp_path)
    output, lines = tmp_path / "out.json", list[str]()

    def go(rounds: int) -> Any:
        return gpu_check.run_benchmarks(tmp_path, output, lines.append, ["--rounds", str(rounds)])

    assert go(0) == ({"rows": [0]}, True)
    assert go(1) == ({"rows": [1]}, False)
    assert "case 1" in lines
    # What an earlier run left is not taken for this one's.
    with pytest.raises(ToolchainError, match="the benchmarks stopped with exit status 2"):
        go(3)
    assert not output.exists()


def test_a_record_keeps_the_other_part_of_the_same_wheel(tmp_path: Path) -> None:
    build = gpu_machine.read_build(wheel(tmp_path))
    path = tmp_path / "results" / "r.json"
    gpu_check.record(path, H200, build, TestReport(5, 0, 0, 0, 1.0), None)
    both = gpu_check.record(path, H200, build, None, {"rows": []})
    assert json.loads(path.read_text()) == json.loads(json.dumps(both))
    assert (both["tests"]["passed"], both["benchmarks"]) == (5, {"rows": []})
    assert both["machine"]["device"]["name"] == "NVIDIA H200"
    other = gpu_machine.read_build(wheel(tmp_path / "other", ARCH_LIST="9.0a"))
    assert gpu_check.record(path, H200, other, None, {"rows": []})["tests"] is None
    path.write_text("[]")
    assert gpu_check.record(path, H200, build, None, None)["tests"] is None
    assert [file.name for file in path.parent.iterdir()] == ["r.json"], "no partial file is left"


# ---------------------------------------------------------------- the program


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    found = importlib.import_module("gpu_check")
    monkeypatch.setattr(gpu_machine, "find_machine", lambda: H200)
    return found


def main(program: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *words])
    code: int = program.main()
    return code


def test_dry_run(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = wheel(tmp_path)
    words = ("--dry-run", "--wheel", str(path), "--output", str(tmp_path / "o"))
    assert main(program, monkeypatch, *words, "--cases", "decode", "--without", "flex") == 0
    out = capsys.readouterr().out
    assert "NVIDIA H200 (compute capability 9.0), torch 2.11.0+cu130" in out
    assert "would: pytest tests/ops tests/callers tests/benchmarks -m gpu\n" in out
    assert "run.py --rounds 15 --only decode --without flex\n" in out
    assert not (tmp_path / "o").exists()
    assert main(program, monkeypatch, *words, "--only", "benchmarks", "--json") == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step.split()[0] for step in steps] == ["install", "benchmarks/gpu/run.py", "write"]


@pytest.mark.parametrize(
    ("tests", "good", "code", "finding"),
    [
        (TestReport(7, 0, 0, 1, 2.0), True, 0, []),
        (TestReport(7, 1, 1, 0, 2.0, ("a: b",)), True, 1, ["2 GPU tests failed"]),
        (TestReport(0, 0, 0, 9, 0.0), True, 1, ["no GPU test ran"]),
        (TestReport(7, 0, 0, 0, 2.0), False, 1,
         ["benchmarks: the wheel cannot run a case, or gives a wrong result"]),
    ],
)  # fmt: skip
def test_exit_status(
    tests: TestReport, good: bool, code: int, finding: list[str], program: ModuleType,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def run_benchmarks(_site: Path, output: Path, *_: Any) -> tuple[dict[str, Any], bool]:
        output.write_text("{}")
        return {"rows": [1]}, good

    monkeypatch.setattr(gpu_check, "run_tests", lambda *_: tests)
    monkeypatch.setattr(gpu_check, "run_benchmarks", run_benchmarks)
    words = ("--wheel", str(wheel(tmp_path)), "--output", str(tmp_path / "o"))
    assert main(program, monkeypatch, *words, "--json") == code
    found = json.loads(capsys.readouterr().out)
    assert (found["findings"], found["exit_code"]) == (finding, code)
    written = json.loads(Path(found["file"]).read_text())
    assert (written["benchmarks"], written["tests"]["passed"]) == ({"rows": [1]}, tests.passed)
    assert [path.name for path in (tmp_path / "o").iterdir()] == [Path(found["file"]).name]


def test_tests_alone_need_pytest(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def need(module: str, what_for: str, fix: str) -> None:
        if module == "pytest":
            raise ToolchainError(f"{module}: {what_for}", fix=fix)

    monkeypatch.setattr(gpu_machine, "need", need)
    words = ("--wheel", str(wheel(tmp_path)), "--dry-run")
    assert main(program, monkeypatch, *words) == 2
    assert "PYTHONPATH=DIR" in capsys.readouterr().err
    assert main(program, monkeypatch, *words, "--only", "benchmarks") == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--rounds", "0"], "--rounds is 0, expected 1 or more"),
        (["--peer-site", "/no/such"], "--peer-site: /no/such is not a folder"),
        (["--only", "both"], "invalid choice"),
    ],
)
def test_wrong_command_lines(
    words: list[str], text: str, program: ModuleType, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        main(program, monkeypatch, *words)
    assert stop.value.code == 2
    assert text in capsys.readouterr().err


def start(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "", **environ},
    )  # fmt: skip


def test_without_a_gpu() -> None:
    done = start(str(PROGRAM))
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.match(r"error: torch .* sees no GPU\n  expected: .*\n  to do: ", done.stderr)
    found = start(str(PROGRAM), "--json")
    assert found.returncode == 2
    assert json.loads(found.stdout)["error"] == "ToolchainError"


def test_it_needs_the_standard_library_alone() -> None:
    # -S: no site-packages.
    done = start("-S", str(PROGRAM), "--help")
    assert done.returncode == 0, done.stderr
    assert "python scripts/gpu_check.py --dry-run" in done.stdout
    for option in ("--wheel", "--output", "--only", "--peer-site", "--json"):
        assert option in done.stdout
