"""pip's traces leave an installed distribution, and RECORD stays true."""

from __future__ import annotations

import base64
import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

TRACES = {
    "direct_url.json": '{"url": "file:///home/builder/work"}',
    "REQUESTED": "",
    "INSTALLER": "pip\n",
}


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    """A distribution as pip leaves it."""
    files = {"demo/__init__.py": "x = 1\n", "demo-1.0+cpu.dist-info/METADATA": "Name: demo\n"}
    files |= {f"demo-1.0+cpu.dist-info/{name}": text for name, text in TRACES.items()}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    rows = [[name, digest(tmp_path / name), str(len(text))] for name, text in files.items()]
    with (tmp_path / "demo-1.0+cpu.dist-info/RECORD").open("w", newline="") as stream:
        csv.writer(stream).writerows([*rows, ["demo-1.0+cpu.dist-info/RECORD", "", ""]])
    return tmp_path


def digest(path: Path) -> str:
    raw = hashlib.sha256(path.read_bytes()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_traces_go_and_record_agrees_with_the_files(root: Path, site_packages: Path) -> None:
    program = root / "recipe/own_dist_info.py"
    for _ in range(2):  # a second run changes nothing
        subprocess.run([sys.executable, str(program), str(site_packages), "demo"], check=True)
        folder = site_packages / "demo-1.0+cpu.dist-info"
        assert sorted(path.name for path in folder.iterdir()) == ["INSTALLER", "METADATA", "RECORD"]
        assert (folder / "INSTALLER").read_text() == "conda"
        with (folder / "RECORD").open(newline="") as stream:
            rows = {name: (sha, size) for name, sha, size in csv.reader(stream)}
        present = {
            path.relative_to(site_packages).as_posix(): path
            for path in site_packages.rglob("*")
            if path.is_file()
        }
        assert set(rows) == set(present)
        for name, path in present.items():
            if path.name == "RECORD":
                assert rows[name] == ("", "")
            else:
                assert rows[name] == (digest(path), str(path.stat().st_size))
