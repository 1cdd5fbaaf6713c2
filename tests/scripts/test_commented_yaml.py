"""Recipes are read as data and written again as they were, comments and all."""

from __future__ import annotations

from pathlib import Path

import pytest

from conda_bridge.errors import ConfigError
from flashinfer_build.forge import commented_yaml
from flashinfer_build.forge.commented_yaml import Entry

TEXT = """\
# The head.
a: 1

b:
  # Of the list.
  - "x: # no comment"
  - key: 'quoted'
    # Of the second key.
    other:
      - deep

  - >-
    folded
    lines
c: >-
  folded

  twice
"""


def test_what_is_read_is_written_again(root: Path) -> None:
    for text in (TEXT, (root / "recipe/recipe.yaml").read_text()):
        assert commented_yaml.dump(commented_yaml.load(text, "a.yaml")) == text


def test_comments_belong_to_the_entry_below_them() -> None:
    document = commented_yaml.load(TEXT, "a.yaml")
    first, second, third = document["b"].sequence
    assert document["a"].above == ["# The head."] and document["b"].above == [""]
    assert first.above == ["# Of the list."] and second.above == [] and third.above == [""]
    assert second["other"].above == ["# Of the second key."]
    assert third.text == ">-\nfolded\nlines"


def test_an_entry_that_goes_takes_its_comment_with_it() -> None:
    document = commented_yaml.load(TEXT, "a.yaml")
    document["b"].sequence[1].take("other")
    document["b"].sequence.insert(1, Entry("new", ["# Why."]))
    written = commented_yaml.dump(document)
    assert "second key" not in written
    assert "  - \"x: # no comment\"\n  # Why.\n  - new\n  - key: 'quoted'\n\n  - >-\n" in written


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1  # behind\n", 1),
        ("a: 1\nb: [1, 2]\n", 2),
        ("a: 1\nb: {c: d}\n", 2),
        ("a:\n- 1\n", 2),
        ("a:\n    b: 1\n", 2),
        ("a: 1\n# at the end\n", 2),
        ("a: 1\n\n\n", 3),
        ("a: 1", 1),
        ("a: &x 1\nb: *x\n", 2),
    ],
)
def test_a_form_that_would_not_be_kept_is_refused(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match="a form of YAML") as caught:
        commented_yaml.load(text, "a.yaml")
    assert caught.value.where == f"a.yaml:{line}"


@pytest.mark.parametrize("text", ["a: [\n", "- a\n", ""])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not"):
        commented_yaml.load(text, "a.yaml")


def test_an_entry_of_another_kind_is_said() -> None:
    document = commented_yaml.load(TEXT, "a.yaml")
    with pytest.raises(ConfigError, match=r"no 'd'\n  expected: 'd' beside a, b, c"):
        document["d"]
    for asked, kind in (("text", "a plain value"), ("sequence", "a list")):
        with pytest.raises(ConfigError, match=kind):
            getattr(document, asked)
    with pytest.raises(ConfigError, match="a mapping"):
        document["a"]["b"]
