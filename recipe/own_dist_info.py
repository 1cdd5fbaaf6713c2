"""Makes an installed distribution conda's: pip's traces of the build are removed.

pip records the folder it installed from (``direct_url.json``) and itself (``INSTALLER``). The
first is a path of the build machine; the second would let pip uninstall what conda owns.

Example:
    python own_dist_info.py "$SP_DIR" flashinfer
"""

from __future__ import annotations

import base64
import csv
import hashlib
import sys
from pathlib import Path

_REMOVED = ("direct_url.json", "REQUESTED")
# Both builders write the file once more, with these bytes: conda-build by itself, rattler-build
# because recipe.yaml takes its newline away.
_INSTALLER = b"conda"


def main(site_packages: Path, name: str) -> None:
    """Rewrites the ``.dist-info`` of the distribution `name` in `site_packages`."""
    [folder] = site_packages.glob(f"{name}-*.dist-info")
    record = folder / "RECORD"
    with record.open(newline="") as stream:
        rows = list(csv.reader(stream))
    for removed in _REMOVED:
        (folder / removed).unlink(missing_ok=True)
    (folder / "INSTALLER").write_bytes(_INSTALLER)
    dropped = {f"{folder.name}/{leaf}" for leaf in (*_REMOVED, "INSTALLER")}
    rows = [row for row in rows if row[0] not in dropped]
    digest = base64.urlsafe_b64encode(hashlib.sha256(_INSTALLER).digest()).rstrip(b"=").decode()
    rows.append([f"{folder.name}/INSTALLER", f"sha256={digest}", str(len(_INSTALLER))])
    with record.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(sorted(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
