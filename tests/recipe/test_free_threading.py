"""A free-threaded Python, which loads no extension for the stable ABI: solvers keep it away.

conda-forge's way to such a Python is its package python-freethreading.
"""

from __future__ import annotations

from pathlib import Path

import packages
import stand_in
from packaging.tags import cpython_tags
from solver import Case, solve

from flashinfer_build import variants

ABI = "python_abi 3.13.* *_cp313"
MACHINE = {"__glibc": "2.36"}


def free_threaded() -> list[stand_in.Record]:
    """Beside each package for CPython 3.13 with the GIL, the one for it without."""
    found = []
    for record in stand_in.conda_forge():
        of_gil = record["build"].endswith("_cp313") or ABI in record["depends"]
        if of_gil:
            text = [spec.replace("_cp313", "_cp313t") for spec in record["depends"]]
            bound = [spec.replace("_cp313", "_cp313t") for spec in record["constrains"]]
            build = record["build"].replace("cp313", "cp313t").replace("py313", "py313t")
            found.append({**record, "build": build, "depends": text, "constrains": bound})
    found.append(
        stand_in.record(
            "python-freethreading", "3.13.9", "h0_0", depends=["python 3.13.9.* *_cp313t"]
        )
    )
    return found


def test_a_solver_refuses_it_beside_a_free_threaded_python(tmp_path: Path) -> None:
    spec = variants.select(variants.load(), ["cpu_torch213"])[0]
    ours = [output.record for output in packages.outputs(spec)]
    channels = [
        stand_in.write_channel(tmp_path / "ours", ours),
        stand_in.write_channel(tmp_path / "theirs", [*stand_in.conda_forge(), *free_threaded()]),
    ]
    wanted = {
        "torch": ["pytorch", "python-freethreading"],
        "gil": ["flashinfer", "python=3.13"],
        "free": ["flashinfer", "python-freethreading"],
    }
    answers = solve({key: Case(channels, specs, MACHINE) for key, specs in wanted.items()})
    # The torch is there: it is flashinfer that stops it.
    assert answers["torch"]["python"].endswith("_cp313t")
    assert answers["gil"]["python"].endswith("_cp313")
    assert "python-freethreading" in answers["free"].refusal


def test_pip_takes_no_wheel_for_the_stable_abi_there() -> None:
    tag = "cp38-abi3-linux"  # as in every wheel's name, with another platform
    with_gil = {str(one) for one in cpython_tags((3, 13), ["cp313"], ["linux"])}
    without = {str(one) for one in cpython_tags((3, 13), ["cp313t"], ["linux"])}
    assert tag in with_gil
    assert tag not in without
