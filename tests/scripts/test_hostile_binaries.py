"""Shared objects and GPU code made to be read forever, or to fill the memory."""

from __future__ import annotations

import re
import re._constants
import re._parser
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import elf_factory as made
import pytest

from conda_bridge.bridge import conda_binaries, manylinux
from conda_bridge.errors import ArtifactError
from conda_bridge.formats import abi3, elf, fatbin, limits
from conda_bridge.formats.content import Allowance, Content, Held, Room
from conda_bridge.verify.findings import ArtifactReport

LONG = 200_000
NAME = b"\0" + b"x" * LONG + b"\0"


def patched(data: bytes, offset: int, form: str, *values: int) -> bytes:
    """`data` with other numbers at an offset."""
    copy = bytearray(data)
    struct.pack_into(form, copy, offset, *values)
    return bytes(copy)


def versions(section: bytes, count: int, strings: bytes = b"\0a\0b\0") -> bytes:
    """A file with this ``.gnu.version_r``."""
    name = ".gnu.version_r"
    return made.shared_object(strings=strings, sections={name: section}, counts={name: count})


def definitions(section: bytes, count: int) -> bytes:
    name = ".gnu.version_d"
    return made.shared_object(strings=b"\0a\0", sections={name: section}, counts={name: count})


def header(field: int, form: str, value: int) -> bytes:
    """A file with another number in its header."""
    return patched(made.shared_object(), field, form, value)


TWO = made.needs([(1, [3]), (1, [3])])
DEFINED = struct.pack("<HHHHIII", 1, 0, 2, 1, 0, 20, 0) + struct.pack("<II", 1, 0)
NOTE = ".note.gnu.build-id"

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "thousands of libraries over one long name": (
        lambda: made.shared_object(strings=NAME, entries=[(1, 1)] * 4000),
        "a name without an end",
    ),
    "libraries that overlap": (
        lambda: made.shared_object(
            strings=b"\0" + b"x" * 4000 + b"\0", entries=[(1, 1 + n % 8) for n in range(4000)]
        ),
        f"names of more than {limits.ELF_TEXT} characters together",
    ),
    "symbols that overlap": (
        lambda: made.shared_object(
            strings=NAME, symbols=b"".join(made.symbol(1 + n) for n in range(100))
        ),
        f"names of more than {limits.ELF_OVERLAP * len(NAME)} characters together",
    ),
    "a symbol that is too long": (
        lambda: made.shared_object(
            strings=b"\0" + b"x" * (limits.ELF_NAME + 1) + b"\0", symbols=made.symbol(1)
        ),
        "a name without an end",
    ),
    "names without an end": (
        lambda: made.shared_object(strings=b"\0abc", symbols=made.symbol(1)),
        "a name without an end",
    ),
    "a name outside": (
        lambda: made.shared_object(symbols=made.symbol(0x7FFFFFFF)),
        "a name at 0x7fffffff",
    ),
    "a library outside": (
        lambda: made.shared_object(entries=[(1, (1 << 64) - 1)]),
        "a name at 0xffffffffffffffff",
    ),
    "a library's versions that point to themselves": (
        lambda: versions(patched(TWO, 12, "<I", 0), 2),
        "an item whose next one is 0 bytes on, number 0 of 2, in '.gnu.version_r'",
    ),
    "a version that points to itself": (
        lambda: versions(patched(patched(TWO, 2, "<H", 2), 28, "<I", 0), 2),
        "an item whose next one is 0 bytes on",
    ),
    "versions that overlap": (
        lambda: versions(
            struct.pack("<HHIII", 1, 500, 1, 16, 16) * 4000, 2000, b"\0" + b"x" * 20 + b"\0"
        ),
        "more than 8000 versions in '.gnu.version_r'",
    ),
    "more versions than there is room for": (
        lambda: versions(TWO, 0xFFFFFFFF),
        "an item whose next one is 0 bytes on, number 1 of 4294967295",
    ),
    "versions far away": (
        lambda: versions(patched(TWO, 12, "<I", 0xFFFFFFF0), 2),
        "an item that lies outside '.gnu.version_r'",
    ),
    "a definition that points to itself": (
        lambda: definitions(DEFINED, 2),
        "an item whose next one is 0 bytes on, number 0 of 2, in '.gnu.version_d'",
    ),
    "a definition's name far away": (
        lambda: definitions(patched(DEFINED, 12, "<I", 0xFFFFFFFF), 1),
        "an item that lies outside '.gnu.version_d'",
    ),
    "another number of versions for the loader": (
        lambda: patched(
            data := versions(TWO, 2),
            data.index(struct.pack("<QQ", 0x6FFFFFFF, 2)),
            "<QQ",
            0x6FFFFFFF,
            1,
        ),
        "info of '.gnu.version_r' is 2, and the dynamic section says 1",
    ),
    "a section table at the end of the numbers": (
        lambda: header(40, "<Q", (1 << 64) - 1),
        "has no section table, or one that lies outside the file",
    ),
    "a section table of 65 535": (lambda: header(60, "<H", 0xFFFF), "has more than 4096 sections"),
    "no section table": (lambda: header(60, "<H", 0), "has no section table"),
    "section headers of no size": (lambda: header(58, "<H", 0), "section headers of 0 bytes"),
    "names in a section that is not there": (
        lambda: header(62, "<H", 0xFF00),
        "names of sections in section 65280",
    ),
    "a segment table of 65 535": (lambda: header(56, "<H", 0xFFFF), "has more than 256 segments"),
    "segments outside": (lambda: header(32, "<Q", 1 << 62), "segment table, or one that lies"),
    "a segment table within the header": (lambda: header(32, "<Q", 8), "segment table, or one"),
    "a header of another size": (lambda: header(52, "<H", 0), "a header of 0 bytes"),
    "no segment that a loader reads": (lambda: header(56, "<H", 1), "the segment that a loader"),
    "another dynamic section for the loader": (
        lambda: patched(made.shared_object(), 64 + 56 + 8, "<Q", 64),
        "bytes at 0x40",
    ),
    "other names for the loader": (
        lambda: patched(
            data := made.shared_object(),
            data.index(struct.pack("<QQ", 5, 176)),
            "<QQ",
            5,
            184,
        ),
        "section '.dynstr' is at 0xb0, and what a loader reads in its place at 0xb8",
    ),
    "names twice for the loader": (
        lambda: made.shared_object(entries=[(5, 176)]),
        "an entry of the dynamic section is there twice",
    ),
    "a library's name twice": (
        lambda: made.shared_object(strings=b"\0a\0", entries=[(14, 1), (14, 1)]),
        "an entry of the dynamic section is there twice",
    ),
    "symbols of no size": (
        lambda: patched(
            data := made.shared_object(),
            len(data) - 64 * 3 + 56,
            "<Q",
            0,
        ),
        "0 bytes each",
    ),
    "dynamic entries without an end": (
        lambda: made.shared_object(entries=[(100, 0)] * (limits.ELF_DYNAMIC + 1)),
        "has more than 4096 dynamic entries",
    ),
    "names of sections that overlap": (
        lambda: made.shared_object(names=[b"y" * 4000] * 300),
        "names of sections take",
    ),
    "a note that is longer than its section": (
        lambda: made.shared_object(
            sections={NOTE: struct.pack("<IIII", 4, 0xFFFFFFF0, 3, 0x554E47)}
        ),
        "holds no build ID: 4294967280 of 16 bytes",
    ),
    "a note that is cut off": (
        lambda: made.shared_object(sections={NOTE: bytes(8)}),
        "holds no build ID",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_with_the_place_and_what_was_found(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ArtifactError) as caught:
        elf.read(make(), "x.whl: lib.so")
    assert message in caught.value.what
    assert re.search(r"\(at byte \d+( of the file)?\)", caught.value.what)
    assert caught.value.where == "x.whl: lib.so"


def calls_of(work: Callable[[], object]) -> int:
    """How many functions `work` calls, C's as well: its steps, whatever the machine."""
    count = 0

    def seen(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    except ArtifactError:
        pass
    finally:
        sys.setprofile(None)
    return count


class Counted(Held):
    """A content that counts the bytes that are read of it."""

    def __init__(self, data: bytes | memoryview, total: list[int] | None = None) -> None:
        super().__init__(data)
        self.data = memoryview(data)
        self.total = [0] if total is None else total

    def part(self, offset: int, size: int) -> Content:
        return Counted(self.data[offset : offset + size], self.total)

    def _read(self, offset: int, size: int) -> bytes:
        self.total[0] += size
        return super()._read(offset, size)


def libraries(count: int) -> bytes:
    return made.shared_object(strings=b"\0" + b"lib.so\0" * 400, entries=[(1, 1)] * count)


def symbols(count: int) -> bytes:
    names = b"".join(b"\0_Z1aSs%06d" % n for n in range(count)) + b"\0"
    table = b"".join(made.symbol(1 + 13 * n, section=n % 2) for n in range(count))
    return made.shared_object(strings=names, symbols=table)


def many_versions(count: int) -> bytes:
    return versions(made.needs([(1, [3] * 8)] * (count // 8)), count // 8)


def images(count: int) -> bytes:
    return made.shared_object(sections={".nv_fatbin": made.fat_binary(made.image() * count)})


def containers(count: int) -> bytes:
    data = (made.fat_binary(b"") + bytes(8)) * count
    return made.shared_object(sections={".nv_fatbin": data})


def all_of(data: bytes) -> None:
    """Everything that is asked of a library."""
    found = elf.read(data, "x: lib.so")
    policy = manylinux.policies()[0]
    manylinux.obstacles(policy, [found], [f"lib{n}.so" for n in range(1000)])
    conda_binaries.read_object(data, "lib.so", "x")
    abi3.audit(found)
    found.leaks  # noqa: B018 - a property that does the work


@pytest.mark.parametrize(
    ("make", "count"),
    [(libraries, 1500), (symbols, 2000), (many_versions, 3000), (images, 2000), (containers, 2000)],
)
def test_twice_as_much_is_no_more_than_twice_the_work(
    make: Callable[[int], bytes], count: int
) -> None:
    all_of(make(count))  # what is made once
    few, many = make(count), make(2 * count)
    assert calls_of(lambda: all_of(many)) < 2.2 * calls_of(lambda: all_of(few))
    read = []
    for data in (few, many):
        content = Counted(data)
        elf.read(content, "lib.so")
        read.append(content.total[0])
    assert read[1] < 2.2 * read[0]


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_takes_no_more_work_than_the_file_has_bytes(case: str) -> None:
    data = REFUSED[case][0]()
    assert calls_of(lambda: elf.read(data, "lib.so")) < 2 * len(data) + 1000


def test_a_symbol_of_200_000_characters_is_gone_through_once() -> None:
    for text in ("S" * LONG, "La" * (LONG // 2), "L" + "a9" * (LONG // 2), "T0" * (LONG // 2)):
        name = f"_Z{text}Ss"
        data = made.shared_object(
            strings=b"\0" + name.encode() + b"\0", symbols=made.symbol(1, section=0)
        )
        [found] = elf.read(data, "lib.so").undefined
        assert found.name == name
        assert calls_of(lambda name=name: elf.string_abi((name,))) < 3 * LONG  # type: ignore[misc]


def test_no_part_of_a_mangled_name_is_of_any_length() -> None:
    """Of any length, and without its end, a part is looked for anew from each of its letters."""

    def repeats(tree: Any) -> Iterator[object]:
        for operation, argument in tree:
            if operation in (re._constants.MAX_REPEAT, re._constants.MIN_REPEAT):
                yield argument[1]
                yield from repeats(argument[2])
            elif operation is re._constants.BRANCH:
                for branch in argument[1]:
                    yield from repeats(branch)
            elif operation is re._constants.SUBPATTERN:
                yield from repeats(argument[-1])

    found = list(repeats(re._parser.parse(elf._CODE.pattern)))
    assert found and re._constants.MAXREPEAT not in found
    assert max(found) <= 40


# ---------------------------------------------------------------- GPU code


class Zeros(Content):
    """Zeros that take no memory."""

    read = 0
    zeros = bytes(1 << 20)

    def part(self, offset: int, size: int) -> Content:
        return Zeros(size)

    def _read(self, offset: int, size: int) -> bytes:
        assert size <= 1 << 20
        self.read += size
        return self.zeros[:size] if size < len(self.zeros) else self.zeros


def test_256_mb_of_zeros_are_read_once_in_pieces() -> None:
    zeros = Zeros(256 << 20)
    assert calls_of(lambda: fatbin.parse(zeros)) < 10_000
    assert zeros.read == zeros.size


@pytest.mark.parametrize(
    "data",
    [made.fat_binary(made.image() * 101), made.fat_binary(b"") * 101],
    ids=["images", "containers"],
)
def test_a_million_images_are_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GPU_IMAGES", 100)
    with pytest.raises(ArtifactError, match="is more than 100 fat binaries"):
        fatbin.parse(data, where="x")


def test_sizes_that_are_only_said_take_nothing() -> None:
    entry = bytearray(made.image(b"\x28\xb5\x2f\xfd" + b"\xff" * 12, flags=1 << 15))
    struct.pack_into("<Q", entry, 56, (1 << 64) - 1)  # unpacked
    [container] = fatbin.parse(made.fat_binary(bytes(entry)))
    assert container.images[0].size == (1 << 64) - 1
    assert not container.images[0].consistent
    with pytest.raises(ArtifactError, match="at offset 16 runs past the end of its container"):
        struct.pack_into("<Q", entry, 8, (1 << 64) - 1)  # packed, with what fills it up
        fatbin.parse(made.fat_binary(bytes(entry)))


@pytest.mark.parametrize("flag", [1 << 13, 1 << 15], ids=["lz4", "zstd"])
def test_no_more_of_an_image_is_read_than_is_looked_at(flag: int) -> None:
    content = Counted(made.fat_binary(made.image(b"\xff" * (8 << 20), flags=flag)))
    assert calls_of(lambda: fatbin.parse(content)) < 100_000
    assert content.total[0] < 1 << 18


def test_lists_that_are_no_longer_than_they_say() -> None:
    """What lies behind a count that is right may be anything: it is not gone to."""
    section = made.needs([(1, [3])]) + b"\xff" * 64
    found = elf.read(versions(section, 1), "lib.so")
    assert found.required_versions == {"a": ("b",)}


# ---------------------------------------------------------------- what is kept


def test_symbols_are_read_again_and_not_kept() -> None:
    content = Counted(symbols(100))
    found = elf.read(content, "lib.so")
    before = content.total[0]
    assert [len(list(found.undefined)), len(list(found.exported))] == [50, 50]
    assert content.total[0] > before
    room = Room()
    light = found.without_data(room)
    assert light.data.size == 0
    assert list(light.exported) == list(found.exported)


def test_what_all_libraries_keep_together_is_bounded() -> None:
    left = Allowance(limits.LIBRARY_FACTS, "the facts of all libraries")
    weight = elf.read(images(5000), "lib.so").weight
    with pytest.raises(ArtifactError, match="with it, the facts of all libraries take") as caught:
        for _ in range(limits.LIBRARY_FACTS // weight + 1):
            left.spend(weight, "x.whl: lib.so")
    assert caught.value.where == "x.whl: lib.so"


def test_a_room_gives_back_what_was_put_there() -> None:
    room = Room()
    first, second = room.keep([b"abc", b"", b"de"]), room.keep([b"x" * 10])
    assert (first.at(0, 99), first.at(3, 1), first.at(5, 1), first.at(-1, 2)) == (
        b"abcde",
        b"d",
        b"",
        b"",
    )
    assert second.part(2, 3).at(0, 99) == b"xxx"
    assert b"".join(second.pieces(4)) == b"x" * 10
    only = room.only([b"new"])
    assert only.at(0, 99) == b"new"
    assert second.at(0, 99) == b"", "it is gone"


def test_millions_of_findings_are_listed_up_to_a_number() -> None:
    report = ArtifactReport("x.whl", "wheel")
    for number in range(limits.FINDINGS + 100):
        report.add("abi3", f"Py_{number} is not in the stable ABI", member="m.so")
        report.add("abi3", f"Py_{number} is not in the stable ABI", member="m.so")
    report.add("floor", "one more", warning=True)
    assert len(report.findings) == limits.FINDINGS + 2
    assert [(item.check, item.what) for item in report.findings[-2:]] == [
        ("abi3", "more findings, which are not listed"),
        ("floor", "more findings, which are not listed"),
    ]
    assert report.failed == {"abi3"}
