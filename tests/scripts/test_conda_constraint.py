"""A version constraint in conda's words accepts what pip accepts; rattler says what conda does."""

from itertools import product

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version as PipVersion
from rattler import MatchSpec, Version, VersionSpec

from conda_bridge.bridge.conda_constraint import constraint
from conda_bridge.errors import ArtifactError
from conda_bridge.label import conda_spelling

RELEASES = ("0.0.1", "0.9", "1", "1.0", "1.0.0", "1.0.1", "1.1", "2.0", "2.8.3", "1!1.0")
SUFFIXES = ("", "a1", "rc2", "rc1.dev1", ".dev0", ".dev3", ".post1", ".post1.dev2")
VERSIONS = [release + suffix for release, suffix in product(RELEASES, SUFFIXES)]


def _numbers(text: str) -> int:
    return len(PipVersion(text.removesuffix(".*")).release)


def _comparable(bound: str, version: str) -> bool:
    """conda orders post-releases by how many numbers stand before them."""
    posts = [text for text in (bound, version) if ".post" in text]
    return not posts or _numbers(bound) == _numbers(version)


@pytest.mark.parametrize("operator", ["<", "<=", ">", ">=", "==", "!=", "~=", "==*", "!=*", "==="])
def test_pip_accepts_what_conda_accepts(operator: str) -> None:
    bounds = VERSIONS
    if operator.endswith("*"):
        bounds = [f"{release}.*" for release in RELEASES]
    elif operator == "~=":
        bounds = [version for version in VERSIONS if _numbers(version) > 1]
    compared = 0
    for bound in bounds:
        asked = SpecifierSet(operator.rstrip("*") + bound)
        spec = VersionSpec(constraint(asked))
        for version in VERSIONS:
            if not _comparable(bound, version):
                continue
            wanted = asked.contains(version, prereleases=True)
            if operator == "===":  # conda has no comparison of texts
                wanted = PipVersion(version) == PipVersion(bound)
            # conda-forge's spelling and ours.
            for spelled in {version, conda_spelling(version)}:
                found = spec.matches(Version(spelled))
                assert found == wanted, (str(asked), str(spec), spelled)
                compared += 1
    assert compared > 500


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("", ""),
        (">=1.2", ">=1.2"),
        ("<2", "<2dev0"),
        ("==2.8.*", "2.8.*"),
        ("~=1.4.2", ">=1.4.2,<1.5dev0"),
        (">=1.21,!=1.24.0,<3", ">=1.21,<3dev0,!=1.24.0"),
        ("==2.8.0+cu128", "==2.8.0"),
        ("!=2.8.0+cu128", ""),
        (">=2.0rc1", ">=2rc1,<2.0dev0|>=2.0rc1,<2.0.0dev0|>=2.0.0rc1,<2.0.0.0dev0|>=2.0.0.0rc1"),
    ],
)
def test_as_it_is_written(asked: str, said: str) -> None:
    assert constraint(SpecifierSet(asked)) == said
    MatchSpec(f"toy {said}".strip())


def test_several_at_once_accept_what_pip_accepts() -> None:
    asked = SpecifierSet(">=1.0,!=1.0.*,!=2.0,<=2.8.3,>0.9")
    spec = VersionSpec(constraint(asked))
    for version in VERSIONS:
        if ".post" not in version:
            assert spec.matches(Version(version)) == asked.contains(version, prereleases=True)


def test_what_conda_cannot_be_told_is_refused() -> None:
    with pytest.raises(ArtifactError, match="not a version that conda reads"):
        constraint(SpecifierSet("===spam"))
    for long in (
        "9" * 19,
        f"1.{'9' * 30}",
        f"1.0rc{'9' * 20}",
        f"1.post{'9' * 20}",
        f"{'9' * 19}!1",
    ):
        for specifier in (f"=={long}", f">={long}", f"<{long}", f"!={long}"):
            with pytest.raises(ArtifactError, match="not a version that conda reads"):
                constraint(SpecifierSet(specifier))
    many = ",".join(f"!=1.{n}.0.*" for n in range(8))
    with pytest.raises(ArtifactError, match="more than conda can be told"):
        constraint(SpecifierSet(many))
