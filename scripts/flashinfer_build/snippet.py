"""What a project of somebody else's writes down to depend on one build: files for four tools.

Each names the build in full and says where it is, so that a package of the same name and a higher
version, on a public index or in another channel, is never taken in its place. The label module
spells the names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.commands import uv_tables
from conda_bridge.errors import ConfigError, ConflictError, LabelError
from conda_bridge.system import atomic

from .label import CONDA_ENDINGS, LIBRARY_NAME, NAME, Label, Variant, channels_after
from .variants import VariantSpec

__all__ = ["FORMS", "Form", "label_named", "snippet", "write"]

# Every torch that there is a build for has wheels for this one.
_PYTHON = ">=3.11"
_LINUX = "sys_platform == 'linux' and platform_machine == 'x86_64'"
# What neither a shell, TOML, YAML, pip nor conda reads as anything else than itself.
_ADDRESS = re.compile(r"(?:https?|file)://[\w.~%+,=:/@\[\]-]+", re.ASCII)
_CHANNEL = re.compile(r"[\w.-]+(?:/[\w.-]+)*", re.ASCII)  # such as a name on anaconda.org
_CREDENTIALS = re.compile(r"\w+://[^/]*@", re.ASCII)


@dataclass(frozen=True)
class Form:
    """A tool and its file.

    Attributes:
        file: what the tool calls it.
        place: which address it needs, ``index`` or ``channel``.
        compose: puts it together, of the label and that address.
    """

    file: str
    place: str
    compose: Callable[[Label, str], Sequence[str]]


def _requirements(label: Label, index: str) -> list[str]:
    return [f"--extra-index-url {label.folder_of(index)}", label.wheel_requirement]


def _pyproject(label: Label, index: str) -> list[str]:
    return [
        "[project]",
        'name = "consumer"',
        'version = "0"',
        f'requires-python = "{_PYTHON}"  # torch has wheels for some Pythons alone',
        f"dependencies = [{_quoted(label.wheel_requirement)}]",
        "",
        "[tool.uv]",
        f"environments = [{_quoted(_LINUX)}]",
        "",
        f"{uv_tables(NAME, label.folder_of(index))}  # nothing else is looked for there",
    ]


def _pixi(label: Label, channel: str) -> list[str]:
    channels = ", ".join(map(_quoted, channels_after(channel)))
    lines = [
        "[workspace]",
        'name = "consumer"',
        f"channels = [{channels}]",
        'platforms = ["linux-64"]',
        "",
    ]
    if label.variant.cuda:
        lines += [
            "[system-requirements]",
            f'cuda = "{label.variant.cuda[0]}"  # of the driver',
            "",
        ]
    lines += ["[dependencies]"]
    for name, build in ((NAME, label.conda_build), (LIBRARY_NAME, label.lib_conda_build)):
        lines.append(
            f"{name} = {{ version = {_quoted(f'=={label.conda_version}')},"
            f" build = {_quoted(build)}, channel = {_quoted(channel)} }}"
        )
    return lines


def _environment(label: Label, channel: str) -> list[str]:
    # Older condas make another channel of an address before a package's name.
    of = f"{channel}::" if _CHANNEL.fullmatch(channel) else ""
    specs = (label.conda_spec, label.library.conda_spec)
    return [
        "name: consumer",
        "channels:",
        *(f"  - {name}" for name in channels_after(channel)),
        "dependencies:",
        *(f"  - {of}{spec}" for spec in specs),
    ]


FORMS: Mapping[str, Form] = {
    "pip": Form("requirements.txt", "index", _requirements),
    "uv": Form("pyproject.toml", "index", _pyproject),
    "pixi": Form("pixi.toml", "channel", _pixi),
    "conda": Form("environment.yml", "channel", _environment),
}


def snippet(label: Label, tool: str, place: str) -> str:
    """The file of a tool that depends on one build.

    Args:
        label: of the build.
        tool: one of :data:`FORMS`.
        place: the address of the whole wheel index, or the channel, an address or a name.

    Raises:
        ConfigError: an address that cannot be written there.
    """
    form = FORMS[tool]
    option = f"--{form.place}"
    _check_place(place, option, names=form.place == "channel")
    cuda = "CUDA {}.{}".format(*label.variant.cuda) if label.variant.cuda else "the CPU"
    torch = "{}.{}".format(*label.variant.torch)
    comment = [
        f"# {NAME} {label.public_version} for {cuda} and torch {torch}, as printed by",
        f"#   python scripts/release.py snippet {_argument(label)} --for {tool} {option} {place}",
    ]
    return "\n".join([*comment, *form.compose(label, place), ""])


def label_named(text: str, matrix: Sequence[VariantSpec]) -> Label:
    """The build that somebody names.

    Args:
        text: a variant, of which the build of ``version.txt`` is meant; a wheel's version; or the
            file name of a wheel or of a conda package.
        matrix: the variants that are built.

    Raises:
        LabelError: none of these, or a variant that is not built; the message has those that are.
    """
    try:
        label = _read(text)
    except LabelError as error:
        raise LabelError(
            error.what,
            where=error.where,
            expected=error.expected,
            fix=f"take one that is built: {_all(matrix)}",
        ) from None
    variant = label.variant
    if all(spec.variant != variant for spec in matrix):
        torch = "{}.{}".format(*variant.torch)
        of_torch = [one.id for one in map(_variant, matrix) if one.torch == variant.torch]
        of_cuda = [one.id for one in map(_variant, matrix) if one.cuda == variant.cuda]
        near = list(dict.fromkeys([*of_torch, *of_cuda]))
        raise LabelError(
            f"there is no build for {variant.cuda_tag} and torch {torch}",
            where=text,
            expected="one of the matrix",
            fix="take " + (", ".join(near) if near else _all(matrix)),
        )
    return label


def write(text: str, path: Path, *, replace: bool = False, dry_run: bool = False) -> bool:
    """Writes a snippet to a file, whole or not at all.

    Args:
        text: of the file.
        path: of the file.
        replace: whether one with other text is replaced.
        dry_run: write nothing.

    Returns:
        Whether the file had another text, or was not there.

    Raises:
        ConflictError: there is a file with another text.
    """
    if path.is_dir():
        raise ConfigError("is a folder", where=str(path), expected="the name of a file")
    if path.exists():
        if path.read_bytes() == text.encode():
            return False
        if not replace:
            raise ConflictError(
                "is there, with another text",
                where=str(path),
                fix="add --replace, or print it without --output and take over what you need",
            )
    if not dry_run:
        atomic.write_text(path, text)
    return True


def _variant(spec: VariantSpec) -> Variant:
    return spec.variant


def _all(matrix: Sequence[VariantSpec]) -> str:
    """Every variant, those of a CUDA together."""
    torches: dict[str, list[str]] = {}
    for variant in map(_variant, matrix):
        torches.setdefault(variant.cuda_tag, []).append("{}.{}".format(*variant.torch))
    return "; ".join(f"{tag} with torch {', '.join(minors)}" for tag, minors in torches.items())


def _read(text: str) -> Label:
    if text.endswith(".whl"):
        return Label.parse_wheel_file(text)
    if text.endswith(CONDA_ENDINGS):
        return Label.parse_conda_file(text)
    if "+" in text:
        return Label.parse_wheel_version(text)
    return Label.compose(Variant.parse(text))


def _argument(label: Label) -> str:
    """What names the label in full: a wheel's version does not say which rebuild it is."""
    return label.conda_file if label.build_number else label.wheel_version


def _check_place(place: str, option: str, *, names: bool) -> None:
    expected = "https://, http:// or file:// and a path" + (
        ", or a channel's name" if names else ""
    )
    if _CREDENTIALS.match(place):
        raise ConfigError(
            "an address with a name or a password, in a file that others will read",
            where=option,
            expected=expected,
            fix="leave them out; pip, uv, conda and pixi find them in .netrc or their own settings",
        )
    if not (_ADDRESS.fullmatch(place) or (names and _CHANNEL.fullmatch(place))):
        raise ConfigError(
            f"{place!r} is no address to be written into a file",
            where=option,
            expected=expected,
            fix="give the address in full, with other characters as %20",
        )


def _quoted(text: str) -> str:
    """A string of TOML; those of JSON are such."""
    return json.dumps(text)
