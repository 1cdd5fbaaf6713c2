"""Templates: what is written is read back, and what could be read in two ways is refused."""

import itertools
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conda_bridge.errors import ConfigError
from conda_bridge.template import Choices, Form, Template, Word

FIELDS = {
    "cuda": Form("cuda", none="cpu", form="cu{major:2}{minor}"),
    "torch": Form("torch", form="{major:1}.{minor}"),
    "any": Form("any", form="{major}.{minor}"),
    "abi": Choices("abi", choices=("true", "false", "tr")),
    "commit": Word("commit", characters="0123456789abcdef", least=7, most=9),
    "word": Word("word", characters="ab"),
    "number": Form("number"),
}
NUMBERS = st.integers(0, 10**17).map(str)
VALUES = st.fixed_dictionaries(
    {
        "cuda": st.none() | st.tuples(st.integers(10, 99), NUMBERS).map("{0[0]}.{0[1]}".format),
        "torch": st.tuples(st.integers(1, 9), NUMBERS).map("{0[0]}.{0[1]}".format),
        "any": st.tuples(NUMBERS, NUMBERS).map(".".join),
        "abi": st.sampled_from(["true", "false", "tr"]),
        "commit": st.none() | st.text("0123456789abcdef", min_size=7, max_size=9),
        "word": st.text("ab", min_size=1, max_size=5),
        "number": NUMBERS,
    }
)
PIECES = st.sampled_from(
    [*(f"{{{name}}}" for name in FIELDS), "{torch:flat}", "{any:flat}", "_", ".", "x", "1", "a"]
    + ["[_g{commit}]", "[{commit}]", "[.{word}x]"]
)


@pytest.mark.parametrize(
    ("text", "values", "written"),
    [
        ("{cuda}_torch{torch:flat}_{number}", ("12.4", "2.10"), "cu124_torch210_7"),
        ("{cuda}_torch{torch:flat}_{number}", (None, "2.4"), "cpu_torch24_7"),
        ("{cuda}torch{torch}", ("13.10", "2.0"), "cu1310torch2.0"),
        ("{cuda}torch{torch}cxx11abi{abi}", ("12.8", "2.8"), "cu128torch2.8cxx11abitrue"),
    ],
)
def test_values_are_written_and_read(text, values, written):
    template = Template(text, FIELDS, "label")
    given = {"cuda": values[0], "torch": values[1], "abi": "true", "number": "7"}
    given = {name: given[name] for name in template.names}
    assert template.format(given) == written
    assert template.parse(written) == given


def test_flat_leaves_out_dots_and_dashes_of_the_form_too():
    fields = {"sm": Form("sm", form="sm-{major:1}.{minor}_x")}
    for text, written in (("{sm}", "sm-9.0_x"), ("{sm:flat}", "sm90x")):
        template = Template(text, fields, "label")
        assert template.format({"sm": "9.0"}) == written
        assert template.parse(written) == {"sm": "9.0"}


@settings(deadline=None)
@given(pieces=st.lists(PIECES, min_size=1, max_size=5), values=VALUES)
def test_every_template_that_is_accepted_reads_what_it_writes(pieces, values):
    text = "".join(pieces)
    assume(values["commit"] or "{commit}" not in pieces)
    try:
        template = Template(text, FIELDS, "label")
    except ConfigError as error:
        assert "in two ways" in str(error) or "twice" in str(error)
        return
    given = {name: values[name] for name in template.names}
    assert template.parse(template.format(given)) == given
    template.parse(template.example)


def test_examples_are_what_a_person_would_write():
    template = Template("{cuda}_torch{torch:flat}[_g{commit}]_{abi}_{word}_{number}", FIELDS, "x")
    assert template.example == "cu122_torch24_true_b_2"
    wide = Form("wide", form="v{a:4}.{b:3}")
    assert wide.example() == "v1200.120"


@settings(deadline=None, max_examples=50)
@given(pieces=st.lists(PIECES, min_size=1, max_size=4, unique=True))
def test_the_text_that_is_named_can_be_read_in_two_ways(pieces):
    text = "".join(pieces)
    try:
        Template(text, FIELDS, "label")
    except ConfigError as error:
        found = re.search(r"in two ways: '(.*)'", error.what)
        if found:
            assert _readings(text, found[1]) > 1


def _readings(template: str, text: str) -> int:
    """How many ways there are to cut `text` into the template's pieces, by trying all of them."""
    pieces = re.findall(r"\[[^]]*\]|\{[^}]*\}|[^\[{]", template)
    choices = []
    for piece in pieces:
        if piece.startswith("["):
            choices.append([[], re.findall(r"\{[^}]*\}|[^{]", piece[1:-1])])
        else:
            choices.append([[piece]])
    return sum(
        _cuts(list(itertools.chain(*chosen)), text) for chosen in itertools.product(*choices)
    )


def _cuts(pieces: list[str], text: str) -> int:
    if not pieces:
        return not text
    first, rest = pieces[0], pieces[1:]
    return sum(
        _cuts(rest, text[end:])
        * (_is_one(first, text[:end]) if first.startswith("{") else first == text[:end])
        for end in range(len(text) + 1)
    )


def _is_one(reference: str, text: str) -> int:
    name, _, style = reference[1:-1].partition(":")
    if name == "any" and style:  # where one number ends and the next begins
        return sum(
            bool(re.fullmatch(r"(0|[1-9]\d*),(0|[1-9]\d*)", f"{text[:cut]},{text[cut:]}"))
            for cut in range(1, len(text))
        )
    try:
        FIELDS[name].read(text, style)
    except ValueError:
        return 0
    return 1


@pytest.mark.parametrize(
    ("text", "witness"),
    [
        ("{any:flat}_{number}", "in two ways"),  # 210 is 2.10 and 21.0
        ("{cuda}{number}", "in two ways"),
        ("{word}[a{commit}]", "in two ways"),
        ("{cuda}{cuda}", "twice"),
        ("{nothing}", "there is no field"),
        ("{torch:round}", "no style"),
        ("[{cuda}]", "always there"),
        ("[x]", "no field in the brackets"),
        ("{torch", "brace"),
        ("a]", "bracket"),
        ("{cuda}" + "9" * 1000, "places for a character"),
    ],
)
def test_what_cannot_be_a_template_is_refused_with_its_place(text, witness):
    with pytest.raises(ConfigError, match=witness) as caught:
        Template(text, FIELDS, "tool.conda-bridge.label.build")
    assert "label.build" in caught.value.where or "torch" in caught.value.what


@pytest.mark.parametrize("form", ["cu{major:0}", "cu{major:x}", "cu{major", "{}"])
def test_a_form_that_is_none_is_refused(form):
    with pytest.raises(ConfigError):
        Template("{f}", {"f": Form("f", form=form)}, "label")


@pytest.mark.parametrize(
    "text",
    ["cu124_torch24", "cu124_torch24_01", "cu0124_torch24_0", "cu12_torch24_0", "CPU_torch24_0"]
    + ["cu124_torch204_0x", "cu124_torch24_g12345_0", "cu124_torch24_0 ", "cu12४_torch24_0", ""],
)
def test_other_texts_are_not_read(text):
    template = Template("{cuda}_torch{torch:flat}[_g{commit}]_{number}", FIELDS, "label")
    with pytest.raises(ValueError, match="not of the form"):
        template.parse(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [("torch", None), ("torch", "2"), ("torch", "12.0"), ("torch", "2.04"), ("cuda", "9.0")]
    + [("abi", "maybe"), ("commit", "123"), ("number", "-1"), ("number", "1" * 19)],
)
def test_values_that_cannot_be_written_are_refused(name, value):
    with pytest.raises(ValueError, match=r".+"):
        Template(f"{{{name}}}", FIELDS, "label").format({name: value})


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [("x.{commit}", True), ("{commit}", True), ("x{commit}", False), ("x.g{commit}", False)]
    + [("{any}", False), ("00.x", True), ("0.x", False), ("{torch}0", True)],
)
def test_numeric_parts_with_leading_zeros_are_found(text, rewritten):
    template = Template(text, FIELDS, "label")
    found = template.rewritten_by_pep440()
    assert (found is not None) == rewritten
    if found:
        template.parse(found)
        assert any(part.isdigit() and part[0] == "0" != part for part in found.split("."))
