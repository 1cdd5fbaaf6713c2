"""The only reader of ``conda_build_config.yaml``: the variants, checked.

conda-build and rattler-build read the same file by rules of their own: conda-build drops a flow
list silently, rattler-build refuses a scalar, and an unquoted 2.10 is 2.1 to both. What would mean
something else to one of them is refused here, with its key and line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from .errors import ConfigError, LabelError
from .label import Variant
from .native import gencode_flags

__all__ = ["CONFIG_FILE", "DEFAULT_VARIANT", "VariantSpec", "load", "select"]

CONFIG_FILE = Path(__file__).resolve().parents[2] / "conda_build_config.yaml"
DEFAULT_VARIANT = "cu130_torch213"

_ZIPPED = ("cuda_nvcc", "pytorch", "cuda_arch_list", "gxx_below")
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
        gxx_below: the first g++ major that nvcc refuses.
        common: the pins that are the same for every variant.
    """

    variant: Variant
    cuda_nvcc: str
    pytorch: str
    cuda_arch_list: str
    gxx_below: str
    common: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        """The variant's id, ``cu124_torch24``."""
        return self.variant.id

    def as_mapping(self) -> dict[str, str]:
        """Every key with this variant's value, as a recipe sees them."""
        zipped = (self.cuda_nvcc, self.pytorch, self.cuda_arch_list, self.gxx_below)
        return {**dict(zip(_ZIPPED, zipped, strict=True)), **dict(self.common)}

    def as_rattler(self) -> dict[str, list[str]]:
        """The argument of ``rattler_build.VariantConfig`` that gives this variant alone."""
        return {key: [value] for key, value in self.as_mapping().items()}


def load(path: Path = CONFIG_FILE) -> tuple[VariantSpec, ...]:
    """The variants of a configuration file, in its order.

    Raises:
        ConfigError: the file cannot be read, or means something else to one of the builders, or
            holds a variant that cannot be; the message has the key and the line.
    """
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
    specs: dict[str, VariantSpec] = {}
    first: dict[str, int] = {}
    for index in range(rows):
        spec = _spec([pins[key][index] for key in _ZIPPED], common)
        if spec.id in specs:
            raise ConfigError(f"{spec.id} is there twice", where=pins["pytorch"][index].where)
        specs[spec.id] = spec
        # The kernels are compiled once per CUDA, so what they are compiled with is one thing.
        earlier = first.setdefault(spec.variant.accelerator, index)
        for key in ("cuda_arch_list", "gxx_below"):
            item, other = pins[key][index], pins[key][earlier]
            if item.text != other.text:
                raise ConfigError(
                    f"{item.text!r} for {spec.id}, and {other.text!r} for another torch",
                    where=item.where,
                    expected=f"one value for all of {spec.variant.accelerator}: they share kernels",
                )
    return tuple(specs.values())


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
            fix=f"add a row to the zipped lists of {CONFIG_FILE.name}, or choose another variant",
        )
    return tuple(chosen.values())


@dataclass(frozen=True)
class _Item:
    text: str
    where: str


def _spec(items: Sequence[_Item], common: tuple[tuple[str, str], ...]) -> VariantSpec:
    cuda, torch, archs, gxx = items
    try:
        variant = Variant.from_pins(cuda.text, torch.text)
    except LabelError as error:
        culprit = torch if error.where == "pytorch" else cuda
        raise ConfigError(error.what, where=culprit.where, expected=error.expected) from None
    if variant.cuda is None:
        if archs.text != "None":
            raise ConfigError(
                f"{archs.text!r} for a CPU variant", where=archs.where, expected='"None"'
            )
    else:
        try:
            flags = gencode_flags(archs.text)
        except ConfigError as error:
            raise ConfigError(error.what, where=archs.where, expected=error.expected) from None
        if variant.cuda < _HOPPER_CUDA and any("sm_90a" in flag for flag in flags):
            raise ConfigError(
                f"CUDA {cuda.text} has no sm_90a", where=archs.where, expected="9.0 in its place"
            )
    if not gxx.text.isdecimal():
        raise ConfigError(f"{gxx.text!r} is not a g++ major", where=gxx.where, expected='as "14"')
    return VariantSpec(variant, cuda.text, torch.text, archs.text, gxx.text, common)


def _read(path: Path) -> tuple[Mapping[str, Sequence[_Item]], tuple[str, ...]]:
    """The file's lists with their lines, and the zipped keys."""
    try:
        text = path.read_text()
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(error.strerror or str(error), where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not YAML: {error}", where=str(path)) from None
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
