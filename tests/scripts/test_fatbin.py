"""Which GPU code is in a library: read from what nvcc really wrote (tests/scripts/fatbin)."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conda_bridge.errors import ArtifactError, ConfigError
from conda_bridge.formats import fatbin

FOLDER = Path(__file__).parent / "fatbin"
LISTING = json.loads((FOLDER / "listing.json").read_text())


def section(name: str) -> bytes:
    return (FOLDER / f"{name}.bin").read_bytes()


def images(name: str) -> list[fatbin.Image]:
    return [image for container in fatbin.parse(section(name)) for image in container.images]


@pytest.mark.parametrize("name", LISTING)
def test_lists_what_nvcc_was_asked_for(name: str) -> None:
    assert sorted(image.code for image in images(name)) == LISTING[name]["codes"]


@pytest.mark.parametrize("name", [name for name in LISTING if name not in ("blackwell", "lto")])
def test_lists_what_cuobjdump_lists(name: str) -> None:
    ours = sorted(f"sm_{image.arch} {image.kind}" for image in images(name))
    assert ours == LISTING[name]["cuobjdump"]


def test_cuobjdump_leaves_out_the_family_suffix_that_we_read() -> None:
    # sm_120f is listed as sm_120: the flag in the header is what tells the two apart.
    assert "sm_120 cubin" in LISTING["blackwell"]["cuobjdump"]
    assert "sm_120f" in {image.code for image in images("blackwell")}


@pytest.mark.parametrize(
    ("name", "compression"),
    [("zstd", {"zstd"}), ("lz4", {"lz4"}), ("plain", {"none"}), ("relocatable", {"zstd"})],
)
def test_compression(name: str, compression: set[str]) -> None:
    assert {image.compression for image in images(name)} == compression


@pytest.mark.parametrize("name", ["zstd", "lz4", "plain", "relocatable", "blackwell"])
def test_every_image_names_the_architecture_it_is_listed_with(name: str) -> None:
    assert all(image.measured and image.consistent for image in images(name))


def test_the_sizes_are_those_of_the_uncompressed_images() -> None:
    plain, packed = images("plain"), images("zstd")
    cubins = {image.arch: image.size for image in plain if image.kind == "cubin"}
    assert cubins == {image.arch: image.size for image in packed if image.kind == "cubin"}
    assert all(image.packed_size < image.size for image in packed)


@pytest.mark.parametrize("name", ["zstd", "lz4", "plain"])
def test_a_relabelled_image_is_found_out(name: str) -> None:
    """The table of contents says sm_86, the machine code inside is still sm_80."""
    data = bytearray(section(name))
    changed = 0
    for at in range(16, len(data) - 64, 8):
        kind, version, _ = struct.unpack_from("<HHI", data, at)
        if (kind, version) == (2, 0x101) and struct.unpack_from("<I", data, at + 28)[0] == 80:
            struct.pack_into("<I", data, at + 28, 86)
            changed += 1
    assert changed == 1
    (container,) = fatbin.parse(data)
    assert "sm_86" in container.codes
    assert [image.code for image in container.images if not image.consistent] == ["sm_86"]


def test_compressed_code_that_cannot_be_unpacked_is_not_believed() -> None:
    for name in ("zstd", "lz4"):
        data = bytearray(section(name))
        at = data.index(b"\xb5/\xfd" if name == "zstd" else b"ELF")
        data[at : at + 6] = b"\xff" * 6
        assert not all(image.consistent for c in fatbin.parse(data) for image in c.images)


def test_an_entry_that_ends_in_its_header() -> None:
    data = bytearray(section("zstd"))
    end = 1448 + 20  # the last entry is at 1448
    assert struct.unpack_from("<HH", data, 1448) == (2, 0x101)
    struct.pack_into("<Q", data, 8, end - 16)
    with pytest.raises(ArtifactError, match="ends inside an entry's header"):
        fatbin.parse(data[:end])


def test_several_containers_and_the_padding_between_them() -> None:
    data = section("zstd") + bytes(24) + section("relocatable") + bytes(8)
    first, second = fatbin.parse(data)
    assert first.codes == {"sm_80", "compute_80", "sm_90a"}
    assert second.codes == {"sm_80", "sm_90a"}
    assert second.offset == len(section("zstd")) + 24


def test_an_empty_section_has_no_containers() -> None:
    assert fatbin.parse(b"") == ()
    assert fatbin.parse(bytes(64)) == ()


@pytest.mark.parametrize(
    ("arch_list", "codes"),
    [
        ("8.0+PTX;9.0a", {"sm_80", "compute_80", "sm_90a"}),
        ("9.0a", {"sm_90a"}),
        ("12.0f", {"sm_120f"}),
        ("", set()),
    ],
)
def test_expected_codes(arch_list: str, codes: set[str]) -> None:
    assert fatbin.expected_codes(arch_list) == codes


def test_expected_codes_refuses_what_is_no_architecture() -> None:
    with pytest.raises(ConfigError, match="hopper"):
        fatbin.expected_codes("8.0;hopper")


@pytest.mark.parametrize("name", ["zstd", "plain"])
@pytest.mark.parametrize("keep", [8, 20, 60, 200, -8])
def test_a_cut_section_is_an_error(name: str, keep: int) -> None:
    with pytest.raises(ArtifactError, match="GPU code at offset"):
        fatbin.parse(section(name)[:keep], where="libflashinfer.so")


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 0x12345678, "no fat binary"),
        (8, 0x7FFFFFFF, "are left"),
        (16, 0x01010077, "unknown kind"),
        (20, 0x7FFFFFF0, "past the end"),
        (24, 0x7FFFFFF0, "past the end"),
        (32, 0x7FFFFFF0, "larger than the room"),
    ],
)
def test_a_header_that_lies_is_an_error(offset: int, value: int, message: str) -> None:
    data = bytearray(section("zstd"))
    struct.pack_into("<I", data, offset, value)
    with pytest.raises(ArtifactError, match=message):
        fatbin.parse(data)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["zstd", "lz4", "plain", "blackwell"]),
    changes=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_damage_is_an_answer_or_an_artifact_error(
    name: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(section(name))
    for offset, value in changes:
        data[offset % len(data)] = value
    try:
        containers = fatbin.parse(data)
    except ArtifactError:
        return
    assert all(image.packed_size <= len(data) for c in containers for image in c.images)


NVCC = shutil.which("nvcc")


@pytest.mark.skipif(
    NVCC is None, reason="no nvcc on PATH; the files in fatbin/ were made with 13.0"
)
def test_the_nvcc_here_writes_the_same_format(tmp_path: Path) -> None:
    assert NVCC is not None
    work = tmp_path / "fatbin"
    shutil.copytree(FOLDER, work)
    (work / "zstd.bin").unlink()
    subprocess.run([sys.executable, str(work / "make.py"), NVCC, "--only", "zstd"], check=True)
    found = Counter(
        image.code
        for container in fatbin.parse((work / "zstd.bin").read_bytes())
        for image in container.images
        if image.consistent
    )
    assert found == Counter(["sm_80", "compute_80", "sm_90a"])
