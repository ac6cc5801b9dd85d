"""Starting servers, recording them, and ending exactly those again.

A process is recorded as its id plus its start time from /proc, and signalled through a pidfd opened and compared before
use: an id that the kernel has meanwhile given to somebody else is never hit. Nothing is ever ended by name.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hack.cluster.errors import ClusterError

LOG_TAIL_LINES = 8
_LAST_PATIENCE_S = 60.0
"""For SIGKILL: a machine whose disk or processor is stalled lets no process go, and whoever waits here goes on then."""


@dataclass(frozen=True)
class ProcessRecord:
    """One started process. `started` tells it from a later one with the same id, even after a reboot."""

    name: str
    pid: int
    started: str
    log: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it was given beside the environment of whoever started it."""


class ProcessTable:
    """The servers of one cluster, in start order; the records survive this program in `<folder>/processes`."""

    def __init__(self, folder: Path, *, bound_to_parent: bool) -> None:
        """`bound_to_parent`: the servers die with this process, even if it is killed. Otherwise they outlive it."""
        self._records_folder = folder / "processes"
        self._logs_folder = folder / "logs"
        self._bound_to_parent = bound_to_parent
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> None:
        """Start `command` with its output in `logs/<name>.log`, in its own session so that Ctrl-C reaches only us."""
        self._records_folder.mkdir(parents=True, exist_ok=True)
        order = 1 + max((int(path.name.split("-")[0]) for path in self._records_folder.glob("*.json")), default=0)
        path = self._records_folder / f"{order:02d}-{name}.json"
        self._launch(path, name, tuple(map(str, command)), environment or {})

    def end(self, name: str, *, grace_s: float = 10) -> None:
        """End one process and remember it, as if it had crashed; `start_again` brings it back."""
        record = _read(self._path_of(name))
        if not record.command:
            raise ClusterError(f"{name} was started by an older version of this program and stays; start all anew.")
        end_process(record, grace_s=grace_s)
        self._collect(name, grace_s=grace_s)

    def start_again(self, name: str) -> None:
        """Start a process that has ended the way it was started before. Nothing happens if it runs."""
        path = self._path_of(name)
        record = _read(path)
        if not is_alive(record):
            self._launch(path, name, record.command, record.environment)

    def _launch(self, path: Path, name: str, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._logs_folder.mkdir(parents=True, exist_ok=True)
        log = self._logs_folder / f"{name}.log"
        with log.open("ab") as output:
            child = subprocess.Popen(
                [*self._leash(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self._children[name] = child
        started = start_of(child.pid)
        if started is None:
            raise ClusterError(f"{name} ended at once; its log is {log}.")
        record = ProcessRecord(name, child.pid, started, str(log), command, dict(environment))
        path.write_text(json.dumps(asdict(record)))

    def _path_of(self, name: str) -> Path:
        found = sorted(self._records_folder.glob(f"[0-9][0-9]-{name}.json"))
        if not found:
            raise ClusterError(f"No process called {name} was started in {self._records_folder.parent}.")
        return found[0]

    def _leash(self) -> Sequence[str]:
        """The command prefix that makes the kernel kill the child when its parent dies.

        The kernel watches the *thread* that forked, so a short-lived thread would take the servers with it.
        """
        if not self._bound_to_parent:
            return ()
        if threading.current_thread() is not threading.main_thread():
            raise ClusterError(
                "Start a control plane from the main thread: its servers die with the thread that starts them."
            )
        return ("setpriv", "--pdeathsig", "KILL", "--")

    def records(self) -> list[ProcessRecord]:
        """Every process started and not yet stopped through this folder, in start order, dead or alive."""
        return [_read(path) for path in sorted(self._records_folder.glob("*.json"))]

    def wait_until(self, name: str, ready: Callable[[], bool], *, what: str, timeout_s: float = 180) -> None:
        """Poll `ready` until it holds (an OSError counts as "not yet").

        Raises ClusterError as soon as process `name` has ended, or at the timeout.
        """
        deadline = time.monotonic() + timeout_s
        record = next(record for record in self.records() if record.name == name)
        while True:
            with suppress(OSError):
                if ready():
                    return
            if not is_alive(record):
                raise ClusterError(f"{name} ended before it was ready. The end of its log:\n{_tail(record)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} did not come within {timeout_s:.0f} s. {name} says:\n{_tail(record)}")
            time.sleep(0.05)

    def stop(self, *, grace_s: float = 10) -> None:
        """End all recorded processes, last started first."""
        for record in reversed(self.records()):
            self.stop_one(record.name, grace_s=grace_s)

    def stop_one(self, name: str, *, grace_s: float = 10) -> None:
        """End one process (SIGTERM, after `grace_s` SIGKILL) and forget it. Nothing happens if it is not recorded."""
        for path in self._records_folder.glob(f"[0-9][0-9]-{name}.json"):
            end_process(_read(path), grace_s=grace_s)
            path.unlink()
        self._collect(name, grace_s=grace_s)

    def _collect(self, name: str, *, grace_s: float) -> None:
        child = self._children.pop(name, None)
        if child is not None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=grace_s)  # it has ended; this collects it, so that no zombie stays


def _read(path: Path) -> ProcessRecord:
    facts = json.loads(path.read_text())
    return ProcessRecord(**facts | {"command": tuple(facts.get("command", ()))})


def start_of(pid: int) -> str | None:
    """Boot id and start time (clock ticks after boot) of a process; None if it does not run or is a zombie."""
    try:
        # The command name, in parentheses, may itself contain spaces and parentheses: count from the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {"Z", "X"} else f"{_boot_id()}/{fields[19]}"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_alive(record: ProcessRecord) -> bool:
    """Whether the recorded process itself, not a later one with its id, is running."""
    return start_of(record.pid) == record.started


def end_process(record: ProcessRecord, *, grace_s: float) -> None:
    """End one recorded process and return when it is gone. Does nothing if it has ended already."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if not is_alive(record):
            return
        for signal_number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _LAST_PATIENCE_S)):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal_number)
            if select.select([descriptor], [], [], patience_s)[0]:
                return
        raise ClusterError(f"{record.name} (process {record.pid}) does not end; it hangs in the kernel, see `dmesg`.")
    finally:
        os.close(descriptor)


def _tail(record: ProcessRecord) -> str:
    lines = Path(record.log).read_text(errors="replace").splitlines()
    return "\n".join(f"  {line[:300]}" for line in lines[-LOG_TAIL_LINES:])
