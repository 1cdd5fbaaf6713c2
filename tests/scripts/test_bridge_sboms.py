"""SBOMs on the way from conda to pip and back: kept as they are, those of folded packages too."""

from __future__ import annotations

from pathlib import Path

import factories
import pytest
import toy_artifacts
from foreign import package, project
from test_bridge_kinds import PURE, below, made

from conda_bridge.bridge.to_conda import to_conda
from conda_bridge.errors import ArtifactError
from conda_bridge.formats import conda_package

OWN = "site-packages/demo-1.2.0.dist-info/"
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.2.0\n\n"
BILL = b'{"bomFormat": "CycloneDX", "specVersion": "1.6"}\n'
OTHER = b'{"bomFormat": "CycloneDX", "specVersion": "1.7"}\n'
FOLD = {
    "fold": [
        {
            "package": "libdemo",
            "files": {"share/libdemo/sboms/": ".dist-info/sboms/", "lib/": "demo/lib/"},
        }
    ]
}


def pair(folder: Path, name: str, **options: object) -> Path:
    """A package with an SBOM, and its library with one of the file name `name`."""
    package(
        folder,
        "libdemo",
        files={f"share/libdemo/sboms/{name}": OTHER, "lib/demo.txt": b"x"},
        **options,  # type: ignore[arg-type]
    )
    return package(
        folder,
        "demo",
        files={
            **below("site-packages/", PURE),
            f"{OWN}METADATA": METADATA,
            f"{OWN}sboms/demo.cdx.json": BILL,
        },
        noarch="python",
        subdir="noarch",
        depends=("python >=3.9", "libdemo"),
    )


def test_the_sboms_of_folded_packages_are_beside_the_wheels_own(tmp_path: Path) -> None:
    main = pair(tmp_path, "libdemo.cdx.json")
    result, files = made(main, tmp_path, project=project(**FOLD))
    info = "demo-1.2.0.dist-info"
    assert files[f"{info}/sboms/demo.cdx.json"] == BILL
    assert files[f"{info}/sboms/libdemo.cdx.json"] == OTHER
    assert files["demo/lib/demo.txt"] == b"x"
    assert not any("share" in path for path in (*files, *result.payload))


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        made(pair(tmp_path, "demo.cdx.json"), tmp_path, project=project(**FOLD))
    assert "is not the sboms/demo.cdx.json that the wheel has already" in str(caught.value)
    assert not list(tmp_path.glob("*.whl"))


def test_a_link_is_refused(tmp_path: Path) -> None:
    main = pair(tmp_path, "a.json", links={"share/libdemo/sboms/b.json": "a.json"})
    with pytest.raises(ArtifactError, match=r"sboms/b\.json: is a link"):
        made(main, tmp_path, project=project(**FOLD))


def test_a_wheels_sboms_are_in_its_conda_package(tmp_path: Path) -> None:
    """Of flashinfer's own wheel both, byte for byte, with the licences that they name."""
    label = factories.label_of("cpu_torch213")
    path = toy_artifacts.write_wheel(tmp_path, label)
    inside = toy_artifacts.wheel_files(label)
    done = to_conda(path, tmp_path / "conda", level=1)
    content = {item.path: item.read() for item in conda_package.read(done.path).payload()}
    wanted = {
        name: data for name, data in inside.items() if "/sboms/" in name or "/licenses/" in name
    }
    assert len([name for name in wanted if "/sboms/" in name]) == 2
    for name, data in wanted.items():
        found = [text for at, text in content.items() if at.endswith(name)]
        assert found == [data], name
