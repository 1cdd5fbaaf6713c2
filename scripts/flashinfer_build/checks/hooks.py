"""This project's hooks, named in ``[tool.conda-bridge]``."""

from __future__ import annotations

from collections.abc import Sequence

from conda_bridge.hooks import Hooks
from conda_bridge.verify.artifact import Artifact
from conda_bridge.verify.findings import ArtifactReport

from . import artifacts, build_info

__all__ = ["HOOKS"]


class _Hooks(Hooks):
    """The checks of flashinfer's own packages and wheels."""

    def looks_into(self) -> Sequence[str]:
        return (build_info.PATH,)

    def verify(self, artifact: Artifact, report: ArtifactReport) -> None:
        artifacts.verify(artifact, report)

    def verify_together(self, main: ArtifactReport, folds: Sequence[ArtifactReport]) -> None:
        artifacts.verify_together(main, folds)


HOOKS = _Hooks()
