"""What a user of the channel gets: the table of what is typed, the driver, and what is chosen.

The channel has our packages of all rows, conda-forge is its stand-in, the solver is rattler's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import packages
import pytest
import stand_in
from solver import Answer, Case, solve

from flashinfer_build import variants
from flashinfer_build.label import Variant

SPECS = variants.load()
VERSION = "0.1.6"  # of our packages in this channel, whatever version.txt says
MACHINE = {"__glibc": "2.36"}

# The driver's CUDA | what follows `conda install -c <channel> -c conda-forge` | variant | pytorch
#
# Where the solver refuses, the variant is "-", and the last column is among its words.
TABLE = """
# Nothing but the name: the driver decides, the newest CUDA first, then the newest torch.
none | flashinfer                                | cpu_torch213   | 2.13.0 cpu_mkl
13.0 | flashinfer                                | cu130_torch213 | 2.13.0 cuda130
12.9 | flashinfer                                | cu129_torch29  | 2.9.1 cuda129
12.4 | flashinfer                                | cu129_torch29  | 2.9.1 cuda129
11.8 | flashinfer                                | cu118_torch25  | 2.5.1 cuda118
10.2 | flashinfer                                | cpu_torch213   | 2.13.0 cpu_mkl
none | flashinfer pytorch                        | cpu_torch213   | 2.13.0 cpu_mkl
13.0 | flashinfer pytorch                        | cu130_torch213 | 2.13.0 cuda130
# Where the newest of both do not go together, the one that the solver takes up first gets its way.
# rattler takes them in the order that it is given, which need not be the one that was typed.
12.9 | flashinfer pytorch                        | cu129_torch29  | 2.9.1 cuda129
12.9 | pytorch flashinfer                        | cu126_torch213 | 2.13.0 cuda129

# With a torch. conda-forge has no CUDA 11 for torch 2.6 and newer: there the CPU's package fits.
none | flashinfer pytorch=2.10                   | cpu_torch210   | 2.10.0 cpu_mkl
13.0 | flashinfer pytorch=2.10                   | cu130_torch210 | 2.10.0 cuda130
12.9 | flashinfer pytorch=2.10                   | cu128_torch210 | 2.10.0 cuda129
12.4 | flashinfer pytorch=2.10                   | cu128_torch210 | 2.10.0 cuda129
13.0 | flashinfer pytorch=2.9                    | cu129_torch29  | 2.9.1 cuda129
12.9 | flashinfer pytorch=2.9                    | cu129_torch29  | 2.9.1 cuda129
12.4 | flashinfer pytorch=2.9                    | cu129_torch29  | 2.9.1 cuda129
12.4 | flashinfer pytorch=2.5                    | cu124_torch25  | 2.5.1 cuda126
12.9 | flashinfer pytorch=2.13                   | cu126_torch213 | 2.13.0 cuda129
11.8 | flashinfer pytorch=2.10                   | cpu_torch210   | 2.10.0 cpu_mkl

# With a torch of one kind. Before a build, "2.13" would be that version and not 2.13.1.
none | flashinfer pytorch=2.13.*=cpu*            | cpu_torch213   | 2.13.0 cpu_mkl
13.0 | flashinfer pytorch=2.13.*=cpu*            | cpu_torch213   | 2.13.0 cpu_mkl
13.0 | flashinfer pytorch=2.10.*=cuda129*        | cu128_torch210 | 2.10.0 cuda129
13.0 | flashinfer pytorch=2.10.*=cuda130*        | cu130_torch210 | 2.10.0 cuda130
13.0 | flashinfer pytorch=*=cuda130*             | cu130_torch213 | 2.13.0 cuda130
12.9 | flashinfer pytorch=*=cuda130*             | -              | cuda-version
none | flashinfer pytorch=*=cuda*                | -              | __cuda
13.0 | flashinfer pytorch=2.13.*=cuda129*        | cu126_torch213 | 2.13.0 cuda129

# With a CUDA.
13.0 | flashinfer cuda-version=12                | cu129_torch29  | 2.9.1 cuda129
13.0 | flashinfer cuda-version=12 pytorch=2.11   | cu128_torch211 | 2.11.0 cuda129
12.9 | flashinfer=0.1.6=cu126_torch29*           | cu126_torch29  | 2.9.1 cuda129
13.0 | flashinfer=0.1.6=cu126_torch29*           | cu126_torch29  | 2.9.1 cuda129
none | flashinfer=0.1.6=cu126_torch29*           | -              | __cuda
12.9 | flashinfer=0.1.6=cu130*                   | -              | __cuda
13.0 | flashinfer=0.1.6=cpu_*                    | cpu_torch213   | 2.13.0 cpu_mkl
"""

# The same, into an environment that has a pytorch; what was asked for when it was made comes first.
INSTALLED = """
pytorch                 | 13.0 | flashinfer              | cu130_torch213 | 2.13.0 cuda130
pytorch=2.10            | 13.0 | flashinfer              | cu130_torch210 | 2.10.0 cuda130
pytorch=2.10            | 12.9 | flashinfer              | cu128_torch210 | 2.10.0 cuda129
pytorch=2.10            | 13.0 | flashinfer pytorch=2.10 | cu130_torch210 | 2.10.0 cuda130
pytorch=2.10.*=cuda129* | 13.0 | flashinfer              | cu128_torch210 | 2.10.0 cuda129
pytorch=2.10.*=cuda129* | 13.0 | flashinfer pytorch=2.10 | cu128_torch210 | 2.10.0 cuda129
pytorch=2.13.*=cpu*     | 13.0 | flashinfer              | cpu_torch213   | 2.13.0 cpu_mkl
pytorch=2.13            | 12.9 | flashinfer              | cu126_torch213 | 2.13.0 cuda129
"""


@dataclass(frozen=True)
class Choice:
    """One line of the tables."""

    installed: str
    driver: str
    typed: str
    gets: str
    torch: str

    def __str__(self) -> str:
        there = f", beside {self.installed}" if self.installed else ""
        return f"{self.typed}, driver {self.driver}{there}"


def lines(table: str) -> Iterator[Choice]:
    for line in table.splitlines():
        if line and not line.startswith("#"):
            cells = [cell.strip() for cell in line.split("|")]
            yield Choice(*([""] * (5 - len(cells))), *cells)


CHOICES = [*lines(TABLE), *lines(INSTALLED)]


README = Path(__file__).resolve().parents[2] / "README.md"
NEWEST = {"12": "12.9", "13": "13.0"}  # drivers for a CUDA, where it says no more


def readme() -> Iterator[Choice]:
    """The command of README's section on installing with conda, and each row of the table below."""
    section = README.read_text().partition("### Install\n")[2].partition("\n### ")[0]
    [command] = re.findall(r"^conda install .*", section, re.M)
    words = shlex.split(command)
    assert words[:6] == ["conda", "install", "-c", "<channel>", "-c", "conda-forge"]
    plain = shlex.join(words[6:])
    driver = "none"
    for machine, added, gets in re.findall(r"^\| (.*?) \| (.*?)\| `(\w+)` \|$", section, re.M):
        found = re.search(r"CUDA (\d+)(?:, say (\S+))?", machine)
        override = re.search(r"CONDA_OVERRIDE_CUDA=(\S+)", machine)
        if override:
            driver = override[1]
        elif found:
            driver = found[2] or NEWEST[found[1]]
        elif machine != "the same":
            driver = {"no driver": "none", "any driver": "13.0"}[machine]
        typed = shlex.join(shlex.split("".join(re.findall("`(.*?)`", added))))
        yield Choice(
            "", driver, typed if "in its place" in added else f"{plain} {typed}".strip(), gets, ""
        )


OF_README = list(readme())

# The library alone, by driver and what is typed: it asks for no driver, but goes with no older one,
# and with no other CUDA.
LIBRARIES = {
    ("none", "libflashinfer"): "cu132",
    ("13.0", "libflashinfer"): "cu132",
    ("12.4", "libflashinfer"): "cu129",
    ("11.8", "libflashinfer"): "cu118",
    ("10.2", "libflashinfer"): "cpu",
    ("13.0", "libflashinfer cuda-version=12"): "cu129",
    ("none", "libflashinfer cuda-version=13.0"): "cu132",
    ("none", f"libflashinfer={VERSION}=cpu_*"): "cpu",
}

# A machine without a GPU, as a login node or CI, installs for one that has a GPU; and the reverse.
OVERRIDES = {
    "13.0": ("cu130_torch213", "2.13.0 cuda130"),
    "12.9": ("cu129_torch29", "2.9.1 cuda129"),
    "": ("cpu_torch213", "2.13.0 cpu"),
}


@dataclass(frozen=True)
class Channels:
    """conda-forge with our packages, once as first built and once with some built again."""

    first: Sequence[str]
    rebuilt: Sequence[str]


def records(spec: variants.VariantSpec, build_number: int = 0) -> list[stand_in.Record]:
    environ = {
        "FLASHINFER_BUILD_VERSION": VERSION,
        "FLASHINFER_BUILD_NUMBER": str(build_number),
    }
    return [output.record for output in packages.outputs(spec, environ)]


def distinct(found: Iterable[stand_in.Record]) -> Iterable[stand_in.Record]:
    return {(record["name"], record["build"]): record for record in found}.values()


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Channels:
    folder: Path = tmp_path_factory.mktemp("channels")
    theirs = stand_in.write_channel(folder / "conda-forge", stand_in.conda_forge())
    first = [record for spec in SPECS for record in records(spec)]
    again = [
        record
        for spec in variants.select(SPECS, ["cu126_torch29", "cu129_torch28"])
        for record in records(spec, build_number=9)
    ]
    return Channels(
        [stand_in.write_channel(folder / "first", distinct(first)), theirs],
        [stand_in.write_channel(folder / "rebuilt", distinct([*first, *again])), theirs],
    )


@pytest.fixture(scope="module")
def answers(channels: Channels) -> Mapping[str, Answer]:
    cases = {
        str(line): Case(
            channels.first,
            line.typed.split(),
            driver(line.driver),
            installed=line.installed.split(),
        )
        for line in CHOICES
    }
    assert len(cases) == len(CHOICES)
    for line in OF_README:
        cases[f"README: {line}"] = Case(
            channels.first, shlex.split(line.typed), driver(line.driver)
        )
    for cuda, typed in LIBRARIES:
        cases[f"{cuda}, {typed}"] = Case(channels.first, typed.split(), driver(cuda))
    for cuda in OVERRIDES:
        environ = {"CONDA_OVERRIDE_CUDA": cuda}
        cases[f"override, {cuda}"] = Case(channels.first, ["flashinfer"], None, environ)
    for torch in ("2.8", "2.9"):
        wanted = ["flashinfer", f"pytorch={torch}"]
        cases[f"rebuilt, {torch}"] = Case(channels.rebuilt, wanted, driver("12.9"))
    for spec in SPECS:
        own = driver(spec.cuda_nvcc if spec.variant.cuda else "none")
        cases[spec.id] = Case(channels.first, [f"flashinfer={VERSION}={spec.id}*"], own)
    return solve(cases)


def driver(cuda: str) -> dict[str, str]:
    return {**MACHINE, **({} if cuda == "none" else {"__cuda": cuda})}


def variant(answer: Answer, build_number: int = 0) -> str:
    """The id of the variant that was chosen, which everything else chosen has to fit."""
    assert not answer.refusal
    found, number = answer["flashinfer"].split()[1].rsplit("_", 1)
    chosen = Variant.parse(found)
    assert number == str(build_number)
    assert answer["libflashinfer"] == f"{VERSION} {chosen.cuda_tag}_{number}"
    version, build = answer["pytorch"].split()
    assert version.startswith("{}.{}.".format(*chosen.torch))
    if chosen.cuda:
        assert build.startswith(f"cuda{chosen.cuda[0]}")
        assert answer["cuda-version"].startswith(f"{chosen.cuda[0]}.")
    else:
        assert build.startswith("cpu")
    return chosen.id


@pytest.mark.parametrize("line", CHOICES, ids=str)
def test_what_is_chosen(answers: Mapping[str, Answer], line: Choice) -> None:
    answer = answers[str(line)]
    if line.gets == "-":
        assert line.torch in answer.refusal
    else:
        assert variant(answer) == line.gets
        assert answer["pytorch"].startswith(line.torch)


@pytest.mark.parametrize("line", OF_README, ids=str)
def test_what_readme_says_is_chosen(answers: Mapping[str, Answer], line: Choice) -> None:
    assert variant(answers[f"README: {line}"]) == line.gets


def test_readme_has_a_row_for_each_kind_of_choice() -> None:
    assert len(OF_README) >= 9
    assert sum(line.typed == f"flashinfer=={VERSION}" for line in OF_README) == 3


@pytest.mark.parametrize(("cuda", "typed"), LIBRARIES)
def test_the_library_alone(answers: Mapping[str, Answer], cuda: str, typed: str) -> None:
    answer = answers[f"{cuda}, {typed}"]
    assert answer["libflashinfer"] == f"{VERSION} {LIBRARIES[cuda, typed]}_0"
    assert "pytorch" not in answer


@pytest.mark.parametrize("cuda", OVERRIDES)
def test_a_driver_that_is_only_said_to_be_there(answers: Mapping[str, Answer], cuda: str) -> None:
    answer = answers[f"override, {cuda}"]
    gets, torch = OVERRIDES[cuda]
    assert variant(answer) == gets
    assert answer["pytorch"].startswith(torch)


def test_a_rebuild_outranks_its_own_build_and_no_newer_cuda(answers: Mapping[str, Answer]) -> None:
    assert variant(answers["rebuilt, 2.9"]) == "cu129_torch29"
    assert variant(answers["rebuilt, 2.8"], build_number=9) == "cu129_torch28"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_each_variant_can_be_asked_for(
    answers: Mapping[str, Answer], spec: variants.VariantSpec
) -> None:
    """Those of other channels too, where conda-forge has a torch for them."""
    if spec.on_conda_forge or spec.id in ("cu118_torch24", "cu118_torch25"):
        assert variant(answers[spec.id]) == spec.id
    else:
        assert answers[spec.id].refusal
