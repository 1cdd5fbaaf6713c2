"""`python -m flashinfer.env` beside torches, drivers and GPUs of all kinds, and broken ones."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from site_of_doctor import Site, compile_driver

from flashinfer_build import variants
from flashinfer_build.label import Label

ROOT = Path(__file__).resolve().parents[2]
H200, L40, T4 = "NVIDIA H200,9,0,140", "NVIDIA L40,8,9,45", "Tesla T4,7,5,15"
BLACKWELL = "NVIDIA RTX PRO 6000,12,0,96"


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def site(tmp_path: Path, driver: Path) -> Site:
    """flashinfer for CUDA 13.0 and torch 2.13, with that torch, a driver and a GPU of 9.0."""
    site = Site(tmp_path / "site")
    site.flashinfer()
    site.torch()
    site.driver(driver, f"13000/0/{H200}")
    return site


def codes(report: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in report["findings"]]


def test_all_fits(site: Site) -> None:
    report = site.report(0)
    assert report["build"]["version"] == "0.1.6+cu130torch2.13"
    assert report["build"]["variant"] == "cu130_torch213"
    assert report["torch"]["version"] == "2.13.0+cu130"
    assert (report["torch"]["cuda"], report["torch"]["cxx11_abi"]) == ("13.0", True)
    assert report["driver"]["cuda"] == "13.0"
    assert report["gpus"] == [
        {"ordinal": 0, "name": "NVIDIA H200", "capability": "9.0", "memory": 140 << 30,
         "code": "native", "arch": "9.0a"}
    ]  # fmt: skip
    assert report["python"]["executable"] == str(site.python)
    assert re.fullmatch(r"glibc 2\.\d+", report["system"]["libc"])
    assert (report["findings"], report["notes"]) == ([], [])


def test_what_people_see(site: Site) -> None:
    site.installed_by("pip", "0.1.6+cu130torch2.13")
    done = site.run("-m", "flashinfer.env")
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace(str(site.root), "/venv")
    assert "flashinfer  0.1.6+cu130torch2.13\n" in text
    assert "built for   CUDA 13.0.88, torch 2.13, new C++ ABI (variant cu130_torch213)\n" in text
    assert "GPU 0       NVIDIA H200, 9.0, 140.0 GiB: runs the code for 9.0a\n" in text
    assert "installed   by pip\n" in text
    assert text.endswith("\nIt all fits.\n")
    assert done.stderr == ""


def test_without_a_driver_flashinfer_runs_on_the_cpu(site: Site) -> None:
    site.environ.clear()
    report = site.report(0)
    assert (report["driver"]["present"], report["gpus"]) == (False, [])
    assert report["notes"] == ["There is no NVIDIA driver here: flashinfer runs on the CPU alone."]


# ---------------------------------------------------------------- torch


@pytest.mark.parametrize(
    ("version", "cuda", "abi", "code", "spec"),
    [
        ("2.11.0+cu130", "13.0", True, "torch-minor", "cu130torch2.11"),
        ("2.13.0+cu126", "12.6", True, "torch-cuda", "cu126torch2.13"),
        ("2.13.0", "13.0", False, "torch-abi", "cu130torch2.13"),
        ("2.15.0+cpu", None, True, "torch-minor", "cputorch2.15"),
        ("unknown\x1b[31m", "13.0", True, "torch-version", "cu130torch2.13"),
    ],
)
def test_a_torch_that_does_not_fit(
    site: Site, version: str, cuda: str | None, abi: bool, code: str, spec: str
) -> None:
    site.torch(version, cuda, abi)
    report = site.report(1)
    assert codes(report)[0] == code
    finding = report["findings"][0]
    assert f'"flashinfer==0.1.6+{spec}"' in finding["commands"]["pip"]
    assert report["torch"]["version"] == version
    # The import says the same, and the command that it prints for more is this one.
    done = site.run("-c", "import flashinfer")
    assert done.returncode == 1
    assert finding["problem"] in done.stderr
    assert "\x1b" not in done.stderr
    command = shlex.split(done.stderr.rstrip().splitlines()[-1])
    assert command == [str(site.python), "-m", "flashinfer.env"]
    shown = site.run(*command[1:])
    assert shown.returncode == 1
    assert " ".join(finding["problem"].split()) in " ".join(shown.stdout.split())
    assert "\x1b" not in shown.stdout


def test_without_torch(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.flashinfer("cpu_torch213")
    report = site.report(1)
    assert codes(report) == ["torch-missing"]
    assert report["torch"] is None
    assert '"flashinfer==0.1.6+cputorch2.13"' in report["findings"][0]["commands"]["pip"]


@pytest.mark.parametrize(
    ("torch", "words"),
    [
        ("raise OSError('libcudart.so.13: cannot open\\x1b[2J\\n shared object file')",
         r"OSError: libcudart\.so\.13: cannot open\\x1b\[2J shared object file"),
        ("import a_requirement_of_torch", "ModuleNotFoundError: No module named 'a_requirement_"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import os; os.abort()", "Python was ended by SIGABRT"),
        ("print('1'); import os; os._exit(0)", "no answer"),
        ("raise RuntimeError('x' * 9000)", r"x{400,500} \.\.\."),
        ("__version__ = '2.13.0'", "AttributeError: module 'torch' has no attribute 'version'"),
        ("this is no Python", "SyntaxError: invalid syntax"),
    ],
)  # fmt: skip
def test_a_broken_torch(site: Site, torch: str, words: str) -> None:
    site.write("torch/__init__.py", torch)
    report = site.report(1)
    assert codes(report) == ["torch-broken"]
    [finding] = report["findings"]
    assert re.search(words, finding["problem"]), finding["problem"]
    assert str(site.folder / "torch") in finding["problem"]
    assert "--force-reinstall" in finding["commands"]["pip"]


def test_a_folder_that_is_called_torch(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.flashinfer()
    (site.root / "elsewhere" / "torch").mkdir()
    report = site.report(1)
    assert codes(report) == ["torch-broken"]
    assert "start it elsewhere" in report["findings"][0]["advice"]


# ---------------------------------------------------------------- files of the package


def test_a_library_that_cannot_be_loaded(site: Site) -> None:
    missing = "libflashinfer.so: cannot open shared object file: No such file or directory"
    site.write("flashinfer/_ops.py", f"raise ImportError({missing!r})")
    report = site.report(1)
    assert codes(report) == ["not-loaded"]
    [finding] = report["findings"]
    assert missing in finding["problem"]
    assert finding["commands"]["pip"].endswith(
        '-m pip install --force-reinstall --no-deps "flashinfer==0.1.6+cu130torch2.13"'
        " --extra-index-url https://wheels.test/cu130/torch2.13/"
    )
    assert finding["commands"]["conda"] == (
        "conda install --force-reinstall -c conda.test -c conda-forge"
        ' "flashinfer=0.1.6=cu130_torch213_*" "libflashinfer=0.1.6=cu130_*"'
    )


def test_a_library_that_ends_python(site: Site) -> None:
    site.write("flashinfer/_ops.py", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    report = site.report(1)
    assert codes(report) == ["not-loaded"]
    assert "Python was ended by SIGILL" in report["findings"][0]["problem"]
    assert report["torch"]["version"] == "2.13.0+cu130"


def test_files_of_two_installations(site: Site) -> None:
    ops = (site.package / "_ops.py").read_text()
    site.write("flashinfer/_ops.py", ops.replace("cuda=13.0.88", "cuda=12.6.85"))
    assert codes(site.report(1)) == ["files-mixed"]
    site.write("flashinfer/_ops.py", ops)
    site.installed_by("pip", "0.1.5+cu130torch2.13")
    [finding] = site.report(1)["findings"]
    assert finding["code"] == "files-mixed"
    assert "metadata is of version 0.1.5+cu130torch2.13" in finding["problem"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ("VERSION = '0.1.5'\n", "module 'flashinfer._build_info' has no attribute 'VARIANT'"),
        ("VERSION = \n", r"_build_info\.py: SyntaxError: invalid syntax"),
    ],
)
def test_build_information_of_another_version_or_damaged(
    site: Site, facts: str, words: str
) -> None:
    site.write("flashinfer/_build_info.py", facts)
    report = site.report(1)
    assert (codes(report), report["build"]) == (["files-mixed"], None)
    assert re.search(words, report["findings"][0]["problem"])


def test_a_source_tree(site: Site) -> None:
    (site.package / "_build_info.py").unlink()
    report = site.report(1)
    assert (codes(report), report["build"]) == (["not-built"], None)
    assert report["gpus"][0]["code"] == "unknown"
    done = site.run("-m", "flashinfer.env")
    assert done.returncode == 1
    assert f"\n     pip install {site.folder}\n" in done.stdout


# ---------------------------------------------------------------- driver and GPUs


def test_gpus_of_different_kinds(site: Site, driver: Path) -> None:
    site.driver(driver, f"13000/0/{T4}/{H200}/{L40}/{BLACKWELL}")
    report = site.report(1)
    found = [(gpu["capability"], gpu["code"], gpu["arch"]) for gpu in report["gpus"]]
    assert found == [
        ("7.5", "none", ""), ("9.0", "native", "9.0a"), ("8.9", "native", "8.0+PTX"),
        ("12.0", "PTX", "8.0+PTX"),
    ]  # fmt: skip
    [finding] = report["findings"]
    assert finding["code"] == "gpu-too-old"
    assert "GPU 0, Tesla T4 of compute capability 7.5" in finding["problem"]
    [note] = report["notes"]
    assert "compiles the PTX for GPU 3" in note


def test_a_build_without_code_for_a_gpu(site: Site, driver: Path) -> None:
    site.flashinfer(archs="9.0a")
    site.driver(driver, f"13000/0/{H200}/{BLACKWELL}")
    [finding] = site.report(1)["findings"]
    assert finding["code"] == "gpu-no-code"
    assert "no code for GPU 1, NVIDIA RTX PRO 6000 of compute capability 12.0" in finding["problem"]
    assert "FLASHINFER_CUDA_ARCH_LIST=12.0" in finding["advice"]
    assert '"flashinfer==0.1.6+cu130torch2.13"' in finding["commands"]["pip"]


def test_what_is_published_has_code_for_every_gpu_from_8_0_on() -> None:
    """As the advice above says."""
    for spec in variants.load():
        if spec.variant.cuda:
            assert "8.0+PTX" in re.split(r"[;,\s]+", spec.cuda_arch_list), spec.id


def test_a_driver_for_an_older_cuda(site: Site, driver: Path) -> None:
    site.driver(driver, f"12040/0/{H200}")
    report = site.report(1)
    assert report["driver"]["cuda"] == "12.4"
    [finding] = report["findings"]
    assert finding["code"] == "driver-old"
    assert "Update the driver to one for CUDA 13.0 or newer" in finding["advice"]
    assert finding["commands"] == {
        "pip": "",
        "conda": "conda install -c conda.test -c conda-forge"
        ' "flashinfer=0.1.6=cu12*_torch213_*" "pytorch=2.13"',
    }
    site.installed_by("pip", "0.1.6+cu130torch2.13")
    [finding] = site.report(1)["findings"]
    assert finding["advice"].endswith("the flashinfer for it is named then.")
    assert finding["commands"] == {"pip": "", "conda": ""}
    # With a torch for that driver, there is a flashinfer for both.
    site.torch("2.13.0+cu126", "12.6")
    [finding] = site.report(1)["findings"]
    assert finding["code"] == "torch-cuda"
    assert '"flashinfer==0.1.6+cu126torch2.13"' in finding["commands"]["pip"]


@pytest.mark.parametrize(
    ("variant", "version", "gpu", "found"),
    [
        ("cu128_torch211", 12040, H200, []),  # code runs on every driver of its CUDA's major
        ("cu128_torch211", 12040, BLACKWELL, ["gpu-ptx-driver"]),
        ("cu128_torch211", 12080, BLACKWELL, []),
        ("cu126_torch211", 12050, BLACKWELL, []),  # which writes the PTX of 12.5
    ],
)
def test_ptx_needs_a_driver_that_can_read_it(
    site: Site, driver: Path, variant: str, version: int, gpu: str, found: list[str]
) -> None:
    label = site.flashinfer(variant)
    assert label.variant.cuda is not None
    site.torch("2.11.0", "{}.{}".format(*label.variant.cuda))
    site.driver(driver, f"{version}/0/{gpu}")
    assert codes(site.report(1 if found else 0)) == found


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("13000/803", r"cuInit failed with 803 \(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has"),
        ("13000/999", r"cuInit failed with 999\."),
        ("crash", r"asking the driver failed: Python was ended by SIGABRT"),
    ],
)
def test_a_broken_driver(site: Site, driver: Path, told: str, words: str) -> None:
    site.driver(driver, told)
    [finding] = site.report(1)["findings"]
    assert finding["code"] == "driver-error"
    assert re.search(words, finding["problem"]), finding["problem"]


def test_a_driver_that_is_no_library(site: Site, tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("a text")
    site.driver(tmp_path, "")
    [finding] = site.report(1)["findings"]
    assert finding["code"] == "driver-error"
    assert "libcuda.so.1: file too short" in finding["problem"]


def test_a_driver_without_gpus(site: Site, driver: Path) -> None:
    site.driver(driver, "13000/100")
    site.environ["CUDA_VISIBLE_DEVICES"] = "\x1b[1m"
    report = site.report(0)
    assert report["notes"] == [
        "The driver has no GPU: flashinfer runs on the CPU alone.",
        "CUDA_VISIBLE_DEVICES is '\\\\x1b[1m': others than those are not listed.",
    ]


def test_a_gpu_that_only_one_side_uses(site: Site) -> None:
    site.torch("2.13.0+cpu", None)
    assert codes(site.report(1)) == ["torch-cpu"]
    site.flashinfer("cpu_torch213")
    assert codes(site.report(0)) == []
    site.torch("2.13.0+cu130", "13.0")
    [finding] = site.report(1)["findings"]
    assert finding["code"] == "gpu-unused"
    assert '"flashinfer==0.1.6+cu130torch2.13"' in finding["commands"]["pip"]


# ---------------------------------------------------------------- what is printed


def test_80_columns_and_no_control_characters(site: Site, driver: Path) -> None:
    site.driver(driver, f"12040/0/\x1b[31mNVIDIA\nH200 äöü,9,0,140/{T4}/{BLACKWELL}")
    site.torch("2.11.0\x1b]0;title\x07", "12.8")
    site.environ["PYTHONIOENCODING"] = "utf-8"
    done = site.run("-m", "flashinfer.env")
    assert done.returncode == 1
    assert "\\x1b[31mNVIDIA H200 äöü" in done.stdout
    lines = done.stdout.splitlines()
    assert all(line.isprintable() for line in lines)
    for line in lines:
        # But for what cannot be cut, a path or an argument.
        assert len(line) <= 80 or len(line.split()) <= 2, line
    site.environ["PYTHONIOENCODING"] = "ascii"
    done = site.run("-m", "flashinfer.env")
    assert "\\x1b[31mNVIDIA H200 \\xe4\\xf6\\xfc" in done.stdout


def test_the_document_shows_what_is_printed(site: Site, driver: Path) -> None:
    """But for the machine's own: where things lie, and versions of Python and of glibc."""
    site.installed_by("pip", "0.1.6+cu130torch2.13")
    pip = site.root / "bin" / "pip"
    pip.write_text("#!/bin/sh\n")
    pip.chmod(0o755)
    site.environ.update(PATH=str(pip.parent), FLASHINFER_INDEX_URL="", FLASHINFER_CONDA_CHANNEL="")
    shown = [site.run("-m", "flashinfer.env").stdout]
    site.torch("2.11.0+cu130", "13.0")
    site.driver(driver, f"13000/0/{H200}/{T4}")
    shown.append(site.run("-m", "flashinfer.env").stdout)
    shown.append(site.run("-c", "import flashinfer").stderr.partition("ImportError")[2])
    document = (ROOT / "docs" / "doctor.md").read_text()
    for text in shown:
        printed = text
        for pattern, put in (
            (re.escape(str(driver)), "/usr/lib/x86_64-linux-gnu"),
            (re.escape(str(site.root)), "/home/me/venv"),
            (r"lib/python3\.\d+", "lib/python3.11"),
            (r"(?m)^(Python +)3[.\w]+", r"\g<1>3.11.7"),
            (r"glibc [\d.]+", "glibc 2.36"),
        ):
            printed = re.sub(pattern, put, printed)
        assert printed.strip() in document, printed


@pytest.mark.parametrize("client", ["pip", "uv", "conda", "", "another"])
def test_the_command_is_that_of_whoever_installed_it(site: Site, client: str) -> None:
    site.torch("2.11.0", "13.0")
    if client:
        site.installed_by(client, "0.1.6+cu130torch2.13")
    report = site.report(1)
    pip, conda = report["findings"][0]["commands"].values()
    words = {name: shlex.split(text)[:5] for name, text in (("pip", pip), ("conda", conda)) if text}
    by_pip = [str(site.python), "-m", "pip", "install", "flashinfer==0.1.6+cu130torch2.11"]
    by_conda = ["conda", "install", "-c", "conda.test", "-c"]
    assert (
        words
        == {
            "pip": {"pip": by_pip},
            "another": {"pip": by_pip},
            "": {"pip": by_pip, "conda": by_conda},
            "uv": {"pip": ["uv", "pip", "install", "--python", str(site.python)]},
            "conda": {"conda": ["conda", "install", "-p", str(site.root), "-c"]},
        }[client]
    )
    assert report["installer"] == client


def test_a_command_that_is_cut_is_the_same_for_a_shell(site: Site) -> None:
    site.torch("2.11.0", "13.0")
    site.installed_by("pip", "0.1.6+cu130torch2.13")
    pip = site.report(1)["findings"][0]["commands"]["pip"]
    shown = site.run("-m", "flashinfer.env").stdout
    cut = shown[shown.rindex(f"     {site.python}") :].replace("\\\n", " ")
    assert shlex.split(cut) == shlex.split(pip)


def test_a_nightly_says_its_commit_and_keeps_it(site: Site) -> None:
    site.flashinfer(commit="1a2b3c4")
    site.torch("2.11.0", "13.0")
    report = site.report(1)
    assert report["commit"] == "1a2b3c4"
    commands = report["findings"][0]["commands"]
    assert '"flashinfer==0.1.6+cu130torch2.11.g1a2b3c4"' in commands["pip"]
    assert '"flashinfer=0.1.6=cu130_torch211_g1a2b3c4_*"' in commands["conda"]


@pytest.mark.parametrize("argument", ["--wrong", "extra"])
def test_unusable_arguments(site: Site, argument: str) -> None:
    done = site.run("-m", "flashinfer.env", argument)
    assert (done.returncode, done.stdout) == (2, "")
    assert argument in done.stderr


def test_help_without_anything_that_works(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.flashinfer()
    done = site.run("-m", "flashinfer.env", "--help")
    assert done.returncode == 0
    assert "Exit status: 0 all fits, 1 something does not, 2" in " ".join(done.stdout.split())


def test_the_requests_of_a_build_are_its_siblings_names() -> None:
    """What is composed at build time with places to fill is what the label module makes whole."""
    specs = variants.load()
    for version, commit in (("0.1.6", None), ("0.1.7rc1.dev20261122", "0123456")):
        for spec in specs:
            label = Label(spec.variant, version, 3, commit)
            for name, request in label.requests.items():
                assert request == Label(specs[0].variant, version, 0, commit).requests[name]
            filled = {
                name: request.replace("{torch:flat}", "{}{}".format(*spec.variant.torch))
                .replace("{torch}", "{}.{}".format(*spec.variant.torch))
                .replace("{cuda}", spec.variant.cuda_tag)
                for name, request in label.requests.items()
            }
            assert filled["WHEEL"] == label.wheel_requirement
            assert filled["INDEX_DIR"] == label.index_dir
            assert filled["CONDA"].replace("*", "3") == label.conda_spec
            assert filled["CONDA_LIBRARY"].replace("*", "3") == label.library.conda_spec


def test_it_runs_where_the_module_is_run_by_name(site: Site) -> None:
    done = site.run(
        "-c",
        "import runpy; runpy.run_module('flashinfer.env', run_name='__main__', alter_sys=True)",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("It all fits.\n")
    assert json.loads(site.run("-Im", "flashinfer.env", "--json").stdout)["fits"] is True
    assert list((site.root / "elsewhere").iterdir()) == []
