"""Names, versions and dependencies: what one side says means the same on the other."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace

import factories
import rattler
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from conda_bridge.bridge import conda_requirements, dependencies
from conda_bridge.bridge.conda_constraint import constraint
from conda_bridge.bridge.conda_target import target as conda_target
from conda_bridge.errors import ArtifactError, BridgeError, LabelError
from conda_bridge.formats import member_names
from conda_bridge.formats.cuda_archs import gencode_flags
from conda_bridge.formats.fatbin import expected_codes
from conda_bridge.label import Scheme, conda_spelling, public_version, split_conda_file
from conda_bridge.project import Project
from conda_bridge.publish.intake import WheelName, package_label
from conda_bridge.verify import requirements
from conda_bridge.verify.findings import ArtifactReport
from flashinfer_build import label as flashinfer

from ..mutators import text
from ..target import Target
from . import _names

__all__ = ["TARGETS"]


def _text(data: bytes) -> str:
    """As an argument of a program: bytes that are no UTF-8 are lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _each(*calls: Callable[[], object]) -> None:
    """Makes every call; what all of them refuse is refused."""
    refusals = []
    for call in calls:
        try:
            call()
        except BridgeError as error:
            refusals.append(error)
    if len(refusals) == len(calls):
        raise refusals[-1]


# ------------------------------------------------------------ labels


def read_label(data: bytes) -> None:
    """Every reader of labels: what one reads, it spells as it was."""
    said = _text(data)

    def conda_file() -> None:
        found = flashinfer.Label.parse_conda_file(said)
        assert found.conda_stem + split_conda_file(said)[1] == said
        assert flashinfer.Label.parse_wheel_version(found.wheel_version).variant == found.variant
        assert flashinfer.Label.parse_wheel_file(found.wheel_file) == found

    def library_file() -> None:
        found = flashinfer.LibraryLabel.parse_conda_file(said)
        assert found.conda_stem + split_conda_file(said)[1] == said

    def wheel_file() -> None:
        found = flashinfer.Label.parse_wheel_file(said)
        assert found.wheel_version in said
        assert flashinfer.Label.parse_conda_file(found.conda_file) == found

    def version() -> None:
        assert flashinfer.Label.parse_wheel_version(said).wheel_version == said

    def variant() -> None:
        assert flashinfer.Variant.parse(said).id == said

    def checked() -> None:
        flashinfer.check_public_version(said)
        assert public_version(conda_spelling(said)) == said

    _each(conda_file, library_file, wheel_file, version, variant, checked)


def read_file_name(data: bytes) -> None:
    """File names of anybody's artifacts, and of the project's."""
    said = _text(data)
    projects = (Project(), factories.FLASHINFER)
    _each(
        *(lambda project=project: WheelName.of(said, project) for project in projects),
        *(lambda project=project: package_label(said, project) for project in projects),
        lambda: member_names.check_name(said, "input"),
        lambda: member_names.check_link("a/b/c", said, "input"),
        lambda: gencode_flags(said),
        lambda: expected_codes(said),
    )


_FIELDS = {
    "a": {"form": "cu{major:2}{minor}", "none": "cpu"},
    "b": {"form": "{major:1}.{minor}"},
    "c": {"choices": ["x", "y", "xy"]},
    "d": {"characters": "ab0", "least": 2, "most": 3},
    "e": {"characters": "0123456789", "least": 1},
}


def read_template(data: bytes) -> None:
    """A template and a text: no template that is taken reads a text that it would not write."""
    written, _, spelled = _text(data).partition("\n")
    scheme = Scheme({"fields": _FIELDS, "build": written, "local": _local(written)})
    template = scheme.build
    assert template is not None
    for one in (spelled, template.example):
        try:
            values = template.parse(one)
        except ValueError:
            continue
        assert template.format(values) == one
    with contextlib.suppress(LabelError):
        made = scheme.parse_build(spelled, "1.0")
        assert scheme.conda_build(made) == spelled
        assert scheme.parse_wheel_version(scheme.wheel_version(made), made.number) == made


def _local(build: str) -> str:
    """The local version that has the same fields as a build string."""
    names = dict.fromkeys(re.findall(r"\{([a-e]|commit)(?::[a-z0-9]+)?\}", build))
    return ".".join(f"x{{{name}}}" for name in names) or "x"


# ------------------------------------------------------------ dependencies


@cache
def _candidates(*said: str) -> tuple[str, ...]:
    """Versions at, just above and just below each number that is said."""
    found: dict[str, None] = {"0": None, "1": None}
    for release in re.findall(r"\d{1,9}(?:\.\d{1,9}){0,3}", " ".join(said), re.ASCII)[:12]:
        numbers = [int(part) for part in release.split(".")]
        for step in (-1, 0, 1):
            near = [*numbers[:-1], max(numbers[-1] + step, 0)]
            for made in (near, [*near, 0], [*near, 1]):
                found[".".join(map(str, made))] = None
    return tuple(found)


def _check_same(conda: str, pip: SpecifierSet, endings: Sequence[str] = ("",)) -> None:
    """Whether conda's constraint and pip's accept the same versions.

    Args:
        conda: the one.
        pip: the other.
        endings: of the versions that are tried, behind a release.
    """
    spec = rattler.VersionSpec(conda or "*")
    versions = [Version(one.version.removesuffix(".*")) for one in pip]
    posts = {len(one.release) for one in versions if one.is_postrelease}
    for release in _candidates(conda, str(pip)):
        # To conda 1.post1 is newer than 1.0.5; and of pre-releases, every place is said that has
        # up to three numbers.
        if posts and release.count(".") + 1 not in posts:
            continue
        for ending in endings if release.count(".") <= 2 else ("",):
            version = release + ending
            by_conda = spec.matches(rattler.Version(conda_spelling(version)))
            by_pip = pip.contains(version, prereleases=True)
            assert by_conda == by_pip, f"{conda!r} and {str(pip)!r} differ on {version}"


_BEFORE = ("", "rc1", "a0", ".dev1")  # pip's specifiers are said to conda to the last pre-release


_MAPPING: dict[str, str | None] = {"a": "a", "_x": None}


def read_spec(data: bytes) -> None:
    """A conda dependency, and the requirement that says the same."""
    spec = dependencies.MatchSpec.parse(_text(data), "input")
    _ = spec.exact
    spec.matches("1.0", "h_0")
    dependencies.may_be_library(spec, Project(), _MAPPING)
    made = dependencies.translate(spec, "input", mapping=_MAPPING).requirement
    if made is not None:
        _check_same(spec.version, Requirement(made).specifier)


def read_dependencies(data: bytes) -> None:
    """``depends`` as verify reads it; what cannot be read is a finding."""
    package = SimpleNamespace(index={"depends": _text(data).split("\n")})
    report = ArtifactReport("input", "conda")
    found = requirements.specs(report, package, "depends")  # type: ignore[arg-type]
    for specs in found.values():
        requirements.shown(specs)
        requirements.accepts(specs, "1.0", "2.13.0")
        requirements.is_exact(specs[0], "1.0", "h_0")
        requirements.holds_only(specs, (2, 13))


def read_requirement(data: bytes) -> None:
    """Requirements of a wheel, and the dependencies that say the same."""
    texts = _text(data).split("\n")
    where = conda_target(("py3", "none", "any"), ">=3.8", "input")
    found = conda_requirements.read_requirements(texts, where, Project(), {}, "input")
    assert len(found.depends) <= len(texts)
    for dependency in found.depends:
        dependencies.MatchSpec.parse(dependency, "made of it")
    if len(texts) == 1 and found.depends:
        asked = Requirement(texts[0]).specifier
        if not any(one.operator == "===" for one in asked):
            conda = found.depends[0].partition(" ")[2]
            _check_same(conda, _without_local(asked), _BEFORE)


def _without_local(specifiers: SpecifierSet) -> SpecifierSet:
    """A local version tells pip's builds apart, and is left out on purpose."""
    kept = []
    for one in specifiers:
        public, plus, _ = one.version.partition("+")
        if plus and one.operator == "!=":
            continue
        kept.append(f"{one.operator}{public}")
    return SpecifierSet(",".join(kept))


def read_specifiers(data: bytes) -> None:
    """Version specifiers, as of Requires-Python and of a requirement."""
    said = _text(data)
    try:
        specifiers = SpecifierSet(said)
    except InvalidSpecifier as error:
        raise ArtifactError("none") from error
    if any(one.operator == "===" for one in specifiers):
        raise ArtifactError("of no order")
    conda = constraint(specifiers, "input")
    _check_same(conda, _without_local(specifiers), _BEFORE)
    requirements.pip_holds_only(specifiers, (2, 13))
    with contextlib.suppress(ArtifactError):  # of no Python that there is
        conda_target(("cp38", "abi3", "linux_x86_64"), said, "input")


def read_marker(data: bytes) -> None:
    """A marker, for every kind of target."""
    said = _text(data)
    for tags in (("py3", "none", "any"), ("cp312", "cp312", "manylinux_2_28_x86_64")):
        where = conda_target(tags, "", "input")
        conda_requirements.read_requirements([f"numpy; {said}"], where, Project(), {}, "input")


_BRIDGE = "conda_bridge.bridge."
TARGETS = (
    Target(
        "label",
        read_label,
        (
            "flashinfer_build.label:Variant LibraryLabel check_public_version _two _variant _parsed"
            " _of_wheel_version _conda_parts _public_of_conda _must_spell",
        ),
        lambda: [
            *(
                b"flashinfer-0.1.6-cu130_torch213_0.conda",
                b"cu130_torch213",
                b"0.1.6rc1",
                b"0.1.6",
            ),
            *(b"libflashinfer-0.1.6.rc1-cu130_g1a2b3c4_1.tar.bz2", b"0.1.6"),
            *(b"flashinfer-0.1.6+cu130torch2.13-cp38-abi3-linux_x86_64.whl", b"0.1.6+cputorch2.4"),
            b"flashinfer-0.1.6.dev20261122+cputorch2.4.g1a2b3c4-2-cp38-abi3-linux_x86_64.whl",
        ],
        _names.LABEL,
        ("flashinfer-", ".conda", "cu130", "torch2.13", ".whl", "_g", "rc1", ".dev", "+cpu"),
        1 << 12,
    ),
    Target(
        "file-name",
        read_file_name,
        (
            "conda_bridge.publish.intake:WheelName package_label _package_parts _check_canonical",
            "conda_bridge.formats.member_names:check_name check_link _fault",
            "conda_bridge.formats.cuda_archs",
        ),
        lambda: [
            *(b"toy-1.0-py3-none-any.whl", b"toy-1.0-1-py3-none-any.whl", b"a/b/c", b"../x"),
            *(b"flashinfer-0.1.6+cputorch2.4-cp38-abi3-linux_x86_64.whl", b"toy-1.0-h_0.conda"),
            *(b"flashinfer-0.1.6-cpu_torch24_0.conda", b"8.0+PTX;9.0a"),
        ],
        _names.NAME,
        ("-py3-none-any.whl", ".conda", "../", "\\", "C:", "+PTX", "9.0a"),
        1 << 12,
    ),
    Target(
        "template",
        read_template,
        ("conda_bridge.template", "conda_bridge.label:Scheme _field"),
        lambda: [
            b"{a}_torch{b:flat}[_g{commit}]_{number}\ncu130_torch213_0",
            b"{c}_{number}\nxy_1",
            b"{d}[_{commit}]_{number}\nab_1",
        ],
        text.lines(_names.TEMPLATE),
        ("{a}", "[", "]", "{number}", ":flat}", "{commit}"),
        1 << 10,
    ),
    Target(
        "conda-spec",
        read_spec,
        (_BRIDGE + "dependencies", _BRIDGE + "names:find_pip _key"),
        lambda: [
            *(b"a", b"numpy >=1.2,<2.0a0", b"pytorch 2.13.* *cuda*", b"a 1.2.*|1.3.*"),
            *(b"a=1.2", b"a[version='>=1']", b"_x >=1", b"a <2|>=3", b"a !=1.5,>1"),
        ],
        _names.SPEC,
        (">=", "[version=", ".*", "|", ",", "=", " h_0", "::", "(", ")"),
        1 << 11,
    ),
    Target(
        "depends",
        read_dependencies,
        ("conda_bridge.verify.requirements",),
        lambda: [b"python >=3.8\npytorch 2.13.* *cuda*\nlibflashinfer 0.1.6 cu130_0", b"a 1|2"],
        text.lines(_names.SPEC),
        (">=", "[version=", ".*", "|", ",", "=", " h_0", "::", "(", ")"),
        1 << 11,
    ),
    Target(
        "requirement",
        read_requirement,
        (
            _BRIDGE + "conda_requirements",
            _BRIDGE + "conda_constraint",
            _BRIDGE + "names:find_conda",
        ),
        lambda: [
            *(b"numpy>=1.2", b"torch==2.13.*; python_version>='3.9'", b"a[x]~=1.4.2,!=1.4.5"),
            *(b"a<2; extra=='x'\nb>1", b"torch==2.4.0+cpu", b"a==1.*; sys_platform=='win32'"),
        ],
        text.lines(_names.REQUIREMENT),
        (">=", "~=", "==", ".*", "; ", "extra", "python_version", " @ ", "+cpu", "rc1"),
        1 << 11,
    ),
    Target(
        "specifiers",
        read_specifiers,
        (_BRIDGE + "conda_constraint", _BRIDGE + "conda_target"),
        lambda: [b">=3.8", b"~=1.4.2", b"==2.8.*,!=2.8.1", b"<2,>1.0", b"==1.0rc1", b">1.0.post1"],
        _names.SPECIFIERS,
        (">=", "~=", "==", ".*", "!=", "rc1", ".post1", ".dev0", "1!", "==="),
        1 << 11,
    ),
    Target(
        "marker",
        read_marker,
        (_BRIDGE + "conda_requirements",),
        lambda: [
            b"python_version >= '3.8' and (sys_platform == 'linux' or os_name != 'nt')",
            b"extra == 'x' and platform_machine in 'x86_64 aarch64'",
        ],
        _names.MARKER,
        (" and ", " or ", "not in", "(", ")", "extra", "'"),
        1 << 11,
    ),
)
