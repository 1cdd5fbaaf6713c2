"""Lists the wheels that pip would choose from, with their URLs; a program run beside pip.

``pip install --dry-run --report`` would say it as well, but downloads every wheel to do so. So
pip's own index reader is asked, which knows the user's indexes, find-links folders, proxies,
certificates and logins. It is not a public interface: where it has changed, the caller falls back
to ``pip download``.

    python pip_links.py torch numpy

prints one JSON object: ``links``, project -> list of ``[URL, file name, sha256 or ""]``, and
``settings``, how pip reaches the network.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any


def links(projects: Sequence[str]) -> dict[str, Any]:
    """The wheels for this interpreter and machine, of all versions, and pip's settings."""
    from pip._internal.commands.index import IndexCommand

    command = IndexCommand("index", "")
    options, _ = command.parse_args(["versions", "--pre", "--only-binary", ":all:", "any"])
    with command.main_context():
        finder = command._build_package_finder(
            options=options, session=command.get_default_session(options)
        )
        found = {
            project: [
                [
                    candidate.link.url_without_fragment,
                    candidate.link.filename,
                    (candidate.link.hash or "") if candidate.link.hash_name == "sha256" else "",
                ]
                for candidate in finder.find_all_candidates(project)
            ]
            for project in projects
        }
    settings = {
        "proxy": options.proxy or None,
        "certificates": options.cert or None,
        "timeout": options.timeout,
    }
    return {"links": found, "settings": settings}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # pip's own words are no part of the answer
        found = links(sys.argv[1:])
    print(json.dumps(found))
