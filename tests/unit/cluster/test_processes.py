"""Servers are ended by identity, never by a number or a name that may meanwhile be somebody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hack.cluster.errors import ClusterError
from hack.cluster.processes import ProcessTable, end_process, is_alive, start_of

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]


@pytest.mark.parametrize("bound_to_parent", [True, False])
def test_a_stopped_table_has_ended_everything_it_started(tmp_path: Path, bound_to_parent: bool) -> None:
    table = ProcessTable(tmp_path, bound_to_parent=bound_to_parent)
    table.start("one", SLEEP)
    table.start("two", SLEEP)
    records = table.records()
    assert [record.name for record in records] == ["one", "two"]
    assert all(is_alive(record) for record in records)
    table.stop()
    assert not any(is_alive(record) for record in records)
    assert table.records() == []


def test_a_later_table_of_the_same_folder_can_stop_what_the_first_one_started(tmp_path: Path) -> None:
    first = ProcessTable(tmp_path, bound_to_parent=False)
    first.start("one", SLEEP)
    (record,) = first.records()
    ProcessTable(tmp_path, bound_to_parent=False).stop()
    assert not is_alive(record)
    first.stop()


def test_a_process_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path, bound_to_parent=True)
    table.start("deaf", DEAF)
    (record,) = table.records()
    table.wait_until("deaf", lambda: "deaf" in Path(record.log).read_text(), what="The handler")
    table.stop(grace_s=0.1)
    assert not is_alive(record)


def test_a_process_that_took_over_the_id_is_left_alone(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path, bound_to_parent=True)
    table.start("bystander", SLEEP)
    (bystander,) = table.records()
    end_process(replace(bystander, started="another boot/1"), grace_s=1)
    assert is_alive(bystander)
    table.stop()


def test_one_that_was_ended_is_remembered_and_started_again_as_it_was(tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = f"import os, time; open({str(said)!r}, 'a').write(os.environ['WORD'] + ' '); time.sleep(600)"
    first = ProcessTable(tmp_path, bound_to_parent=False)
    first.start("one", SLEEP)
    first.start("speaker", [sys.executable, "-c", script], environment={"WORD": "hello"})
    first.wait_until("speaker", lambda: said.read_text() == "hello ", what="The first word")
    later = ProcessTable(tmp_path, bound_to_parent=False)
    later.end("speaker", grace_s=1)
    one, ended = later.records()
    assert (is_alive(one), is_alive(ended)) == (True, False)
    later.start_again("speaker")
    later.wait_until("speaker", lambda: said.read_text() == "hello hello ", what="The second word")
    _, again = later.records()
    later.start_again("speaker")
    assert later.records() == [one, again]  # it runs: nothing to do
    later.stop()
    assert not any(map(is_alive, (one, ended, again)))
    first.stop()


def test_a_process_that_was_never_started_cannot_be_ended(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="No process called speaker"):
        ProcessTable(tmp_path, bound_to_parent=False).end("speaker")


def test_stopping_one_leaves_the_others(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path, bound_to_parent=True)
    for name in ("proxy", "kube-proxy"):  # the one name ends with the other
        table.start(name, SLEEP)
    proxy, kube_proxy = table.records()
    table.stop_one("proxy")
    assert (is_alive(proxy), is_alive(kube_proxy)) == (False, True)
    table.stop()


def test_waiting_for_a_server_that_ended_says_what_it_said_last(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path, bound_to_parent=True)
    table.start("server", [sys.executable, "-c", "print('no such file: pki/ca.crt')"])
    with pytest.raises(ClusterError, match=r"server ended before it was ready.*\n.*no such file: pki/ca.crt"):
        table.wait_until("server", lambda: False, what="The server")
    table.stop()


def test_a_server_that_does_not_listen_yet_is_waited_for(tmp_path: Path) -> None:
    answers = iter([OSError("connection refused"), False, True])

    def ready() -> bool:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    table = ProcessTable(tmp_path, bound_to_parent=True)
    table.start("server", SLEEP)
    table.wait_until("server", ready, what="The server")
    assert next(answers, "all asked") == "all asked"
    table.stop()


def test_servers_bound_to_a_thread_that_ends_are_refused(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            ProcessTable(tmp_path, bound_to_parent=True).start("server", SLEEP)
        except ClusterError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


def test_a_zombie_counts_as_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has collected it
    assert start_of(child.pid) is None
    child.wait()
