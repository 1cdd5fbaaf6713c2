"""The environment files for packagers, as the solver gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
# For each file the command that it is for, as the recipe's messages name it.
FILES = {"environment.yml": "conda build", "environment-mambabuild.yml": "conda mambabuild"}


def dependencies(name: str) -> list[str]:
    """What the file asks of its channels; pip's part is not theirs."""
    document = _read(name)
    assert document["channels"] == ["conda-forge", "nodefaults"]
    return [item for item in document["dependencies"] if isinstance(item, str)]


def variables(name: str) -> dict[str, str]:
    """What the file sets in the environment's shell."""
    return dict(_read(name)["variables"])


def _read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return loaded
