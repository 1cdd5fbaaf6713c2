"""The doctor in the environment of these tests: a real torch, the real library, any GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import flashinfer
from flashinfer import _build_info, env


def report(**environ: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flashinfer.env", "--json"],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["fits"] is (done.returncode == 0)
    return answer


def test_what_is_installed_here_fits() -> None:
    answer = report(CUDA_VISIBLE_DEVICES="")
    assert answer["findings"] == []
    assert answer["gpus"] == []
    assert answer["build"]["version"] == flashinfer.__version__
    assert answer["build"]["archs"] == _build_info.ARCH_LIST
    assert answer["torch"]["version"] == torch.__version__
    assert answer["torch"]["cxx11_abi"] == torch.compiled_with_cxx11_abi()
    package = Path(flashinfer.__file__).parent
    assert answer["package"] == str(package)
    assert Path(answer["library"]).samefile(package / "lib" / "libflashinfer.so")


def test_gpus_are_those_that_torch_sees() -> None:
    """Where this torch sees any."""
    answer = report()
    seen = [torch.cuda.get_device_capability(n) for n in range(torch.cuda.device_count())]
    if torch.version.cuda and answer["driver"]["present"]:
        assert [gpu["capability"] for gpu in answer["gpus"]] == [f"{a}.{b}" for a, b in seen]
    assert {finding["code"] for finding in answer["findings"]} <= {"torch-cpu"}


def test_a_program_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hangs.py").write_text("print('said', flush=True)\nimport time\ntime.sleep(600)\n")
    monkeypatch.setattr(env, "_PACKAGE", tmp_path)
    monkeypatch.setattr(env, "_SECONDS", 2)
    said, end = env._run("hangs.py")
    assert end == "no answer within 2 seconds"
    assert said in ("said\n", "")  # a slow machine may not have come so far
