"""Which variant a conda client chooses, from the metadata that the recipes give the packages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from meta_yaml import Recipe

from conda_bridge import variants

# Between the CUDA releases that would do nothing decides: track_features is yes or no to rattler.
OF_TORCH_26 = ("cu118_torch26", "cu124_torch26", "cu126_torch26")
NO_GPU = ["__glibc=2.36"]


def driver(version: str) -> list[str]:
    return [*NO_GPU, f"__cuda={version}"]


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All our packages, and the ones of others that tell the variants apart; metadata alone."""
    folder = tmp_path_factory.mktemp("channel")
    recipe = Path(__file__).parents[2] / "recipe/meta.yaml"
    records = [record("python", "3.11.7", "0")]
    for minor in sorted({spec.pytorch for spec in variants.load()}):
        records.append(record("pytorch", f"{minor}.0", "cpu_0"))
    # As conda-forge's: a torch built with CUDA takes part in the choice through cuda-version.
    for release in ("12.9", "13.0"):
        records.append(record("cuda-version", release, "0"))
        low, high = release, int(release.split(".")[0]) + 1
        name = f"cuda{release.replace('.', '')}_0"
        records.append(record("pytorch", "2.9.0", name, depends=[f"cuda-version >={low},<{high}"]))
    for spec in variants.load():
        records += ours(Recipe(recipe, spec.as_mapping(), {}).render())
    repodata = {
        "info": {"subdir": "linux-64"},
        "packages": {},
        "packages.conda": dict(records),
        "repodata_version": 1,
    }
    for subdir, content in (("linux-64", repodata), ("noarch", {**repodata, "packages.conda": {}})):
        (folder / subdir).mkdir()
        (folder / subdir / "repodata.json").write_text(json.dumps(content))
    return folder


def record(name: str, version: str, build: str, **more: object) -> tuple[str, dict[str, object]]:
    entry: dict[str, object] = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "depends": [],
        "subdir": "linux-64",
        **more,
    }
    return f"{name}-{version}-{build}.conda", entry


def ours(recipe: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, object]]]:
    for output in recipe["outputs"]:
        requirements, build = output["requirements"], output["build"]
        features = " ".join(build.get("track_features") or [])
        yield record(
            output["name"],
            recipe["package"]["version"],
            build["string"],
            depends=requirements.get("run") or [],
            constrains=requirements.get("run_constrained") or [],
            **({"track_features": features} if features else {}),
        )


@pytest.fixture(scope="module")
def chosen(channel: Path) -> dict[str, list[str]]:
    cases = {
        "new driver": (driver("13.0"), ["flashinfer", "pytorch 2.13.*"]),
        "no GPU": (NO_GPU, ["flashinfer", "pytorch 2.13.*"]),
        "old driver": (driver("12.4"), ["flashinfer", "pytorch 2.13.*"]),
        "old driver, older torch": (driver("12.4"), ["flashinfer", "pytorch 2.6.*"]),
        "very old driver": (driver("11.8"), ["flashinfer", "pytorch 2.6.*"]),
        "CPU by name": (driver("13.0"), ["flashinfer * cpu_*"]),
        "torch of CUDA 12": (driver("13.0"), ["flashinfer", "pytorch 2.9.* cuda129_*"]),
        "torch of CUDA 13": (driver("13.0"), ["flashinfer", "pytorch 2.9.* cuda130_*"]),
        "only the library": (driver("13.0"), ["libflashinfer"]),
        "a CUDA that the driver cannot run": (
            driver("12.4"),
            ["flashinfer * cu130_torch213*"],
        ),
    }
    request = {
        "channel": channel.as_uri(),
        "cases": [{"machine": machine, "wanted": wanted} for machine, wanted in cases.values()],
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("solve_cases.py"))],
        input=json.dumps(request),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout), strict=True))


def variant(chosen: list[str]) -> str:
    """The variant's id among what was chosen, with the library that belongs to it."""
    [package] = [name for name in chosen if name.startswith("flashinfer-")]
    [library] = [name for name in chosen if name.startswith("libflashinfer-")]
    found = package.split("-")[2].removesuffix("_0")
    assert library.split("-")[2] == f"{found.split('_')[0]}_0"
    return found


def test_cuda_outranks_the_cpu_where_both_would_do(chosen: dict[str, list[str]]) -> None:
    assert variant(chosen["new driver"]) == "cu130_torch213"
    assert any(name.startswith("libflashinfer-0.1.6-cu") for name in chosen["only the library"])


def test_cuda_packages_install_without_a_gpu_and_beside_a_cpu_torch(
    chosen: dict[str, list[str]],
) -> None:
    assert variant(chosen["no GPU"]) == "cu130_torch213"
    assert "pytorch-2.13.0-cpu_0" in chosen["no GPU"]
    assert not any(name.startswith("cuda-version") for name in chosen["no GPU"])


def test_a_driver_that_is_too_old_gets_what_it_can_run(chosen: dict[str, list[str]]) -> None:
    assert variant(chosen["old driver"]) == "cpu_torch213"
    assert variant(chosen["old driver, older torch"]) in OF_TORCH_26
    assert variant(chosen["very old driver"]) == "cu118_torch26"
    assert chosen["a CUDA that the driver cannot run"][0] == "unsolvable"


def test_the_cuda_of_torch_decides_the_major(chosen: dict[str, list[str]]) -> None:
    assert variant(chosen["torch of CUDA 13"]) == "cu130_torch29"
    assert variant(chosen["torch of CUDA 12"]) in (
        "cu126_torch29",
        "cu128_torch29",
        "cu129_torch29",
    )


def test_the_cpu_variant_can_be_asked_for(chosen: dict[str, list[str]]) -> None:
    assert variant(chosen["CPU by name"]).startswith("cpu_")
