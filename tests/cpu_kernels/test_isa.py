"""The choice of the instruction set, and that none leaks into code for another."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch
from capi import INVALID_ARGUMENT, UNSUPPORTED, Failed, Library


def test_unknown_level_is_an_error(library_path: Path, tmp_path: Path) -> None:
    library = Library(library_path, tmp_path, "sse9")
    with pytest.raises(Failed, match="FLASHINFER_CPU_ISA=sse9 is not a level") as caught:
        library("rmsnorm", dtype=torch.float16)
    assert caught.value.status == INVALID_ARGUMENT


def test_level_that_the_cpu_lacks_is_an_error(library_path: Path, tmp_path: Path) -> None:
    flags = Path("/proc/cpuinfo").read_text()
    if "avx512vl" in flags:
        pytest.skip("this CPU has every level")
    library = Library(library_path, tmp_path, "avx512")
    with pytest.raises(Failed, match="asks for instructions that this CPU does not have") as caught:
        library("rmsnorm", dtype=torch.float16)
    assert caught.value.status == UNSUPPORTED


def test_default_level_works(library_path: Path, tmp_path: Path) -> None:
    Library(library_path, tmp_path, None)("rmsnorm", dtype=torch.float16)


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_levels_share_no_code(objects: dict[str, Path], level: str) -> None:
    """No weak symbol: the linker could keep the copy that another level compiled."""
    listing = subprocess.run(
        ["nm", "--defined-only", str(objects[f"isa_{level}.cpp"])],
        capture_output=True,
        text=True,
        check=True,
    )
    kinds = {line.split()[1] for line in listing.stdout.splitlines()}
    assert kinds
    assert not kinds & {"W", "V", "w", "v", "u"}


def disassembly(path: Path) -> str:
    done = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("level", "has", "lacks"),
    [("baseline", "xmm", "ymm|zmm"), ("avx2", "ymm", "zmm"), ("avx512", "zmm", "$^")],
)
def test_levels_use_their_registers(
    objects: dict[str, Path], level: str, has: str, lacks: str
) -> None:
    code = disassembly(objects[f"isa_{level}.cpp"])
    arithmetic = re.findall(r"\b(?:v?mulps|vfn?madd\d+ps)\b.*", code)
    assert sum(bool(re.search(has, line)) for line in arithmetic) > 100
    assert not any(re.search(lacks, line) for line in arithmetic)


@pytest.mark.parametrize("level", ["avx2", "avx512"])
@pytest.mark.parametrize("instruction", ["vcvtph2ps", "vcvtps2ph", "vpmovzxwd"])
def test_levels_convert_in_hardware(objects: dict[str, Path], level: str, instruction: str) -> None:
    """A level whose intrinsics are not switched on would still work, on bit arithmetic."""
    code = disassembly(objects[f"isa_{level}.cpp"])
    register = "ymm" if level == "avx2" else "zmm"
    assert re.search(rf"\b{instruction}\b.*%{register}", code)


def test_other_objects_are_plain(objects: dict[str, Path]) -> None:
    """Outside the levels nothing needs more than any x86-64 has."""
    for name, path in objects.items():
        if name.startswith("isa_"):
            continue
        assert not re.search(r"%[yz]mm", disassembly(path)), name
