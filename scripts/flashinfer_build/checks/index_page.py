"""The overview of the wheel index: which address for which CUDA and torch, and what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from packaging.version import Version

from conda_bridge.errors import LabelError
from conda_bridge.label import Label
from conda_bridge.publish.html_page import as_html, page

from ..label import NAME
from .labels import label_of

__all__ = ["index_page"]

# What a static page does not know.
_ADDRESS = "<this address>"


def index_page(folders: Mapping[str, Sequence[Label]]) -> str:
    """The page.

    Args:
        folders: of the index, each with the labels of its wheels, the newest last.

    Raises:
        LabelError: a version that this project does not give.
    """
    lines = [
        "<p>One index for every pair of CUDA and torch. Take the line of the torch you have:</p>",
        "<pre>python -c 'import torch; print(torch.__version__, torch.version.cuda)'</pre>",
        "<table>",
        "<tr><th>CUDA</th><th>torch</th><th>index</th><th>install</th></tr>",
    ]
    for folder, labels in sorted(folders.items(), key=lambda item: _order(item[1][0])):
        cuda, torch = labels[0].get("cuda") or "none (CPU)", labels[0].get("torch")
        try:
            lines_of = [label_of(label).pip_install(_ADDRESS) for label in _offered(labels)]
        except LabelError as error:  # a version that the index's own reading has nothing against
            raise error.within(f"index/{folder}/{NAME}") from None
        commands = "".join(f"<pre>{as_html(line)}</pre>" for line in lines_of)
        lines.append(
            f"<tr><td>{as_html(str(cuda))}</td><td>{as_html(str(torch))}</td>"
            f'<td><a href="{quote(folder)}/{NAME}/">{as_html(folder)}</a></td>'
            f"<td>{commands}</td></tr>"
        )
    lines.append("</table>")
    return page(f"{NAME} wheels", lines)


def _offered(labels: Sequence[Label]) -> Sequence[Label]:
    """The newest release, which pip takes by itself, and the newest wheel if that is none."""
    releases = [label for label in labels if not Version(label.version).is_prerelease]
    return list(dict.fromkeys([*releases[-1:], labels[-1]]))


def _order(label: Label) -> tuple[list[int], list[int]]:
    """The CPU first, then CUDA and torch as numbers."""
    cuda, torch = label.get("cuda") or "0", label.get("torch") or "0"
    return [int(part) for part in cuda.split(".")], [int(part) for part in torch.split(".")]
