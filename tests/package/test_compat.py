"""What `import flashinfer` says where it does not fit, with made-up versions of torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import rattler
from rattler.package import BuildString

import flashinfer
from flashinfer import _build_info, _compat
from flashinfer_build.checks import build_info
from flashinfer_build.label import Label, Variant


def build_of(variant: str, version: str = "0.1.6", commit: str | None = None) -> _compat.Build:
    """A build as the build writes itself down."""
    label = Label(Variant.parse(variant), version, 0, commit)
    cuda = "{}.{}.88".format(*label.variant.cuda) if label.variant.cuda else ""
    archs = "8.0+PTX;9.0a" if cuda else ""
    facts = {"CUDA": cuda, "CXX11_ABI": True, "ARCH_LIST": archs}
    return _compat.read_build(SimpleNamespace(**build_info.expected(label), **facts))


CUDA = build_of("cu130_torch213")
CPU = build_of("cpu_torch213")
DOCTOR = "To see what was found here, and what fits:"


def torch_of(version: str, cuda: str | None = None, abi: bool = True) -> ModuleType:
    torch: Any = ModuleType("torch")
    torch.__version__ = version
    torch.version = SimpleNamespace(cuda=cuda)
    torch.compiled_with_cxx11_abi = lambda: abi
    assert isinstance(torch, ModuleType)
    return torch


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASHINFER_INDEX_URL", "https://wheels.test/")
    monkeypatch.setenv("FLASHINFER_CONDA_CHANNEL", "conda.test")


@pytest.mark.parametrize(
    ("build", "version", "cuda"),
    [
        (CUDA, "2.13.0", "13.0"),
        (CUDA, "2.13.2+cu130", "13.0"),
        (CUDA, "2.13.0", "13.2"),  # a minor difference within a CUDA major is compatible
        (CUDA, "2.13.0+cpu", None),  # it loads beside a CPU torch
        (CUDA, "2.13.0a0+git1234567", "13.0"),
        (CPU, "2.13.0+cpu", None),
        (CPU, "2.13.0", "13.0"),
    ],
)
def test_fits(
    build: _compat.Build, version: str, cuda: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_of(version, cuda))
    _compat.check(build)


def text_of(build: _compat.Build, torch: ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "torch", torch)
    with pytest.raises(ImportError) as caught:
        _compat.check(build)
    assert caught.value.name == "flashinfer"
    return str(caught.value)


def test_another_torch_minor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # so that `python` is no name of this one
    assert text_of(CUDA, torch_of("2.11.0", "13.0"), monkeypatch).splitlines() == [
        "flashinfer 0.1.6+cu130torch2.13 (variant cu130_torch213) was built for torch 2.13,"
        " and this is torch 2.11.0 with CUDA 13.0.",
        "Install the variant for torch 2.11:",
        '  pip install "flashinfer==0.1.6+cu130torch2.11" "torch==2.11.*"'
        " --extra-index-url https://wheels.test/cu130/torch2.11/",
        "  conda install -c conda.test -c conda-forge"
        ' "flashinfer=0.1.6=cu130_torch211_*" "pytorch=2.11"',
        DOCTOR,
        f"  {sys.executable} -m flashinfer.env",
    ]


def test_minor_is_compared_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "for torch 2.1:" in text_of(CUDA, torch_of("2.1.3", "12.1"), monkeypatch)
    assert "for torch 2.130:" in text_of(CUDA, torch_of("2.130.0", "13.0"), monkeypatch)


def test_a_cpu_torch_of_another_minor(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of(CUDA, torch_of("2.4.1+cpu"), monkeypatch)
    assert "this is torch 2.4.1+cpu." in text
    assert '"flashinfer==0.1.6+cputorch2.4"' in text
    assert "https://wheels.test/cpu/torch2.4/" in text
    assert '"flashinfer=0.1.6=cpu_torch24_*"' in text


def test_another_abi(monkeypatch: pytest.MonkeyPatch) -> None:
    build = build_of("cu124_torch24")
    text = text_of(build, torch_of("2.4.0", "12.4", abi=False), monkeypatch)
    assert "with the new ABI of C++ strings (_GLIBCXX_USE_CXX11_ABI=1)" in text
    assert "this torch 2.4.0 with CUDA 12.4 has the old one" in text
    assert "pip install --force-reinstall" in text  # the label is the same, so pip would keep it
    text = text_of(
        build._replace(cxx11_abi=False), torch_of("2.4.0", "12.4", abi=True), monkeypatch
    )
    assert "has the new one" in text


def test_another_cuda_major(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of(CUDA, torch_of("2.13.0+cu126", "12.6"), monkeypatch)
    assert "CUDA 13.0.88, and this is torch 2.13.0+cu126 with CUDA 12.6" in text
    assert '"flashinfer==0.1.6+cu126torch2.13"' in text


def test_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of(CUDA, None, monkeypatch)
    assert "there is no torch in this environment" in text
    assert '"flashinfer==0.1.6+cu130torch2.13" "torch==2.13.*"' in text


def test_a_broken_torch_speaks_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import a_requirement_of_torch\n")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError) as caught:
        _compat.check(CUDA)
    assert caught.value.name == "a_requirement_of_torch"


def test_nightly_keeps_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    nightly = build_of("cu130_torch213", "0.1.6.dev20261122", "1a2b3c4")
    text = text_of(nightly, torch_of("2.11.0", "13.0"), monkeypatch)
    assert '"flashinfer==0.1.6.dev20261122+cu130torch2.11.g1a2b3c4"' in text
    assert '"flashinfer=0.1.6.dev20261122=cu130_torch211_g1a2b3c4_*"' in text


@pytest.mark.parametrize("public", ["0.1.6rc1", "0.1.6a2.post1", "0.1.6b3.dev20261122"])
def test_each_command_has_its_clients_spelling_of_a_version(
    public: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip compares by PEP 440; to conda 0.1.6rc1 is another version than the package's."""
    build = build_of("cu130_torch213", public)
    wanted = Label(Variant.parse("cu130_torch211"), public)
    text = text_of(build, torch_of("2.11.0", "13.0"), monkeypatch)
    assert f'"flashinfer=={wanted.wheel_version}"' in text
    [spec] = re.findall(r'"(flashinfer=[^"=]+=[^"]+)"', text)
    package = rattler.PackageRecord(
        "flashinfer", wanted.conda_version, BuildString(wanted.conda_build), 0, "linux-64"
    )
    assert rattler.MatchSpec(spec).matches(package)


def test_places_that_are_not_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLASHINFER_INDEX_URL")
    monkeypatch.delenv("FLASHINFER_CONDA_CHANNEL")
    monkeypatch.setattr(_compat, "INDEX_URL", "")
    monkeypatch.setattr(_compat, "CONDA_CHANNEL", "")
    text = text_of(CUDA, None, monkeypatch)
    assert "--extra-index-url <index>/cu130/torch2.13/" in text
    assert "conda install -c <channel> " in text
    monkeypatch.setattr(_compat, "INDEX_URL", "https://own.test/wheels")
    assert "https://own.test/wheels/cu130/" in text_of(CUDA, None, monkeypatch)


def test_a_place_with_a_password_is_printed_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASHINFER_INDEX_URL", "https://user:secret@wheels.test/\x1b[31m")
    monkeypatch.setenv("FLASHINFER_CONDA_CHANNEL", "https://token@conda.test")
    text = text_of(CUDA, None, monkeypatch)
    assert "--extra-index-url https://****@wheels.test/\\x1b[31m/cu130/torch2.13/" in text
    assert "-c https://****@conda.test " in text
    assert "secret" not in text and "token" not in text and "\x1b" not in text


def test_a_torch_that_says_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of(CUDA, torch_of('\x1b[2J$(rm -r ~)"', "13.0"), monkeypatch)
    assert 'this is torch \\x1b[2J$(rm -r ~)" with CUDA 13.0, which is no version' in text
    assert '"flashinfer==0.1.6+cu130torch2.13"' in text
    [line] = [line for line in text.splitlines() if line.startswith("  pip")]
    assert "rm -r" not in line


def test_a_folder_that_is_called_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ImportError, match=f"finds here .{tmp_path}/torch. is broken, or no torch"):
        _compat.check(CUDA)


BINDING = (
    "component=binding\nversion=0.1.6\ntorch=2.13\ncxx11_abi=1\nvariant=cu130_torch213\n"
    "cxx=gcc 12.2\n"
)
LIBRARY = "component=libflashinfer\nversion=0.1.6\ncuda=13.0.88\narchs=9.0a\ncxx=gcc 12.2\n"


def test_library_and_binding_of_one_build() -> None:
    _compat.check_library(CUDA, BINDING, LIBRARY)


@pytest.mark.parametrize(
    ("binding", "library", "text"),
    [
        (
            BINDING.replace("0.1.6", "0.1.5"),
            LIBRARY.replace("0.1.6", "0.1.5"),
            "the version of _C.abi3.so is 0.1.5, expected 0.1.6",
        ),
        (
            BINDING,
            LIBRARY.replace("0.1.6", "0.1.6+g1a2b3c4"),
            "the version of libflashinfer.so is 0.1.6+g1a2b3c4, expected 0.1.6",
        ),
        (
            BINDING,
            LIBRARY.replace("0.1.6", "0.1.5"),
            "the version of libflashinfer.so is 0.1.5, expected 0.1.6",
        ),
        (
            BINDING,
            LIBRARY.replace("13.0.88", "none"),
            "the CUDA of libflashinfer.so is cpu, expected cu130",
        ),
        (
            BINDING.replace("cu130_torch213", "cpu_torch213"),
            LIBRARY,
            "the variant of _C.abi3.so is cpu_torch213, expected cu130_torch213",
        ),
        (BINDING.replace("torch=2.13", "torch=2.11"), LIBRARY, "the torch of _C.abi3.so is 2.11"),
        (BINDING.replace("abi=1", "abi=0"), LIBRARY, "the C++ ABI of _C.abi3.so is 0, expected 1"),
    ],
)
def test_mixed_builds(binding: str, library: str, text: str) -> None:
    with pytest.raises(ImportError) as caught:
        _compat.check_library(CUDA, binding, library)
    assert text in str(caught.value)
    assert "pip install" in str(caught.value)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The installed package, copied to where it may be changed."""
    installed = Path(flashinfer.__file__).parent
    shutil.copytree(installed, tmp_path / "flashinfer", ignore=shutil.ignore_patterns("*.pyc"))
    return tmp_path / "flashinfer"


def import_copy(copy: Path, before: str = "") -> str:
    """What `import flashinfer` prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\nimport flashinfer"],
        cwd=copy.parent,
        env={"PYTHONPATH": str(copy.parent), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (1 if done.stderr else 0)
    return done.stderr


def test_the_check_comes_before_the_binding_is_loaded(copied: Path) -> None:
    info = copied / "_build_info.py"
    text = info.read_text().replace(_build_info.TORCH, "1.7")
    info.write_text(text)
    (copied / "_C.abi3.so").write_bytes(b"this would crash")
    error = import_copy(copied)
    assert "was built for torch 1.7, and this is torch" in error
    assert "pip install" in error
    assert "conda install" in error


def test_without_torch(copied: Path) -> None:
    error = import_copy(copied, "import sys; sys.modules['torch'] = None")
    assert "there is no torch in this environment" in error


def test_source_tree_without_a_build(copied: Path) -> None:
    (copied / "_build_info.py").unlink()
    (copied / "_C.abi3.so").unlink()
    error = import_copy(copied)
    assert "flashinfer is not built here: this is its source tree" in error
    assert f"  pip install {copied.parent}\n" in error  # whatever folder it is read in


def test_without_the_library_the_commands_install_it_again(copied: Path) -> None:
    (copied / "_C.abi3.so").write_bytes(b"not a library")
    error = import_copy(copied)
    assert "The compiled part of flashinfer" in error
    assert "pip install --force-reinstall --no-deps" in error
    assert "libflashinfer" in error
    assert DOCTOR in error


def test_a_library_that_is_older_than_the_build_needs() -> None:
    words = "/lib/libc.so.6: version `GLIBC_2.38' not found (required by /x/_C.abi3.so)"
    finding = _compat.not_loaded(CUDA, words)
    assert finding.code == "glibc"
    assert "It needs GLIBC_2.38" in finding.problem
    assert finding.commands == ("", "")
    assert _compat.not_loaded(CUDA, "undefined symbol: _ZN3c105").code == "not-loaded"


def test_a_free_threaded_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": 1}.get)
    finding = _compat.not_loaded(CUDA, "cannot import name '_C'")
    assert "loads no extension for the stable ABI" in finding.problem


@pytest.mark.parametrize(
    ("argv", "command", "doctor"),
    [
        (["-m"], ["python", "-m", "flashinfer.env"], True),
        (["-m", "--json"], ["python", "-X", "dev", "-m", "flashinfer.env", "--json"], True),
        (["-m", "--json"], ["python", "-Im", "flashinfer.env", "--json"], True),
        (["-m"], ["python", "-Imflashinfer.env"], True),
        (["-m"], ["python", "-m", "my.flashinfer.env"], False),
        (["-m", "flashinfer.env"], ["python", "-m", "other", "flashinfer.env"], False),
        (["/x/other.py"], ["python", "-m", "flashinfer.env"], False),
        (["-c"], ["python", "-c", "import flashinfer"], False),
        ([], [], False),
        (["-m"], [], False),
    ],
)
def test_who_is_the_doctor(
    argv: list[str], command: list[str], doctor: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", command)
    assert _compat.is_doctor() is doctor
