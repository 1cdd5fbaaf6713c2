"""The SBOM that a build writes, by CycloneDX's own library; what was read; anybody's, read."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from conda_bridge.errors import ArtifactError, BuildFailed
from conda_bridge.formats import cyclonedx
from flashinfer_build.compile import sbom, used_files
from flashinfer_build.compile.origins import Origin
from flashinfer_build.compile.used_files import UsedFiles

NVIDIA = Origin(
    "nvidia-cuda-runtime",
    "13.0.96",
    "pkg:pypi/nvidia-cuda-runtime@13.0.96",
    "ab" * 32,
    "nvidia_cuda_runtime-13.0.96.whl",
    "LicenseRef-NVIDIA-Proprietary",
    {"License.txt": b"the agreement"},
)
GXX = Origin("g++-12", "12.2.0-14", "pkg:deb/debian/g%2B%2B-12@12.2.0-14", texts={"c": b"GPL"})
TORCH = Origin(
    "torch",
    "2.13.0",
    "pkg:pypi/torch@2.13.0",
    licence="BSD-3-Clause AND MIT",
    texts={
        "LICENSE": b"torch's",
        "third_party/fmt/LICENSE": b"fmt's",
        "third_party/onnx/LICENSE": b"onnx's",
    },
)
LIBC = Origin("libc6", "2.36", "pkg:deb/debian/libc6@2.36")
NOTE = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0" + bytes(range(20))


def made(folder: Path, *, header: bytes = b"#pragma once\n") -> sbom.Bill:
    """The bill of a toy library that was built in `folder`."""
    contents = {
        "project/csrc/api.cpp": b"int main;",
        "project/flashinfer/a.py": b"",
        "cuda/cuda_runtime.h": header,
        "cuda/libcudart_static.a": b"\0GCC: (GNU) 8.5.0 20210514 (Red Hat 8.5.0-20)\0",
        "torch/include/fmt/core.h": b"fmt",
        "bin/cc1plus": b"",
        "lib/libc.so.6": b"",
        "build/libflashinfer.so": b"\x7fELF" + NOTE,
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    paths = {Path(name).name: folder / name for name in contents}
    used = UsedFiles(
        sources=(paths["api.cpp"],),
        headers=(paths["cuda_runtime.h"], paths["core.h"]),
        linked=(paths["libcudart_static.a"],),
        shared=(paths["libc.so.6"],),
        programs=(paths["cc1plus"],),
    )
    origins = {
        paths["cuda_runtime.h"]: NVIDIA,
        paths["libcudart_static.a"]: NVIDIA,
        paths["core.h"]: TORCH,
        paths["cc1plus"]: GXX,
        paths["libc.so.6"]: LIBC,
    }
    return sbom.bill(
        "libflashinfer",
        "0.1.6",
        paths["libflashinfer.so"],
        used,
        origins,
        root=folder / "project",
        more_sources=[paths["a.py"]],
    )


def properties(component: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in component["properties"]:
        found.setdefault(item["name"].removeprefix("flashinfer:"), []).append(item["value"])
    return found


def test_cyclonedx_own_library_takes_it(tmp_path: Path) -> None:
    text = made(tmp_path).document.decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = Bom.from_json(json.loads(text))  # type: ignore[attr-defined]
    assert {str(item.purl) for item in bom.components if item.purl} == {
        "pkg:deb/debian/g%2B%2B-12@12.2.0-14",
        "pkg:deb/debian/libc6@2.36",
        "pkg:github/flashinfer-ai/flashinfer@v0.1.6",
        "pkg:pypi/nvidia-cuda-runtime@13.0.96",
        "pkg:pypi/torch@2.13.0",
    }
    assert bom.validate()  # every reference leads somewhere


def test_what_it_says(tmp_path: Path) -> None:
    document = json.loads(made(tmp_path).document)
    found = {item["name"]: item for item in document["components"]}
    runtime = found["nvidia-cuda-runtime"]
    assert runtime["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert runtime["licenses"] == [{"expression": "LicenseRef-NVIDIA-Proprietary"}]
    said = properties(runtime)
    assert (said["use"], said["files"]) == (["headers", "linked-in"], ["2"])
    assert said["compiled-by"] == ["GCC: (GNU) 8.5.0 20210514 (Red Hat 8.5.0-20)"]
    assert said["licence-text"] == [hashlib.sha256(b"the agreement").hexdigest()]
    assert properties(found["g++-12"]) == {"use": ["compiler"]}
    assert properties(found["libc6"]) == {"use": ["run-time"]}
    assert properties(found["flashinfer-source"])["files"] == ["2"]
    library = found["libflashinfer.so"]
    assert properties(library) == {"build-id": [bytes(range(20)).hex()]}
    data = (tmp_path / "build/libflashinfer.so").read_bytes()
    assert library["hashes"][0]["content"] == hashlib.sha256(data).hexdigest()
    depends = {item["ref"]: item["dependsOn"] for item in document["dependencies"]}
    # What the loader brings is beside the file, and not in it.
    assert depends["libflashinfer"] == ["libflashinfer.so", LIBC.purl]
    assert depends["libflashinfer.so"] == [GXX.purl, NVIDIA.purl, TORCH.purl, "source"]


def test_the_licences_of_what_is_compiled_in(tmp_path: Path) -> None:
    """Of what torch bundles, only that of which a header was read; of compilers none."""
    assert made(tmp_path).licences == {
        "nvidia-cuda-runtime.License.txt": b"the agreement",
        "torch.LICENSE": b"torch's",
        "torch.third_party.fmt.LICENSE": b"fmt's",
    }


def test_it_is_the_same_in_every_folder_and_no_other_is(tmp_path: Path) -> None:
    one, other = made(tmp_path / "a"), made(tmp_path / "deep/er/b")
    assert one == other
    assert str(tmp_path).encode() not in one.document
    changed = made(tmp_path / "c", header=b"#pragma once\n\n")
    serials = {json.loads(item.document)["serialNumber"] for item in (one, other, changed)}
    assert len(serials) == 2


@pytest.mark.parametrize(
    ("said", "is_expression"),
    [
        ("Apache-2.0 WITH LLVM-exception", True),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", True),
        ("LicenseRef-NVIDIA-End-User-License-Agreement", True),
        ("NVIDIA Proprietary Software", False),
        ("GPL", False),
        ("BSD-3-Clause AND", False),
        ("(MIT", False),
        ("BSD-2-clause, GPL-2", False),
    ],
)
def test_words_of_a_packager(tmp_path: Path, said: str, is_expression: bool) -> None:
    """What has the form of an SPDX expression is one; all other words are a licence's name."""
    origin = Origin("x", "1", "pkg:generic/x@1", licence=said)
    header = tmp_path / "x.h"
    header.write_bytes(b"")
    library = tmp_path / "x.so"
    library.write_bytes(b"")
    used = UsedFiles((), (header,), (), (), ())
    bill = sbom.bill("x", "1", library, used, {header: origin}, root=tmp_path)
    [found] = [item for item in json.loads(bill.document)["components"] if item["name"] == "x"]
    expected: object = {"expression": said} if is_expression else {"license": {"name": said}}
    assert found["licenses"] == [expected]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.document.decode()) is None


# ------------------------------------------------------------ what was read


def test_what_a_build_leaves_is_read(tmp_path: Path) -> None:
    """Names through a link of the build's folder, archives with their members, linker scripts."""
    toolkit = tmp_path / "toolkit"
    for name in ("bin/nvcc", "include/cuda.h", "lib/libcudart_static.a", "lib/unused.a"):
        (toolkit / name).parent.mkdir(parents=True, exist_ok=True)
        (toolkit / name).write_bytes(b"")
    (tmp_path / "libm.so").write_text("GROUP ( libm.so.6 )")
    (tmp_path / "libm.so.6").write_bytes(b"\x7fELF")
    root, folder = tmp_path / "project", tmp_path / "build"
    (root / "csrc").mkdir(parents=True)
    (root / "csrc/api.cpp").write_bytes(b"")
    folder.mkdir()
    (folder / "csrc").symlink_to(root / "csrc")
    (folder / "nvcc").symlink_to(toolkit / "bin")
    (folder / "cuda").symlink_to(toolkit)
    library = folder / "lib.so"
    (folder / "lib.so.linked").write_text(
        "csrc-api.o\ncuda/lib/libcudart_static.a\n(cuda/lib/libcudart_static.a)one.o\n"
        f"cuda/lib/unused.a\n/usr/lib/new.a(two.o)\n/usr/lib/crti.o\n{tmp_path}/libm.so\n"
        f"{tmp_path}/libm.so.6\n"
    )
    ninja = tmp_path / "ninja"
    ninja.write_text(
        "#!/bin/sh\nprintf 'csrc-api.o: #deps 3, deps mtime 1 (VALID)\\n"
        "    csrc/api.cpp\\n    nvcc/../include/cuda.h\\n    /usr/include/x.h\\n'\n"
    )
    gcc = tmp_path / "g++"
    gcc.write_text('#!/bin/sh\necho "/opt/gcc/${1##*=}"\n')
    for program in (ninja, gcc):
        program.chmod(0o755)
    found = used_files.read(root, library, ninja=str(ninja), cxx=[str(gcc)], nvcc=None)
    assert found == UsedFiles(
        sources=(root / "csrc/api.cpp",),
        headers=tuple(sorted((toolkit / "include/cuda.h", Path("/usr/include/x.h")))),
        linked=tuple(
            sorted(
                (
                    toolkit / "lib/libcudart_static.a",
                    Path("/usr/lib/crti.o"),
                    Path("/usr/lib/new.a"),
                )
            )
        ),
        shared=(tmp_path / "libm.so.6",),
        programs=tuple(Path(f"/opt/gcc/{name}") for name in ("as", "cc1plus", "ld")),
    )
    (folder / "lib.so.linked").unlink()
    with pytest.raises(BuildFailed, match="the linker left no record"):
        used_files.read(root, library, ninja=str(ninja), cxx=[str(gcc)], nvcc=None)
    ninja.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(BuildFailed, match="no record of what was compiled"):
        used_files.read(root, library, ninja=str(ninja), cxx=[str(gcc)], nvcc=None)


# ------------------------------------------------------------ anybody's SBOM, read

BILL: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.7",
    "metadata": {"component": {"type": "library", "bom-ref": "main", "name": "m", "version": "1"}},
    "components": [
        {"type": "library", "bom-ref": "a", "name": "a", "licenses": [{"license": {"id": "MIT"}}]}
    ],
    "dependencies": [{"ref": "main", "dependsOn": ["a"]}],
}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"bomFormat": "SPDX"}, "bomFormat is 'SPDX'"),
    ({"specVersion": "1.5"}, "specVersion is 1.5"),
    ({"specVersion": 1.6}, "specVersion is 1.6"),
    ({"specVersion": "1.6x"}, "specVersion is '1.6x'"),
    ({"components": {}}, "components is {}"),
    ({"components": [3]}, "is 3"),
    ({"components": [{"type": "library"}]}, "has no name, or no type"),
    ({"components": [{"type": "file", "name": 1}]}, "name is 1"),
    ({"components": [{"type": "file", "name": "a", "properties": ["x"]}]}, "a property is 'x'"),
    ({"components": [{"type": "file", "name": "a", "licenses": ["x"]}]}, "a licence is 'x'"),
    ({"components": [*BILL["components"], *BILL["components"]]}, "bom-ref 'a' is there twice"),
    ({"dependencies": [{"ref": "main", "dependsOn": ["b"]}]}, "'b' is no component's bom-ref"),
    ({"dependencies": [[]]}, r"is \[\]"),
]


def test_a_sound_one_is_read() -> None:
    bill = cyclonedx.read(json.dumps(BILL).encode(), "x")
    assert (bill.name, bill.version) == ("m", "1")
    assert [(item.name, item.licences) for item in bill.components] == [("a", ("MIT",))]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_none_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ArtifactError, match=words if "\\" in words else re.escape(words)):
        cyclonedx.read(json.dumps({**BILL, **change}).encode(), "x")
