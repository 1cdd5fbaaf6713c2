"""The SBOMs of what the main job made: sound, the same in both forms, and true."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from conda_bridge.formats import conda_package, elf
from flashinfer_build.label import Label

Documents = dict[str, bytes]


def in_wheel(dist: Path, label: Label, part: str) -> Documents:
    with zipfile.ZipFile(dist / "wheels" / label.wheel_file) as wheel:
        return {
            name.partition(f".dist-info/{part}/")[2]: wheel.read(name)
            for name in wheel.namelist()
            if f".dist-info/{part}/" in name
        }


def in_conda(dist: Path, label: Label) -> Documents:
    channel = dist / "channel" / "linux-64"
    return {
        member.path.rpartition("/")[2]: member.read()
        for file in (label.conda_file, label.lib_conda_file)
        for member in conda_package.read(channel / file).payload()
        if "/sboms/" in member.path
    }


def uses(document: dict[str, Any]) -> dict[str, set[str]]:
    """By the name of a component: how it is used."""
    return {
        item["name"]: {
            entry["value"] for entry in item["properties"] if entry["name"] == "flashinfer:use"
        }
        for item in document["components"]
    }


def test_they_are_the_same_documents_in_both_and_cyclonedx_takes_them(
    dist: Path, label: Label
) -> None:
    documents = in_wheel(dist, label, "sboms")
    assert documents == in_conda(dist, label)
    assert set(documents) == {"flashinfer.cdx.json", "libflashinfer.cdx.json"}
    for text in documents.values():
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None


def test_they_name_what_is_in_the_libraries(dist: Path, label: Label) -> None:
    """Components by names that every provider's have, and none that nobody knows."""
    documents = in_wheel(dist, label, "sboms")
    library, binding = (
        uses(json.loads(documents[f"{name}.cdx.json"])) for name in ("libflashinfer", "flashinfer")
    )
    for found in (library, binding):
        assert found["flashinfer-source"] == {"source"}
        assert "unknown" not in found
        assert {"headers", "linked-in", "compiler", "run-time"} <= set().union(*found.values())
        assert any("stdc++" in name or "libstdcxx" in name for name in found)
    torch = binding.get("torch") or binding["pytorch"]
    assert torch == {"headers", "run-time"}
    cuda = {name: found for name, found in library.items() if "cuda" in name}
    if label.variant.cuda is None:
        assert cuda == {}
    else:
        assert any("linked-in" in found for found in cuda.values())  # libcudart_static.a
        assert any("headers" in found for name, found in cuda.items() if "cccl" in name)
        assert any("compiler" in found for found in cuda.values())


def test_nothing_of_the_machine_is_in_them(dist: Path, label: Label, root: Path) -> None:
    for text in in_wheel(dist, label, "sboms").values():
        assert not elf.leaked_paths(text)
        assert str(root).encode() not in text
        assert "timestamp" not in json.loads(text)["metadata"]


def test_every_licence_that_they_name_is_there_once(dist: Path, label: Label) -> None:
    texts = in_wheel(dist, label, "licenses")
    digests = [hashlib.sha256(text).hexdigest() for text in texts.values()]
    assert len(set(digests)) == len(digests)
    wanted = {
        entry["value"]
        for text in in_wheel(dist, label, "sboms").values()
        for item in json.loads(text)["components"]
        for entry in item["properties"]
        if entry["name"] == "flashinfer:licence-text"
    }
    assert wanted
    assert wanted <= set(digests)
