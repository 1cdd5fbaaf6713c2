"""A SLURM cluster on this machine, for as long as a command runs: a controller and some nodes.

Example:
    python tests/matrix/slurm_cluster.py --nodes 2 --folder /tmp/cluster -- srun -N 2 hostname

Needs Debian's slurmctld, slurmd, slurm-client and munge, and root. The daemons, the command and all
it starts live in a PID and a mount namespace of their own: /etc/slurm there is the cluster's, the
machine's own stays as it is, and when the command ends everything ends. What the daemons say, and
on which node each job ran (``jobs.txt``), stays in the folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "unshare")
_CONF = Path("/etc/slurm")
_START_SECONDS = 60
_TEMPLATE = """\
ClusterName=flashinfer
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=100000
MinJobAge=3600
"""


def missing() -> str:
    """What a cluster lacks here; empty if nothing."""
    absent = [name for name in PROGRAMS if not _find(name)]
    if absent:
        return f"SLURM is not installed here: no {', '.join(absent)}"
    probe = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True)
    return "" if probe.returncode == 0 else "a SLURM cluster needs namespaces of its own (root)"


def command(folder: Path, nodes: int, words: Sequence[str]) -> list[str]:
    """The command that runs `words` in a cluster of its own."""
    # fmt: off
    return [
        "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
        sys.executable, str(Path(__file__).resolve()), "--inside",
        "--folder", str(folder), "--nodes", str(nodes), "--", *words,
    ]
    # fmt: on


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _ports(count: int) -> list[int]:
    """Free ports; held together for a moment, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _configure(folder: Path, nodes: int) -> list[str]:
    """Writes the configuration, and makes it /etc/slurm in this namespace."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    controller, *ports = _ports(nodes + 1)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = pages // (1 << 20) // nodes
    lines = [_TEMPLATE.format(controller=controller, folder=folder)]
    for name, port in zip(names, ports, strict=True):
        # One processor each, so that two jobs at once are two nodes at work.
        lines.append(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port}"
            f" CPUs=1 RealMemory={memory} State=UNKNOWN\n"
        )
    lines.append(
        f"PartitionName=all Nodes={','.join(names)} Default=YES MaxTime=INFINITE State=UP\n"
    )
    conf = folder / "etc"
    conf.mkdir()
    (conf / "slurm.conf").write_text("".join(lines))
    for name in ("state", *(f"spool-{node}" for node in names)):
        (folder / name).mkdir()
    _CONF.mkdir(exist_ok=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", str(conf), str(_CONF)], check=True)
    return names


def _munge(folder: Path) -> None:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    # fmt: off
    subprocess.run(
        [_find("munged") or "munged", "--force", f"--socket={folder}/munge.socket",
         f"--key-file={key}", f"--log-file={folder}/munged.log",
         f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munged.seed"],
        check=True,
    )
    # fmt: on


def _start(folder: Path, names: Sequence[str]) -> None:
    """Starts the daemons and waits until every node takes jobs."""
    _munge(folder)
    programs = [[_find("slurmctld") or "slurmctld", "-D", "-c"]]
    programs += [[_find("slurmd") or "slurmd", "-D", "-N", name] for name in names]
    daemons = []
    for program in programs:
        with (folder / f"{Path(program[0]).name}-{program[-1]}.out").open("w") as stream:
            daemons.append(subprocess.Popen(program, stdout=stream, stderr=subprocess.STDOUT))
    deadline = time.monotonic() + _START_SECONDS
    said = ""
    while time.monotonic() < deadline:
        for daemon in daemons:
            if daemon.poll() is not None:
                raise SystemExit(f"{daemon.args!r} ended with {daemon.returncode}; see {folder}")
        asked = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%N %t"], capture_output=True, text=True
        )
        said = asked.stdout + asked.stderr
        if sorted(asked.stdout.split("\n")) == sorted(["", *(f"{name} idle" for name in names)]):
            return
        time.sleep(0.3)
    raise SystemExit(f"the nodes are not ready after {_START_SECONDS} s: {said}; see {folder}")


def _inside(folder: Path, nodes: int, words: Sequence[str]) -> int:
    names = _configure(folder, nodes)
    _start(folder, names)
    status = subprocess.run(words).returncode
    # The first process of the PID namespace: what is still there ends with it.
    return status if status >= 0 else 128 - status


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=2, metavar="N")
    parser.add_argument("--folder", type=Path, required=True, help="new or empty; for the cluster")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="+", metavar="COMMAND")
    args = parser.parse_args()
    if args.inside:
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
        return _inside(args.folder, args.nodes, args.words)
    reason = missing()
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    args.folder.mkdir(parents=True, exist_ok=True)
    if any(args.folder.iterdir()):
        print(f"error: {args.folder} is not empty", file=sys.stderr)
        return 2
    return subprocess.run(command(args.folder.resolve(), args.nodes, args.words)).returncode


if __name__ == "__main__":
    raise SystemExit(main())
