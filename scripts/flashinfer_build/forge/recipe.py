"""Turns ``recipe/recipe.yaml`` into the recipe that conda-forge builds.

The recipe is changed as data, with its comments, where conda-forge does a thing in its own way; all
else is passed on. What is to be changed and is not there stops the export, so that the two recipes
cannot drift apart unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import ConfigError

from ..label import LIBRARY_NAME, NAME
from . import commented_yaml
from .commented_yaml import Entry

__all__ = ["Facts", "made_from"]

# As conda-smithy wants a recipe with several outputs ordered.
_SECTIONS = (
    "schema_version",
    "context",
    "recipe",
    "source",
    "build",
    "outputs",
    "about",
    "extra",
)
_HEAD = [
    "# Made by scripts/staged_recipe.py of the project from its recipe/recipe.yaml, for the",
    "# compilers and pins of conda-forge. The packages are those that the project builds itself.",
]
_RANK = [
    "# What pytorch adds 200 for: of one version a solver takes the highest build number that",
    "# fits, so CUDA has to be above the CPU. Here a newer CUDA is above an older one, too: build",
    "# 0 for CUDA 12.9 has the number 1209000.",
]
_SUFFIX = ["# In a build string itself, build_number would be build.number."]
_ONE_BUILD = (
    "# One build serves every Python, but the free-threaded ones, which have no stable ABI."
)
_DOCUMENTATION = "https://docs.flashinfer.ai"
_EXTENSION = "flashinfer/_C.abi3.so"

# What the project's recipe has for nightlies, for the files of a checkout, and to stop where it is
# built without one of the project's variants.
_DROPPED_CONTEXT = (
    *("public_version", "commit", "no_variant", "given", "row_error"),
    *("number_error", "counted"),
)
_DROPPED_VARIABLE = "FLASHINFER_BUILD_COMMIT"
_DROPPED_VARIANT_KEY = "flashinfer_variant"

# By requirement of recipe.yaml: what conda-forge has in its place.
_REQUIREMENTS: Mapping[str, Sequence[str]] = {
    # conda-forge's pins choose a g++ that nvcc takes.
    "gxx_linux-64 <${{ gxx_below }}": (),
    "cuda-nvcc ${{ cuda_nvcc }}.*": ('${{ compiler("cuda") }}',),
    # Held to the release by the cuda-version beside it.
    "cuda-cudart-dev ${{ cuda_nvcc }}.*": ("cuda-cudart-dev",),
    # The bare name gets conda-forge's pin; the other chooses the build.
    "pytorch ${{ pytorch }}.*": (
        "pytorch",
        'pytorch * *${{ "cpu" if cuda_nvcc == "None" else "cuda" }}*',
    ),
}
# By expression of recipe.yaml: what it is at conda-forge. All of it, in this order.
_EXPRESSIONS: Mapping[str, str] = {
    # A pin of conda-forge may have more than two numbers.
    'cuda_nvcc | replace(".", "")': "cuda_compiler_version | version_to_buildstring",
    'pytorch | replace(".", "")': "pytorch | version_to_buildstring",
    # conda-smithy lints without a variant, and stops where it cannot split.
    "cuda_nvcc | split": 'cuda_compiler_version | default("None") | split',
    "cuda_nvcc": "cuda_compiler_version",
    "public_version": "version",
}
# The project's own keys and ways, of which nothing may be left.
_FOREIGN = re.compile(r"load_from_file|env\.get|\.\./|cuda_nvcc|gxx_below|flashinfer_variant")


@dataclass(frozen=True)
class Facts:
    """What recipe.yaml does not say.

    Attributes:
        version: of the release.
        url: where its archive is.
        sha256: the archive's, in hexadecimal.
        arch_list: the GPU architectures, in torch's notation.
        maintainers: names on GitHub.
    """

    version: str
    url: str
    sha256: str
    arch_list: str
    maintainers: Sequence[str]


def made_from(path: Path, facts: Facts) -> str:
    """The text of conda-forge's recipe.

    Args:
        path: the project's ``recipe.yaml``.
        facts: what it does not say.

    Raises:
        ConfigError: the recipe is not what this module knows; the message has what is missing.
    """
    document = commented_yaml.load(path.read_text(), str(path))
    try:
        _change(document, facts)
        _check(document)
    except ConfigError as error:
        raise ConfigError(
            error.what,
            where=str(path),
            expected=error.expected,
            fix=f"change {Path(__file__).name} with the recipe: it no longer knows it",
        ) from None
    return commented_yaml.dump(document)


def _change(document: Entry, facts: Facts) -> None:
    sections = document.mapping
    _context(document["context"], facts)
    url = facts.url.replace(facts.version, "${{ version }}")
    sections["source"] = Entry({"url": Entry(url), "sha256": Entry(facts.sha256)})
    _build(document["build"])
    outputs = document["outputs"].sequence
    named = Entry({output["package"]["name"].text: output for output in outputs})
    library, binding = named[LIBRARY_NAME], named[NAME]
    _library(library)
    _binding(binding)
    for output in (library, binding):
        _variables(output["build"]["script"]["env"])
    _requirements([library["requirements"], binding["requirements"]])
    about = document["about"].mapping
    about["documentation"] = Entry(_DOCUMENTATION)
    for key in ("summary", "description"):
        about[key] = binding["about"][key]
    sections["extra"] = Entry(
        {
            "feedstock-name": Entry(NAME),
            "recipe-maintainers": Entry([Entry(name) for name in facts.maintainers]),
        }
    )
    _expressions(document)
    if set(sections) != set(_SECTIONS):
        raise ConfigError(f"has the sections {', '.join(sections)}", expected=", ".join(_SECTIONS))
    document.value = {name: sections[name] for name in _SECTIONS}
    for name in _SECTIONS:
        document[name].above = _HEAD if name == _SECTIONS[0] else [""]


def _context(context: Entry, facts: Facts) -> None:
    for name in (*_DROPPED_CONTEXT, "version", "build_number"):
        context.take(name)
    context["suffix"].value = "_${{ build_number }}"
    context["suffix"].above = _SUFFIX
    context["rank"].above = _RANK
    architectures = f'${{{{ "None" if cuda_nvcc == "None" else "{facts.arch_list}" }}}}'
    context.value = {
        "version": Entry(f'"{facts.version}"'),
        "build_number": Entry("0"),
        **context.mapping,
        "cuda_arch_list": Entry(architectures),
    }


def _build(build: Entry) -> None:
    skipped = [
        Entry("not (linux and x86_64)"),
        Entry("not (is_abi3 and is_python_min)", [_ONE_BUILD]),
    ]
    build.value = {"number": build.take("number"), "skip": Entry(skipped), **build.mapping}


def _library(output: Entry) -> None:
    keys = output["build"]["variant"]["ignore_keys"].sequence
    dropped = [key for key in keys if key.text == _DROPPED_VARIANT_KEY]
    if not dropped:
        raise ConfigError(f"no output ignores the key {_DROPPED_VARIANT_KEY!r}")
    keys.remove(dropped[0])


def _binding(output: Entry) -> None:
    """Conda-forge's model of a package for every Python: built against python-abi3, and audited."""
    output["requirements"]["host"].sequence.insert(0, Entry("python-abi3"))
    tests = output["tests"].sequence
    imports = [test["python"] for test in tests if "python" in test.mapping]
    if len(imports) != 1:
        raise ConfigError(f"{len(imports)} tests of {NAME} import it", expected="one")
    versions = [Entry("${{ python_min }}.*"), Entry('"*"')]
    imports[0].mapping["python_version"] = Entry(versions)
    audit = f"abi3audit $SP_DIR/{_EXTENSION} -s -v --assume-minimum-abi3 ${{{{ python_min }}}}"
    tests.append(
        Entry(
            {
                "script": Entry([Entry(audit)]),
                "requirements": Entry({"run": Entry([Entry("abi3audit")])}),
            }
        )
    )


def _variables(environ: Entry) -> None:
    """Leaves out what a person sets for one build: conda-forge's machines set nothing of it."""
    environ.take(_DROPPED_VARIABLE)
    expected = environ.mapping.get("FLASHINFER_EXPECT_VARIANT")
    if expected:
        expected.value = "${{ variant }}"
    for name, entry in list(environ.mapping.items()):
        if "env.get(" in entry.text:
            del environ.mapping[name]


def _requirements(sections: Sequence[Entry]) -> None:
    unseen = set(_REQUIREMENTS)

    def replaced(items: Sequence[Entry]) -> Iterator[Entry]:
        for item in items:
            if isinstance(item.value, str) and item.value in _REQUIREMENTS:
                unseen.discard(item.value)
                for index, text in enumerate(_REQUIREMENTS[item.value]):
                    yield Entry(text, [] if index else item.above)
            else:
                yield item

    for section in sections:
        for entry in section.walk():
            if isinstance(entry.value, list):
                entry.value = list(replaced(entry.value))
    if unseen:
        raise ConfigError(f"nothing requires {' or '.join(sorted(unseen))}")


def _expressions(document: Entry) -> None:
    unseen = set(_EXPRESSIONS)

    def replaced(text: str) -> str:
        for old, new in _EXPRESSIONS.items():
            if old in text:
                unseen.discard(old)
                text = text.replace(old, new)
        return text

    for entry in document.walk():
        if isinstance(entry.value, str):
            entry.value = replaced(entry.value)
    if unseen:
        raise ConfigError(f"there is no {' and no '.join(sorted(unseen))}")


def _check(document: Entry) -> None:
    for entry in document.walk():
        if isinstance(entry.value, str) and (found := _FOREIGN.search(entry.value)):
            raise ConfigError(f"{found[0]!r} would be left in {entry.value!r}")
