"""Renders recipe/meta.yaml as conda-build does, for the subset of its language that we use.

Selectors (``# [expression]``), Jinja with ``compiler``, ``stdlib``, ``pin_subpackage``,
``load_file_regex`` and ``environ``. Anything else stops with an error rather than with a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

_SELECTOR = re.compile(r"^(?P<line>.*?)\s*#\s*\[(?P<expression>[^\[\]]+)\]\s*$")
# libyaml's, where PyYAML was built with it: the tests render the recipe a few hundred times.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_COMPILERS = {"cxx": "cxx_compiler"}


class Recipe:
    """A meta.yaml with the variant and the environment it is rendered for."""

    def __init__(self, path: Path, variant: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._path = path
        self._variant = dict(variant)
        self._environ = dict(environ)
        self._packages: dict[str, tuple[str, str]] = {}

    def render(self) -> dict[str, Any]:
        """The whole recipe, with pins on its own outputs resolved.

        The names of the outputs are known only after a first pass, as in conda-build.
        """
        first = self._pass()
        version = str(first["package"]["version"])
        self._packages = {
            output["name"]: (version, output["build"]["string"]) for output in first["outputs"]
        }
        return self._pass()

    def _pass(self) -> dict[str, Any]:
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=False)
        text = environment.from_string(self._select(self._path.read_text())).render(
            **self._variant,
            environ=self._environ,
            compiler=self._compiler,
            stdlib=self._stdlib,
            pin_subpackage=self._pin_subpackage,
            load_file_regex=self._load_file_regex,
        )
        # Every value is text, so that 0.1 or 2.10 cannot become a number.
        loaded: dict[str, Any] = yaml.load(text, Loader=_LOADER)
        return loaded

    def _select(self, text: str) -> str:
        lines = []
        for line in text.splitlines():
            found = _SELECTOR.match(line)
            if not found:
                lines.append(line)
            elif eval(found["expression"], {"__builtins__": {}}, dict(self._variant)):
                lines.append(found["line"])
        return "\n".join(lines)

    def _with_version(self, name: str, key: str) -> str:
        version = self._variant.get(f"{key}_version")
        return f"{name} {version}.*" if version else name

    def _compiler(self, language: str) -> str:
        key = _COMPILERS[language]
        return self._with_version(f"{self._variant[key]}_linux-64", key)

    def _stdlib(self, language: str) -> str:
        key = f"{language}_stdlib"
        return self._with_version(f"{self._variant[key]}_linux-64", key)

    def _pin_subpackage(self, name: str, *, exact: bool) -> str:
        if not exact:
            raise NotImplementedError("pin_subpackage without exact")
        return " ".join((name, *self._packages.get(name, ("unknown", "unknown"))))

    def _load_file_regex(
        self, *, load_file: str, regex_pattern: str, from_recipe_dir: bool
    ) -> re.Match[str] | None:
        if not from_recipe_dir:
            raise NotImplementedError("load_file_regex outside of the recipe's folder")
        return re.search(regex_pattern, (self._path.parent / load_file).read_text())
