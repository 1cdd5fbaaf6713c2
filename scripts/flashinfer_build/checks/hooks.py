"""flashinfer's own checks and pages, for the hooks of conda_bridge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conda_bridge import hooks
from conda_bridge.scheme import Label, Scheme

from .index_page import index_page

__all__ = ["HOOKS"]


class _Hooks(hooks.Hooks):
    def index_page(self, folders: Mapping[str, Sequence[Label]], scheme: Scheme) -> str:
        """Which address for which CUDA and torch."""
        return index_page(folders, scheme)


HOOKS = _Hooks()
