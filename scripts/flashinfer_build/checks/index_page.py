"""The overview of the wheel index: which address for which CUDA and torch, and what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from conda_bridge.label import Label, Scheme
from conda_bridge.publish.html_page import as_html, page

__all__ = ["index_page"]

_NAME = "flashinfer"


def index_page(folders: Mapping[str, Sequence[Label]], scheme: Scheme) -> str:
    """The page.

    Args:
        folders: of the index, each with the labels of its wheels, the newest last.
        scheme: how the labels are spelled.
    """
    lines = [
        "<p>One index for every pair of CUDA and torch. Take the line of the torch you have:</p>",
        "<pre>python -c 'import torch; print(torch.__version__, torch.version.cuda)'</pre>",
        f"<pre>pip install {_NAME} --extra-index-url &lt;this address&gt;/&lt;index&gt;/</pre>",
        "<table>",
        "<tr><th>CUDA</th><th>torch</th><th>index</th><th>newest</th></tr>",
    ]
    for folder, labels in sorted(folders.items(), key=lambda item: _order(item[1][0])):
        cuda, torch = labels[0].get("cuda") or "none (CPU)", labels[0].get("torch")
        newest = as_html(scheme.wheel_version(labels[-1]))
        lines.append(
            f"<tr><td>{as_html(str(cuda))}</td><td>{as_html(str(torch))}</td>"
            f'<td><a href="{quote(folder)}/{_NAME}/">{as_html(folder)}</a></td>'
            f"<td>{newest}</td></tr>"
        )
    lines.append("</table>")
    return page(f"{_NAME} wheels", lines)


def _order(label: Label) -> tuple[list[int], list[int]]:
    """The CPU first, then CUDA and torch as numbers."""
    cuda, torch = label.get("cuda") or "0", label.get("torch") or "0"
    return [int(part) for part in cuda.split(".")], [int(part) for part in torch.split(".")]
