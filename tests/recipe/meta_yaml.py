"""Renders recipe/meta.yaml as conda-build does, for the subset of its language that we use.

Selectors (``# [expression]``), Jinja with ``compiler``, ``stdlib``, ``pin_subpackage``,
``pin_compatible``, ``load_file_regex``, ``include`` and ``environ``. Anything else stops with an
error rather than with a guess.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import yaml

# conda-build's own rule: what ends a line in brackets is a selector, with or without a '#'.
_SELECTOR = re.compile(
    r"^(?P<line>.+?)\s*(?P<comment>#.*)?\[(?P<expression>[^\[\]]+)\](?(comment)[^()]*)$"
)
# libyaml's, where PyYAML was built with it: the tests render the recipe a few hundred times.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_COMPILERS = {"cxx": ("cxx_compiler", "gxx")}
_STDLIBS = {"c": ("c_stdlib", "sysroot")}


def _load_file_data(file: str, _kind: str, *, permit_undefined_jinja: bool) -> Any:
    if permit_undefined_jinja and not Path(file).is_file():
        return {}
    return yaml.safe_load(Path(file).read_text())


def _config(files: Sequence[str], arguments: Sequence[str]) -> object:
    """conda-build's config, as far as the recipe looks: it leads to what found the files."""
    found: dict[str, Any] = {
        "find_config_files": lambda _metadata, _config: list(files),
        "sys": SimpleNamespace(argv=["conda-build", *arguments]),
    }
    exec("def get_default_variant(config): ...", found)
    made: dict[str, Any] = {"get_default_variant": found["get_default_variant"]}
    exec("class Config:\n    def __init__(self): ...", made)
    config: object = made["Config"]()
    return config


class Recipe:
    """A meta.yaml with the variant and the environment it is rendered for.

    ``config_files`` are the variant files that conda-build found, in its order, ``arguments`` its
    command line; ``version_independent`` is whether this conda-build knows that key.
    """

    def __init__(
        self,
        path: Path,
        variant: Mapping[str, str],
        environ: Mapping[str, str],
        *,
        config_files: Sequence[str] = (),
        arguments: Sequence[str] = (),
        version_independent: bool = True,
    ) -> None:
        self._path = path
        self._variant = dict(variant)
        self._environ = dict(environ)
        self._metadata = SimpleNamespace(config=_config(config_files, arguments))
        if version_independent:
            self._metadata.python_version_independent = False
        self._packages: dict[str, tuple[str, str]] = {}

    def render(self) -> dict[str, Any]:
        """The whole recipe, with pins on its own outputs resolved.

        As in conda-build, a first pass goes over what is not defined; and the names of the outputs
        are known only after a pass that does not.
        """
        self._pass(final=False)
        named = self._pass(final=True)
        version = str(named["package"]["version"])
        self._packages = {
            output["name"]: (version, output["build"]["string"]) for output in named["outputs"]
        }
        return self._pass(final=True)

    def _pass(self, *, final: bool) -> dict[str, Any]:
        permissive = {"permit_undefined_jinja": not final}
        text = _compiled(self._selected(), self._path.parent, final).render(
            **self._variant,
            environ=self._environ,
            compiler=functools.partial(self._target, _COMPILERS),
            stdlib=functools.partial(self._target, _STDLIBS),
            pin_subpackage=self._pin_subpackage,
            pin_compatible=functools.partial(_pin_compatible, self._metadata, **permissive),
            load_file_data=functools.partial(_load_file_data, **permissive),
            load_str_data=lambda text, kind: yaml.safe_load(text),
            load_file_regex=functools.partial(self._load_file_regex, **permissive),
        )
        # Every value is text, so that 0.1 or 2.10 cannot become a number.
        loaded: dict[str, Any] = yaml.load(text, Loader=_LOADER)
        return loaded

    def _selected(self) -> str:
        # A name that is not known is False in a selector, in every pass.
        names = defaultdict(bool, self._variant)
        lines = []
        for line in self._path.read_text().splitlines():
            found = _SELECTOR.match(line.rstrip())
            if not found:
                lines.append(line)
            elif eval(found["expression"], {"__builtins__": {}}, names):
                lines.append(found["line"])
        return "\n".join(lines)

    def _target(self, names: Mapping[str, tuple[str, str]], language: str) -> str:
        key, default = names[language]
        name = f"{self._variant.get(key, default)}_linux-64"
        version = self._variant.get(f"{key}_version")
        return f"{name} {version}.*" if version else name

    def _pin_subpackage(self, name: str, *, exact: bool) -> str:
        if not exact:
            raise NotImplementedError("pin_subpackage without exact")
        return " ".join((name, *self._packages.get(name, ("unknown", "unknown"))))

    def _load_file_regex(
        self,
        *,
        load_file: str,
        regex_pattern: str,
        from_recipe_dir: bool = False,
        permit_undefined_jinja: bool,
    ) -> re.Match[str] | None:
        if not from_recipe_dir and not load_file.startswith("/"):
            raise NotImplementedError("load_file_regex in the folder of the build")
        path = self._path.parent / load_file
        # Where the recipe is, the first pass of conda-build does not know yet.
        if permit_undefined_jinja and (from_recipe_dir or not path.is_file()):
            return None
        return re.search(regex_pattern, path.read_text())


@functools.cache
def _compiled(text: str, folder: Path, final: bool) -> jinja2.Template:
    """Compiling takes ten times as long as rendering, and the variants differ in values alone."""
    return jinja2.Environment(
        undefined=jinja2.StrictUndefined if final else jinja2.ChainableUndefined,
        loader=jinja2.FileSystemLoader(folder),
    ).from_string(text)


def _pin_compatible(_metadata: object, **_settings: object) -> str:
    raise NotImplementedError("pin_compatible, of which the recipe asks what it was given alone")
