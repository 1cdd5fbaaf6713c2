"""What a packager types to build chosen variants with conda build, mambabuild or rattler-build.

conda-build chooses rows of a variant file by itself, with ``--variants``, which mambabuild takes
and ignores. It and rattler-build get a file with just the rows that are wanted, and so does
conda-build where they are rows of both variant files.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import ConfigError, StorageError
from conda_bridge.system import atomic

from ..variants import CONFIG_FILE, OTHER_CHANNELS, VariantSpec, as_config, select

__all__ = ["CondaCommands", "choose", "commands", "default_file"]

_FORGE = "conda-forge"
# Where the compiler of a CUDA is that conda-forge does not have.
_CUDA_CHANNELS = {"11.8": "nvidia/label/cuda-11.8.0"}
_COMMENT = "Written by `python scripts/matrix.py conda-args`."
_IN_A_NAME = 4  # variants that a file is named after
_ACCELERATOR = re.compile(r"cpu|cu\d+")


@dataclass(frozen=True)
class CondaCommands:
    """The commands for some variants.

    Attributes:
        variants: their ids.
        file: a variant file with these rows alone, or None where no command needs one.
        text: its content.
        commands: builder -> what to type in the project's root.
        lacking: what no channel that is known here has, for a person; empty if nothing.
    """

    variants: tuple[str, ...]
    file: Path | None
    text: str
    commands: Mapping[str, str]
    lacking: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "schema": 1,
            "variants": list(self.variants),
            "file": str(self.file) if self.file else None,
            "commands": dict(self.commands),
            "lacking": list(self.lacking),
        }

    def write(self, root: Path) -> None:
        """Writes the variant file, if there is one.

        Args:
            root: the project's folder, to which the file's name is relative.

        Raises:
            ConfigError: another file has the name.
            StorageError: it cannot be written.
        """
        if not self.file:
            return
        path = root / self.file
        try:
            if path.exists() and not path.read_bytes().startswith(f"# {_COMMENT}".encode()):
                raise ConfigError(
                    "is there, and was not written by conda-args",
                    where=str(path),
                    fix="give another name with --output, or delete it",
                )
            atomic.write_text(path, self.text)
        except OSError as error:
            error.filename = error.filename or str(path)
            raise StorageError(error) from None


def default_file(names: Sequence[str]) -> Path:
    """Where the variant file of `names` goes, below the project's root.

    >>> default_file(["cu124_torch24", "cpu", "cpu"])
    PosixPath('build/variants/cu124_torch24-cpu.yaml')
    """
    distinct = list(dict.fromkeys(names))
    shown = "-".join(distinct[:_IN_A_NAME])
    if len(distinct) > _IN_A_NAME:
        rest = "\n".join(distinct[_IN_A_NAME:])
        shown += f"-and-{hashlib.sha256(rest.encode()).hexdigest()[:10]}"
    return Path("build", "variants", f"{shown}.yaml")


def choose(
    specs: Sequence[VariantSpec], names: Iterable[str], *, anywhere: bool = False
) -> tuple[VariantSpec, ...]:
    """The variants that are named, in the matrix's order.

    Args:
        specs: the matrix.
        names: ids such as ``cu124_torch24``; or ``cu124``, ``cpu`` for those of that CUDA that
            conda-forge can build, all of them where it can build none. No name is all that
            conda-forge can build, as the plain command.
        anywhere: take all of a CUDA, since there are channels that have the rest.

    Raises:
        ConfigError: a name that the matrix does not have.
        LabelError: one that is not of a variant's form.
    """
    wanted: set[str] = set()
    for name in names:
        if not _ACCELERATOR.fullmatch(name):
            wanted.update(spec.id for spec in select(specs, [name]))
            continue
        of_cuda = [spec for spec in specs if spec.variant.cuda_tag == name]
        if not of_cuda:
            there = dict.fromkeys(spec.variant.cuda_tag for spec in specs)
            raise ConfigError(
                f"{name} is not in the matrix", where=CONFIG_FILE.name, expected=", ".join(there)
            )
        forge = [spec for spec in of_cuda if spec.on_conda_forge]
        wanted.update(spec.id for spec in (of_cuda if anywhere or not forge else forge))
    if not wanted:
        return tuple(spec for spec in specs if spec.on_conda_forge)
    return tuple(spec for spec in specs if spec.id in wanted)


def commands(
    specs: Sequence[VariantSpec],
    chosen: Sequence[VariantSpec],
    *,
    file: Path,
    channels: Sequence[str] = (),
) -> CondaCommands:
    """What builds `chosen` with each of the builders.

    Args:
        specs: the matrix.
        chosen: some of it, at least one.
        file: where a variant file goes, if one is needed, below the project's root.
        channels: further conda channels, before conda-forge.
    """
    forge = [spec.id for spec in specs if spec.on_conda_forge]
    other = [spec.id for spec in specs if not spec.on_conda_forge]
    ids = [spec.id for spec in chosen]
    selected = ["--variants", json.dumps({"flashinfer_variant": ids})]
    own_file = ["-m", str(file)]
    if ids == forge:
        conda, mamba, rattler = [], [], ["-m", CONFIG_FILE.name]
    elif ids == other:
        conda = mamba = rattler = ["-m", OTHER_CHANNELS]
    else:
        conda = mamba = rattler = own_file
        if set(ids) <= set(forge):
            conda = selected
        elif set(ids) <= set(other):
            conda = ["-m", OTHER_CHANNELS, *selected]
    known = [_CUDA_CHANNELS[spec.cuda_nvcc] for spec in chosen if spec.cuda_nvcc in _CUDA_CHANNELS]
    sources = [word for name in (*channels, *dict.fromkeys(known), _FORGE) for word in ("-c", name)]
    newest = max((spec.variant.cuda for spec in chosen if spec.variant.cuda), default=None)
    # A CUDA package asks for a driver, which the machine that builds and tests it need not have.
    driver = "CONDA_OVERRIDE_CUDA={}.{} ".format(*newest) if newest else ""
    recipe = ["--experimental", "-r", "recipe/recipe.yaml"]
    lines = {
        "conda build": ["conda", "build", "recipe/", *conda, *sources],
        "conda mambabuild": ["conda", "mambabuild", "recipe/", *mamba, *sources],
        "rattler-build": ["rattler-build", "build", *recipe, *rattler, *sources],
    }
    return CondaCommands(
        variants=tuple(ids),
        file=file if own_file == rattler else None,
        text=as_config(chosen, _COMMENT),
        commands={name: driver + shlex.join(words) for name, words in lines.items()},
        lacking=() if channels else tuple(_lacking(chosen)),
    )


def _lacking(chosen: Sequence[VariantSpec]) -> Iterable[str]:
    for spec in chosen:
        if spec.on_conda_forge or spec.cuda_nvcc in _CUDA_CHANNELS:
            continue
        torch = f"pytorch {spec.pytorch}"
        if spec.variant.cuda:
            torch += f" for CUDA {spec.variant.cuda[0]}"
        yield f"{spec.id}: {torch} is in no channel known here; add yours with -c"
