"""Progress counts frames; rate and remaining time follow from them and the clock alone."""

import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from restoration_api.outcome import Outcome, Progress, Result, Stage
from restoration_runner.progress import ProgressTracker
from restoration_runner.report import ProgressCollector, ProgressServer, serving, termination_log, write_outcome


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_remaining_time_count_this_executions_frames_only() -> None:
    clock = FakeClock()
    tracker = ProgressTracker(execution=2, clock=clock)
    tracker.planned(frames=100, segments=4)
    tracker.found_finished(0, frames=40)
    tracker.found_finished(0, frames=40)  # seen again in a second round
    assert tracker.snapshot().milli_frames_per_second is None
    clock.now += 50  # loading a model is not restoring
    tracker.enter(Stage.RESTORING)
    assert tracker.snapshot().remaining_milliseconds is None
    clock.now += 4
    for number in (1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10):  # the first three once more, leaner
        tracker.restored_frame(1, number)
    tracker.finished_segment(1)
    now = tracker.snapshot()
    assert (now.frames_done, now.frames_total, now.segments_done, now.segments_total) == (50, 100, 2, 4)
    assert (now.milli_frames_per_second, now.remaining_milliseconds) == (2500, 20_000)
    assert (now.execution, now.stage) == (2, Stage.RESTORING)
    tracker.enter(Stage.ASSEMBLING)
    assert tracker.snapshot().milli_frames_per_second is None


def exported(tracker: ProgressTracker) -> dict[str, float]:
    """What Prometheus would read, by name and label."""
    return {
        sample.name + "".join(f"/{label}" for label in sample.labels.values()): sample.value
        for family in ProgressCollector(tracker).collect()
        for sample in family.samples
    }


def test_time_in_stages_adds_up_whatever_order_they_come_in() -> None:
    clock = FakeClock()
    tracker = ProgressTracker(clock=clock)
    for stage, seconds in ((Stage.FETCHING, 3), (Stage.RESTORING, 5), (Stage.LOADING_MODEL, 2), (Stage.RESTORING, 7)):
        tracker.enter(stage)
        clock.now += seconds
    spent = tracker.stage_seconds()
    assert (spent[Stage.FETCHING], spent[Stage.LOADING_MODEL], spent[Stage.RESTORING]) == (3, 2, 12)
    assert sum(spent.values()) == 17
    assert exported(tracker)["vr_runner_stage_seconds_total/Restoring"] == 12


def test_what_is_unknown_is_not_exported_as_zero() -> None:
    tracker = ProgressTracker()
    unknown = {"vr_runner_video_frames", "vr_runner_video_segments", "vr_runner_video_seconds"}
    assert not unknown & set(exported(tracker))
    tracker.planned(frames=100, segments=4, video_seconds=4.0)
    tracker.found_finished(0, frames=40)
    tracker.restored_frame(1, 1)
    values = exported(tracker)
    assert [values[name] for name in sorted(unknown)] == [100, 4.0, 4]
    assert (values["vr_runner_frames_done"], values["vr_runner_restored_frames_total"]) == (41, 1)


def test_done_never_exceeds_total() -> None:
    """Two runners may both compute a segment; nobody is shown 103 %."""
    tracker = ProgressTracker()
    tracker.planned(frames=2, segments=1)
    tracker.enter(Stage.RESTORING)
    for number in range(5):
        tracker.restored_frame(0, number + 1)
    assert tracker.snapshot().frames_done == 2


@pytest.fixture
def tracker() -> ProgressTracker:
    tracker = ProgressTracker()
    tracker.planned(frames=7, segments=2)
    return tracker


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_three_endpoints(tracker: ProgressTracker) -> None:
    with serving(tracker, port=0) as port:
        assert port is not None
        assert get(port, "/healthz") == (200, "ok\n")
        status, text = get(port, "/progress?x=1")
        assert status == 200
        assert Progress.from_json(text).frames_total == 7
        assert json.loads(text)["schema"] == 1
        status, text = get(port, "/metrics")
        assert status == 200
        assert "vr_runner_video_frames 7.0" in text
        assert 'vr_runner_stage{stage="Fetching"} 1.0' in text
        assert get(port, "/other")[0] == 404


def test_who_asks_and_hangs_up_leaves_no_traceback(tracker: ProgressTracker, capfd: pytest.CaptureFixture[str]) -> None:
    """The end of a killed runner's log is what the user is shown."""
    reset = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: close() sends RST
    others = set(threading.enumerate())
    with serving(tracker, port=0) as port:
        assert port is not None
        for question in (b"", b"GET /metrics HTTP/1.1\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as asking:
                asking.sendall(question)
                asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        assert get(port, "/healthz") == (200, "ok\n")
        for thread in set(threading.enumerate()) - others:  # the ones that served those questions, and the server
            if "process_request" in thread.name:
                thread.join(10)
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


def test_a_port_that_is_taken_does_not_fail_the_work(tracker: ProgressTracker) -> None:
    first = ProgressServer(tracker, port=0)
    try:
        with serving(tracker, port=first.port) as port:
            assert port is None
    finally:
        first.start()
        first.close()


def test_the_termination_message_fits_and_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    monkeypatch.setenv("VR_TERMINATION_LOG", str(path))
    assert termination_log(None) == path
    assert termination_log(tmp_path / "other") == tmp_path / "other"
    write_outcome(Outcome(result=Result.FAILED, reason="Unknown", message="ö" * 1024), path)
    assert len(path.read_bytes()) <= 4096
    assert Outcome.from_json(path.read_bytes()).reason == "Unknown"
    write_outcome(Outcome(result=Result.FAILED, reason="Unknown", message=""), tmp_path / "no" / "folder")
