"""A pip specifier allows the versions that the conda constraint allows, or there is none."""

from __future__ import annotations

import itertools

import pytest
import rattler
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from conda_bridge.bridge.dependencies import MatchSpec, pip_specifier
from conda_bridge.errors import ArtifactError

# What a release may be called; pip leaves out pre-releases by a rule of its own.
VERSIONS = [
    *("0.9", "1.0", "1.0.0", "1.0.post1", "1.0.1", "1.1", "1.1.post2", "1.2", "1.2.3", "1.2.10"),
    *("1.9.9", "1.10", "1.11.2", "2.0", "2.0.post1", "2.0.1", "2.1", "3.0", "3.5.1", "10.0"),
]
NUMBERS = ("1", "1.0", "1.1", "1.2", "1.2.3", "1.10", "2", "2.0", "2.1", "3.0")
comparison = st.one_of(
    st.tuples(
        st.sampled_from(("", "=", "==", "!=", ">", ">=", "<", "<=")), st.sampled_from(NUMBERS)
    ),
    st.tuples(st.sampled_from(("", "=", "!=")), st.sampled_from([f"{n}.*" for n in NUMBERS])),
    st.tuples(st.just("<"), st.sampled_from([f"{n}.0a0" for n in ("2", "3", "1.2")])),
    st.tuples(st.just("~="), st.sampled_from([n for n in NUMBERS if "." in n])),
).map("".join)
alternative = st.lists(comparison, min_size=1, max_size=3).map(",".join)
constraint = st.lists(alternative, min_size=1, max_size=3).map("|".join)


def allowed(conda: str) -> tuple[list[str], list[str]]:
    """The versions that both sides allow, conda's first."""
    spec = rattler.VersionSpec(conda)
    pip = SpecifierSet(pip_specifier(conda, "toy"))
    theirs = [version for version in VERSIONS if spec.matches(rattler.Version(version))]
    return theirs, [version for version in VERSIONS if pip.contains(version)]


@given(constraint)
@settings(deadline=None, max_examples=400)
def test_both_sides_allow_the_same(conda: str) -> None:
    try:
        theirs, ours = allowed(conda)
    except ArtifactError as error:
        assert "pip has no form" in str(error)
        assert "|" in conda
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        (">=1.2,<2.0a0", ">=1.2,<2"),
        (">=1.2,<1.3.0a0", ">=1.2,<1.3"),
        ("<2.0.dev0", "<2"),
        (">1.0", ">=1.0,!=1.0"),
        ("1.2.*|1.3.*", ">=1.2,<1.4"),
        ("1.2.*|>=1.3", ">=1.2"),
        ("=1|>=1", ">=1"),
        ("<2|>=3", "!=2.*"),
        ("<1.1|>=1.2,<2", "<2,!=1.1.*"),
        ("~=1.2", "~=1.2"),
        (">=1.2.0.rc1", ">=1.2.0rc1"),
        ("==1.0+cu118", "==1.0+cu118"),
        ("*", ""),
        ("", ""),
    ],
)
def test_how_it_is_said(conda: str, pip: str) -> None:
    assert pip_specifier(conda, "toy") == pip


@pytest.mark.parametrize(
    "conda", ["1.2|2.0", "<1|>=3", ">=1,(<2|>3)", ">=2024a", "1.0.h3", "~=1", "1_2", "!=1.2|1.2"]
)
def test_what_pip_cannot_say(conda: str) -> None:
    with pytest.raises(ArtifactError, match="pip has no form") as caught:
        pip_specifier(conda, "toy", "demo")
    assert 'demo = "<name on PyPI><comparison>"' in str(caught.value)


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("demo 1.0 h_0", ("1.0", "h_0")),
        ("demo ==1.0 h_0", ("1.0", "h_0")),
        ("demo 1.0", None),
        ("demo 1.0.* h_0", None),
        ("demo 1.0 h*", None),
        ("demo >=1.0 h_0", None),
    ],
)
def test_exact_pins(text: str, exact: tuple[str, str] | None) -> None:
    spec = MatchSpec.parse(text, "toy")
    assert spec.exact == exact
    fits = itertools.product(("1.0", "1.0.1"), ("h_0", "hx"))
    assert any(spec.matches(version, build) for version, build in fits)
