"""The table of the matrix, ``recipe/matrix.toml``, and the variant files that are written from it.

conda-build and rattler-build read lists that are zipped, one for each pin, in which a row is found
by counting. So people change the table, where a CUDA is said once, and the lists follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from conda_bridge.config import document
from conda_bridge.errors import ConfigError, LabelError

from ..label import Variant
from ..variants import CONFIG_FILE, OTHER_CHANNELS, VariantSpec, as_config

__all__ = ["TABLE_FILE", "Cuda", "Table", "read", "variant_files"]

TABLE_FILE = "recipe/matrix.toml"

_FORGE = f"""\
Written from {TABLE_FILE} by `python scripts/matrix.py config`: change that, and run this.

The rows that conda-forge has everything for, so that the plain commands (`conda build recipe/`,
`conda mambabuild recipe/`) build all of them: cuda-nvcc of that release, and a pytorch of that
minor for the CPU and for that CUDA major (docs/conda-builders.md). {OTHER_CHANNELS} has
the rest. Row n of the zipped lists together is one variant.

Read by conda-build (from the project root, or with -m), rattler-build and scripts/build.py, so:
block lists only, every value quoted ("2.10" is not 2.1), no Jinja, no flow lists.
"""
_OTHER = f"""\
Written from {TABLE_FILE} by `python scripts/matrix.py config`: change that, and run this.

The variants that conda-forge alone cannot build; conda_build_config.yaml has the others. Pass it
with -m, and the channels that have what is missing with -c:

  cuda-nvcc 11.8 is in nvidia's channel alone (-c nvidia/label/cuda-11.8.0);
  pytorch 2.9 for CUDA 13, and any pytorch 2.14 and 2.15, in none that is known here.

`python scripts/matrix.py conda-args cu118_torch24` prints the whole command. The form is that of
conda_build_config.yaml, and both are checked together.
"""
_NOTES = {
    "flashinfer_variant": """\
Each row by name: what the packages are called, and what `--variants` can choose by. The recipes
compare it with the pins below, so a mixture of two rows stops.""",
    "cuda_nvcc": 'The CUDA toolkit that compiles the kernels; "None" is the CPU variant.',
    "pytorch": """\
The torch minor that the binding is linked against and that the package then requires.""",
    "cuda_arch_list": "GPU architectures of the kernels, in torch's notation; 9.0a needs CUDA 12.",
    "cxx_compiler_version": """\
The g++ that compiles: the newest that this CUDA's nvcc takes, 14 at most.""",
    "gxx_below": "The first g++ major that this CUDA's nvcc refuses as its host compiler.",
    "common": "The same for every variant.",
}


class _Part(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True):
    """What the table says of the CPU, or of a CUDA.

    Attributes:
        gxx: the major of the g++ that compiles.
        gxx_below: the first major that is refused.
        torch: the minors that conda-forge has, ``"2.13"``.
        torch_elsewhere: those that are to be had in other places.
    """

    gxx: str
    gxx_below: str
    torch: tuple[str, ...] = ()
    torch_elsewhere: tuple[str, ...] = ()


class Cuda(_Part, frozen=True, kw_only=True):
    """Of a CUDA besides: the GPU architectures, in torch's notation."""

    archs: str


class _Common(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True):
    cxx_compiler: str
    c_stdlib: str
    c_stdlib_version: str


class Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole table.

    Attributes:
        common: pins that are the same for every variant.
        cpu: of the CPU.
        cuda: by the CUDA, ``"12.4"``.
    """

    common: _Common
    cpu: _Part
    cuda: dict[str, Cuda]

    def parts(self) -> Iterator[tuple[str, str, _Part]]:
        """Each part's ``cuda_nvcc`` and architectures, the CPU first, then by CUDA."""
        yield "None", "None", self.cpu
        for cuda in sorted(self.cuda, key=_minor):
            yield cuda, self.cuda[cuda].archs, self.cuda[cuda]


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def read(path: Path) -> Table:
    """The table in a file.

    Raises:
        ConfigError: it cannot be read, a key is missing, unknown or of another type, or a version
            is none; the message names the key.
    """
    try:
        table = msgspec.convert(document(path), Table)
    except msgspec.ValidationError as error:
        raise ConfigError(
            str(error), where=str(path), expected="as the tables beside it, and its first lines"
        ) from None
    for cuda in ("None", *table.cuda):
        part = table.cpu if cuda == "None" else table.cuda[cuda]
        where = f"{path}: {'cpu' if cuda == 'None' else f'cuda.{cuda}'}"
        minors = (*part.torch, *part.torch_elsewhere)
        try:
            variants = [Variant.from_pins(cuda, torch) for torch in minors]
        except LabelError as error:
            raise ConfigError(error.what, where=where, expected=error.expected) from None
        if not variants:
            raise ConfigError("no torch", where=where, expected="at least one minor")
        twice = [minor for minor in minors if minors.count(minor) > 1]
        if twice:
            raise ConfigError(f"torch {twice[0]} is there twice", where=where)
    return table


def variant_files(table: Table) -> Mapping[str, str]:
    """The variant files, by their paths in the project."""
    return {
        CONFIG_FILE.name: as_config(_specs(table, elsewhere=False), _FORGE, _NOTES),
        OTHER_CHANNELS: as_config(_specs(table, elsewhere=True), _OTHER, _NOTES),
    }


def _specs(table: Table, *, elsewhere: bool) -> list[VariantSpec]:
    """The rows of a file, by CUDA and then by torch."""
    return [
        VariantSpec(
            Variant.from_pins(cuda, minor),
            cuda_nvcc=cuda,
            pytorch=minor,
            cuda_arch_list=archs,
            cxx_compiler_version=part.gxx,
            gxx_below=part.gxx_below,
            common=tuple(msgspec.structs.asdict(table.common).items()),
            on_conda_forge=not elsewhere,
        )
        for cuda, archs, part in table.parts()
        for minor in sorted(part.torch_elsewhere if elsewhere else part.torch, key=_minor)
    ]
