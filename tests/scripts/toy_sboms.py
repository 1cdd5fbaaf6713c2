"""SBOMs as the build writes them, for libraries that were made up: true of what they show."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from conda_bridge.errors import ArtifactError
from conda_bridge.formats import elf
from conda_bridge.formats.elf import SharedObject
from flashinfer_build.artifact import LICENCES

# The licence of all that is compiled in, and where a wheel's .dist-info has it.
TEXT = b"Do what is right.\n"
LICENCE = f"licenses/{LICENCES}/toy.LICENSE"
Change = Callable[[dict[str, Any]], None]


def component(name: str, version: str, *uses: str, text: bytes = TEXT) -> dict[str, Any]:
    """One component, with the licence `text` where it is compiled in."""
    properties = [{"name": "flashinfer:use", "value": use} for use in uses]
    if {"headers", "linked-in"} & set(uses):
        digest = hashlib.sha256(text).hexdigest()
        properties.append({"name": "flashinfer:licence-text", "value": digest})
    purl = f"pkg:generic/{name}@{version}"
    return {
        **{"type": "library", "bom-ref": f"{name} {version}", "name": name, "version": version},
        **{"purl": purl, "properties": properties},
    }


def _read(data: bytes, file: str) -> SharedObject | None:
    try:
        return elf.read(data, file, info_section="flashinfer_info")
    except ArtifactError:
        return None


def document(name: str, file: str, data: bytes, change: Change = lambda _bill: None) -> bytes:
    """The SBOM of the library `file` with the bytes `data`, changed as a test wants it."""
    library = _read(data, file)
    info = dict(library.info or {}) if library else {}
    stated = {
        "type": "file",
        "bom-ref": file,
        "name": file,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}],
        "properties": [],
    }
    components = [stated, component("libstdc++-dev", "1", "headers", "linked-in")]
    if library is not None:
        if library.build_id:
            stated["properties"] = [{"name": "flashinfer:build-id", "value": library.build_id}]
        seen = [re.search(r"\) (\d+\.\d+\.\d+)", text) for text in library.compilers]
        versions = {found[1] for found in seen if found} | {"12.2"}
        components += [component("g++", version, "compiler") for version in sorted(versions)]
        releases = {info.get("cuda", "none"), *library.gpu_producers} - {"none"}
        components += [component("cuda-nvcc", item, "compiler") for item in sorted(releases)]
        if library.gpu_sections:
            components.append(component("cuda-cudart-static", "13.0.96", "linked-in"))
    if "torch" in info:
        components.append(component("torch", info["torch"], "headers"))
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                **{"type": "library", "bom-ref": name, "name": name},
                "version": info.get("version", ""),
            }
        },
        "components": components,
        "dependencies": [{"ref": name, "dependsOn": [file]}],
    }
    change(bill)
    return json.dumps(bill, indent=1).encode()
