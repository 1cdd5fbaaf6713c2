"""The only reader of the variant files: the variants, checked.

``conda_build_config.yaml`` has what conda-forge alone can build, ``recipe/other_channels.yaml``
the rest, in the same form. conda-build and rattler-build read them by rules of their own:
conda-build drops a flow list silently, rattler-build refuses a scalar, and an unquoted 2.10 is 2.1
to both. What would mean something else to one of them is refused here, with its key and line.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from conda_bridge.errors import ConfigError, LabelError
from conda_bridge.formats.cuda_archs import gencode_flags

from .label import Variant

__all__ = [
    "CONFIG_FILE",
    "DEFAULT_VARIANT",
    "OTHER_CHANNELS",
    "VariantSpec",
    "as_config",
    "load",
    "select",
]

CONFIG_FILE = Path(__file__).resolve().parents[2] / "conda_build_config.yaml"
# Below the folder of the file that has the variants of conda-forge.
OTHER_CHANNELS = "recipe/other_channels.yaml"
DEFAULT_VARIANT = "cu130_torch213"

# The kernels are compiled once per CUDA, so what they are compiled with is one thing.
_OF_KERNELS = ("cuda_arch_list", "cxx_compiler_version", "gxx_below")
_ZIPPED = ("flashinfer_variant", "cuda_nvcc", "pytorch", *_OF_KERNELS)
_SINGLE = ("cxx_compiler", "c_stdlib", "c_stdlib_version")
_SELECTOR = re.compile(r"#.*\[[^\[\]]+\]")  # as conda-build looks for them
_HOPPER_CUDA = (12, 0)  # the first nvcc that knows sm_90a


@dataclass(frozen=True)
class VariantSpec:
    """A row of the matrix: what one build asks for.

    Attributes:
        variant: what the build will be named.
        cuda_nvcc: the toolkit, ``"12.4"``, or ``"None"`` for the CPU.
        pytorch: the torch minor, ``"2.4"``.
        cuda_arch_list: GPU architectures in torch's notation, or ``"None"``.
        cxx_compiler_version: the major of conda-forge's g++ that compiles.
        gxx_below: the first g++ major that nvcc refuses.
        common: the pins that are the same for every variant.
        on_conda_forge: whether conda-forge alone has what it is built from.
    """

    variant: Variant
    cuda_nvcc: str
    pytorch: str
    cuda_arch_list: str
    cxx_compiler_version: str
    gxx_below: str
    common: tuple[tuple[str, str], ...] = ()
    on_conda_forge: bool = True

    @property
    def id(self) -> str:
        """The variant's id, ``cu124_torch24``."""
        return self.variant.id

    @property
    def flashinfer_variant(self) -> str:
        """The row's own name; a recipe compares it with the other pins."""
        return self.id

    def as_mapping(self) -> dict[str, str]:
        """Every key with this variant's value, as a recipe sees them."""
        return {**{key: getattr(self, key) for key in _ZIPPED}, **dict(self.common)}

    def as_rattler(self) -> dict[str, list[str]]:
        """The argument of ``rattler_build.VariantConfig`` that gives this variant alone."""
        return {key: [value] for key, value in self.as_mapping().items()}


def load(path: Path = CONFIG_FILE) -> tuple[VariantSpec, ...]:
    """The variants of a configuration file and of the :data:`OTHER_CHANNELS` beside it.

    Returns:
        The CPU's first, then by CUDA, then by torch.

    Raises:
        ConfigError: a file cannot be read, or means something else to one of the builders, or
            holds a variant that cannot be; the message has the key and the line.
    """
    rows = list(_rows(path, on_conda_forge=True))
    other = path.parent / OTHER_CHANNELS
    if other.is_file():
        rows += _rows(other, on_conda_forge=False)
    specs: dict[str, _Row] = {}
    first: dict[str, _Row] = {}
    for row in rows:
        spec = row.spec
        if spec.id in specs:
            raise ConfigError(f"{spec.id} is there twice", where=row.items["pytorch"].where)
        specs[spec.id] = row
        earlier = first.setdefault(spec.variant.cuda_tag, row)
        for key in _OF_KERNELS:
            item, before = row.items[key], earlier.items[key]
            if item.text != before.text:
                raise ConfigError(
                    f"{item.text!r} for {spec.id}, and {before.text!r} for another torch",
                    where=item.where,
                    expected=f"one value for all of {spec.variant.cuda_tag}: they share kernels",
                )
        if spec.common != rows[0].spec.common:
            raise ConfigError(
                f"{dict(spec.common)}, and {dict(rows[0].spec.common)} in {path.name}",
                where=str(other),
                expected="the same pins for all variants in both files",
            )
    return tuple(sorted((row.spec for row in specs.values()), key=_order))


def _order(spec: VariantSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    return spec.variant.cuda or (0, 0), spec.variant.torch


@dataclass(frozen=True)
class _Row:
    spec: VariantSpec
    items: Mapping[str, _Item]


def _rows(path: Path, *, on_conda_forge: bool) -> Iterator[_Row]:
    """The rows of one file, each checked by itself."""
    pins, zip_keys = _read(path)
    for key in (*_ZIPPED, *_SINGLE):
        if key not in pins:
            raise ConfigError(f"the key {key!r} is missing", where=str(path))
    for key, items in pins.items():
        if key not in (*_ZIPPED, *_SINGLE):
            raise ConfigError(
                f"{key!r} is no key of the recipes",
                where=items[0].where,
                expected=", ".join((*_ZIPPED, *_SINGLE)),
            )
        if key in _SINGLE and len(items) != 1:
            raise ConfigError(
                f"{key!r} has {len(items)} values",
                where=items[1].where,
                expected="one value for all variants",
            )
    if zip_keys != _ZIPPED:
        raise ConfigError(
            f"zip_keys names {', '.join(zip_keys) or 'nothing'}",
            where=f"{path}: zip_keys",
            expected=", ".join(_ZIPPED),
        )
    rows = len(pins["cuda_nvcc"])
    for key in _ZIPPED:
        if len(pins[key]) != rows:
            raise ConfigError(
                f"{key!r} has {len(pins[key])} values",
                where=pins[key][-1].where,
                expected=f"{rows}, as 'cuda_nvcc' has: they are zipped",
            )
    common = tuple((key, pins[key][0].text) for key in _SINGLE)
    for index in range(rows):
        row = {key: pins[key][index] for key in _ZIPPED}
        yield _Row(_spec(row, common, on_conda_forge), row)


def as_config(
    specs: Sequence[VariantSpec], comment: str, notes: Mapping[str, str] | None = None
) -> str:
    """A variant file with these variants alone, for ``-m`` of any of the builders.

    Args:
        specs: at least one; they share their common pins.
        comment: its first lines, without ``#``.
        notes: for a file that people read: what each zipped list is, and under ``common`` the
            others. Its rows are then parted by CUDA.
    """
    notes = notes or {}
    lines = _commented(comment)
    lines += [*_noted("", notes), "zip_keys:", "  -", *(f"    - {key}" for key in _ZIPPED)]
    for key in _ZIPPED:
        lines += [*_noted(notes.get(key), notes), f"{key}:"]
        for cuda, row in itertools.groupby(specs, key=lambda spec: spec.cuda_nvcc):
            if notes:
                lines.append("  # CPU" if cuda == "None" else f"  # CUDA {cuda}")
            lines += [f'  - "{getattr(spec, key)}"' for spec in row]
    lines += _noted(notes.get("common"), notes)
    for key, value in specs[0].common:
        lines += [f"{key}:", f'  - "{value}"']
    return "\n".join(lines) + "\n"


def _noted(note: str | None, notes: Mapping[str, str]) -> list[str]:
    """An empty line and a note, in a file that has notes."""
    return ["", *_commented(note or "")] if notes else []


def _commented(text: str) -> list[str]:
    return [f"# {line}".rstrip() for line in text.splitlines()]


def select(specs: Sequence[VariantSpec], ids: Sequence[str]) -> tuple[VariantSpec, ...]:
    """The variants with these ids, in the order asked for, each once.

    Raises:
        ConfigError: an id that the matrix does not have; the message has the nearest ones.
        LabelError: an id that is not of a variant's form.
    """
    by_id = {spec.id: spec for spec in specs}
    chosen: dict[str, VariantSpec] = {}
    for wanted in ids:
        if wanted in by_id:
            chosen[wanted] = by_id[wanted]
            continue
        near = difflib.get_close_matches(wanted, by_id, n=4, cutoff=0.6)
        hint = ", ".join(near) or "`--list` shows them all"
        try:
            Variant.parse(wanted)
        except LabelError as error:
            raise LabelError(error.what, expected=error.expected, fix=f"near: {hint}") from None
        raise ConfigError(
            f"{wanted} is not in the matrix",
            where=CONFIG_FILE.name,
            expected=f"one of its variants, such as {hint}",
            fix="add the torch to recipe/matrix.toml and run `python scripts/matrix.py config`, or "
            "choose another variant",
        )
    return tuple(chosen.values())


@dataclass(frozen=True)
class _Item:
    text: str
    where: str


def _spec(
    items: Mapping[str, _Item], common: tuple[tuple[str, str], ...], on_conda_forge: bool
) -> VariantSpec:
    cuda, torch, archs = (items[key] for key in ("cuda_nvcc", "pytorch", "cuda_arch_list"))
    gxx, below = items["cxx_compiler_version"], items["gxx_below"]
    try:
        variant = Variant.from_pins(cuda.text, torch.text)
    except LabelError as error:
        culprit = torch if error.where == "pytorch" else cuda
        raise ConfigError(error.what, where=culprit.where, expected=error.expected) from None
    name = items["flashinfer_variant"]
    if name.text != variant.id:
        raise ConfigError(
            f"{name.text!r} names a row with CUDA {cuda.text} and torch {torch.text}",
            where=name.where,
            expected=repr(variant.id),
        )
    if variant.cuda is None:
        if archs.text != "None":
            raise ConfigError(
                f"{archs.text!r} for a CPU variant", where=archs.where, expected='"None"'
            )
    else:
        flags = gencode_flags(archs.text, archs.where)
        if variant.cuda < _HOPPER_CUDA and any("sm_90a" in flag for flag in flags):
            raise ConfigError(
                f"CUDA {cuda.text} has no sm_90a", where=archs.where, expected="9.0 in its place"
            )
    for item in (gxx, below):
        if not item.text.isdecimal():
            raise ConfigError(
                f"{item.text!r} is not a g++ major", where=item.where, expected='as "14"'
            )
    if int(gxx.text) >= int(below.text):
        raise ConfigError(
            f"g++ {gxx.text}, which this CUDA's nvcc refuses",
            where=gxx.where,
            expected=f"one below {below.text}, as gxx_below says",
        )
    return VariantSpec(
        variant,
        cuda_nvcc=cuda.text,
        pytorch=torch.text,
        cuda_arch_list=archs.text,
        cxx_compiler_version=gxx.text,
        gxx_below=below.text,
        common=common,
        on_conda_forge=on_conda_forge,
    )


def _read(path: Path) -> tuple[Mapping[str, Sequence[_Item]], tuple[str, ...]]:
    """The file's lists with their lines, and the zipped keys."""
    try:
        return _parsed(path)
    except RecursionError:
        raise ConfigError("lists in one another without end", where=str(path)) from None


def _parsed(path: Path) -> tuple[Mapping[str, Sequence[_Item]], tuple[str, ...]]:
    try:
        text = path.read_text()
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(error.strerror or str(error), where=str(path)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}", where=str(path)) from None
    if not isinstance(document, yaml.MappingNode):
        raise ConfigError("not a mapping of keys to lists", where=str(path))
    for number, line in enumerate(text.splitlines(), 1):
        if _SELECTOR.search(line):
            raise ConfigError(
                f"a selector: {line.strip()}",
                where=f"{path}:{number}",
                expected="lists that say the same on every platform",
            )
    pins: dict[str, list[_Item]] = {}
    zip_keys: tuple[str, ...] = ()
    for key_node, value in document.value:
        key = str(key_node.value)
        where = _where(path, key, key_node)
        if key in pins or (key == "zip_keys" and zip_keys):
            raise ConfigError("the key is there twice", where=where)
        if key == "zip_keys":
            groups = list(_block_list(path, key, value))
            if len(groups) != 1:
                raise ConfigError(f"{len(groups)} groups of keys", where=where, expected="one")
            zip_keys = tuple(item.value for item in _block_list(path, key, groups[0]))
            continue
        pins[key] = [_item(path, key, node) for node in _block_list(path, key, value)]
    return pins, zip_keys


def _block_list(path: Path, key: str, node: yaml.Node) -> Iterator[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode) or node.flow_style or not node.value:
        raise ConfigError(
            "a flow list, which conda-build would drop"
            if isinstance(node, yaml.SequenceNode) and node.flow_style
            else "not a list with values",
            where=_where(path, key, node),
            expected="a block list: one '- \"value\"' a line",
        )
    yield from node.value


def _item(path: Path, key: str, node: yaml.Node) -> _Item:
    where = _where(path, key, node)
    if not isinstance(node, yaml.ScalarNode) or node.style not in ('"', "'"):
        shown = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a nested value"
        raise ConfigError(
            f"{shown} is not quoted",
            where=where,
            expected="a quoted string; unquoted, 2.10 would be 2.1",
        )
    text = str(node.value)
    if "{{" in text or "{%" in text or not text:
        raise ConfigError(f"{text!r} is not a plain value", where=where)
    return _Item(text, where)


def _where(path: Path, key: str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}: {key}"
