"""Writes the lock of the toolchain: every wheel that a build may use, by version and sha256.

    python scripts/lock_toolchain.py --python python3.10 --python python3.11

Run it once for all supported Pythons together; the versions wanted are in
flashinfer_build/toolchain/locking.py. What is locked already and still wanted stays as it is.
"""

from __future__ import annotations

from conda_bridge.system.failure import door, failure
from conda_bridge.system.terminal import ArgumentParser, say
from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

import shutil
import sys
import tempfile
from pathlib import Path

from conda_bridge.errors import BridgeError, ToolchainError
from flashinfer_build.toolchain.lock import LOCK_FILE, Lock
from flashinfer_build.toolchain.locking import write_lock

# Where things come from -> the tables of the lock that hold them.
_TABLES = {"pypi": ("tools", "cuda", "torch", "wheels"), "debian": ("debian", "debs")}


@door("lock_toolchain.py")
def main(arguments: list[str] | None = None) -> int:
    parser = ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="example: python scripts/lock_toolchain.py --python python3.10 --python python3.11",
    )
    parser.add_argument(
        "--python",
        action="append",
        metavar="PROGRAM",
        help="an interpreter with pip, once for each CPython to support (default: python3.10 "
        "to python3.13)",
    )
    parser.add_argument(
        "--upgrade",
        action="append",
        choices=list(_TABLES),
        default=[],
        help="resolve also what is locked already of this source; may be given twice",
    )
    parser.add_argument("--output", type=Path, default=LOCK_FILE, help="default: %(default)s")
    parser.add_argument(
        "--dry-run", action="store_true", help="resolve, and say whether the lock would change"
    )
    chosen = parser.parse_args(arguments)
    wanted = chosen.python or [f"python3.{minor}" for minor in range(10, 14)]
    try:
        pythons = []
        for name in wanted:
            found = shutil.which(name)
            if not found:
                raise ToolchainError(f"there is no {name}", fix="name those you have with --python")
            pythons.append(found)
        keep = dict(Lock.read(chosen.output).data) if chosen.output.is_file() else {}
        for source in chosen.upgrade:
            for table in _TABLES[source]:
                keep.pop(table, None)
        with tempfile.TemporaryDirectory() as scratch:
            fresh = Path(scratch) / "lock.json" if chosen.dry_run else chosen.output
            before = chosen.output.read_bytes() if chosen.output.is_file() else b""
            write_lock(fresh, pythons, keep=keep, report=lambda line: say(line, error=True))
            changed = fresh.read_bytes() != before
    except BridgeError as error:
        return failure(error, as_json=False)
    verb = "would change" if chosen.dry_run else "changed"
    say(f"{chosen.output}: {verb if changed else 'unchanged'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
