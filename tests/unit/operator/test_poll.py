"""Whatever answers at a pod's address: a runner is heard, anything else is a number in a metric."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import aiohttp
import pytest
from prometheus_client import REGISTRY
from tests.builders.live_api import eventually
from tests.builders.observations import UID, at, pod, restoration, running

from restoration_api.outcome import Progress, Stage
from restoration_api.resources import VideoRestoration
from restoration_operator import poll
from restoration_operator.build.names import job_name
from restoration_operator.decide.types import NoProfile, PolledProgress
from restoration_operator.pace import Pace
from restoration_operator.poll import Poller
from restoration_operator.store import Store
from restoration_operator.views import PodView
from restoration_operator.workqueue import WorkQueue

NONE = NoProfile(reason="ProfileNotFound", message="")
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def said(**changes: Any) -> str:
    progress = Progress(execution=1, stage=Stage.RESTORING, frames_done=41, frames_total=100, updated_at=at(0))
    return json.dumps(json.loads(progress.to_json()) | changes)


def http(body: str | bytes, *, status: str = "200 OK", headers: str = "") -> list[bytes]:
    """One whole answer."""
    text = body.encode() if isinstance(body, str) else body
    return [f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n{headers}\r\n".encode() + text]


@asynccontextmanager
async def listening(pieces: list[bytes], *, pause: float = 0.01, endless: bool = False) -> AsyncIterator[int]:
    """Something that answers with these bytes, one after the other; yields its port."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
            while endless:
                writer.write(pieces[-1])
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Lab:
    """A poller, and what becomes of what it hears."""

    def __init__(self, *, worth: Callable[..., bool] = lambda *_: True, **rest: Any) -> None:
        self.store = Store(builtin_profile=lambda: NONE, complete=lambda spec: spec, wake=lambda uid: None)
        self.queue = WorkQueue()
        self.poller = Poller(self.store, self.queue, worth_telling=worth, **({"poll_seconds": 0.01} | rest))

    def runner(self, number: int = 1) -> PodView:
        """A running pod of a restoration of its own."""
        uid = UID[:-1] + str(number) if number < 10 else f"{number:08d}" + UID[8:]
        name = job_name("clip", uid, execution=1)
        known = restoration(uid=uid, status={"jobName": name})
        self.store.put_restoration(json.loads(known.model_dump_json(by_alias=True, exclude_none=True)))
        return replace(
            pod(running()),
            ip="127.0.0.1",
            uid=f"pod-{number}",
            name=f"pod-{number}",
            restoration_uid=uid,
            job_name=name,
        )

    async def ask(self, asked: PodView) -> None:
        """Ask one runner once, as the loop does."""
        self.poller.due([asked])
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=poll.TIMEOUT_SECONDS), auto_decompress=False
        ) as session:
            await self.poller._poll(session, asked)

    def heard(self, asked: PodView) -> PolledProgress | None:
        """What would be written."""
        return self.poller._waiting.get(asked.restoration_uid)


def polls(result: str) -> float:
    return REGISTRY.get_sample_value("vr_operator_progress_polls_total", {"result": result}) or 0.0


@pytest.mark.parametrize(
    "pieces",
    [http(said()), http(said(restorationUid=UID[:-1] + "1")), [*(bytes([byte]) for byte in http(said())[0])]],
    ids=["at once", "with its name", "byte by byte"],
)
async def test_a_runner_is_heard(pieces: list[bytes]) -> None:
    async with listening(pieces, pause=0.0) as port:
        lab = Lab(port=port)
        asked = lab.runner()
        await lab.ask(asked)
        told = lab.heard(asked)
        assert told is not None
        assert (told.pod_uid, told.progress.frames_done) == (asked.uid, 41)


LIES: dict[str, tuple[list[bytes], str]] = {
    "nothing": ([], "failed"),
    "no HTTP": ([b"SSH-2.0-OpenSSH_9.9\r\n"], "failed"),
    "an error": (http(said(), status="500 Internal Server Error"), "failed"),
    "elsewhere": (http("", status="302 Found", headers="Location: http://127.0.0.1:1/\r\n"), "failed"),
    "a page": (http("<html>hello</html>"), "failed"),
    "half an answer": ([http(said())[0][:-20]], "failed"),
    "compressed": (http(b"\x1f\x8b\x08\x00" + b"\0" * 500, headers="Content-Encoding: gzip\r\n"), "failed"),
    "a long line": (http(said(), headers=f"X-Long: {'x' * 100_000}\r\n"), "failed"),
    "another version": (http(said(schema=2)), "failed"),
    "an unknown field": (http(said(secret="x")), "failed"),
    "an unknown stage": (http(said(stage="Dreaming")), "failed"),
    "fewer than none": (http(said(framesDone=-1)), "failed"),
    "more than there can be": (http(said(framesDone=2**63)), "failed"),
    "no number": (http(said(framesDone="NaN")), "failed"),
    "a deep hole": (http("[" * 50_000), "failed"),
    "half a character": (http('{"gpu": "\\ud800"}'), "failed"),
    "another execution": (http(said(execution=2)), "foreign"),
    "another restoration": (http(said(restorationUid="somebody-else")), "foreign"),
}


@pytest.mark.parametrize(("pieces", "result"), LIES.values(), ids=LIES)
async def test_a_lie_is_counted_and_forgotten(pieces: list[bytes], result: str) -> None:
    before = polls(result)
    async with listening(pieces) as port:
        lab = Lab(port=port)
        asked = lab.runner()
        await lab.ask(asked)
        assert polls(result) == before + 1
        assert lab.heard(asked) is None
        assert len(lab.queue) == 0


@pytest.mark.parametrize(
    ("pieces", "endless"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000], True),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * 1000], True),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n"], False),
        ([b"HTTP/1.1 200 OK\r\nX: "], False),
        ([b"H", b"T", b"T", b"P", b"/", b"1", b".", b"1"] * 100, False),
    ],
    ids=["endless", "announced as endless", "a chunk and silence", "half a header", "drop by drop"],
)
async def test_nothing_waits_for_ever(pieces: list[bytes], endless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "TIMEOUT_SECONDS", 0.3)
    before = polls("failed")
    async with listening(pieces, endless=endless, pause=0.05) as port:
        lab = Lab(port=port)
        asked = lab.runner()
        await lab.ask(asked)
        assert polls("failed") == before + 1
        assert lab.heard(asked) is None


async def test_the_loop_goes_on_whatever_one_of_them_says() -> None:
    async with listening(http("[" * 50_000)) as port:
        lab = Lab(port=port)
        liar = lab.runner(1)
        lab.store._pods = {}
        lab.store.running_pods = lambda: [liar]  # type: ignore[method-assign]
        before = polls("failed")
        task = asyncio.create_task(lab.poller.run())

        async def asked_again() -> bool:
            return polls("failed") >= before + 2

        await eventually(asked_again, what="it is asked again")
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestFairness:
    def test_whoever_waits_longest_is_asked_first(self) -> None:
        clock = [0.0]
        lab = Lab(clock=lambda: clock[0], poll_seconds=5)
        pods = [lab.runner(number) for number in range(1, 30)]
        lab.poller.due(pods)
        clock[0] = 10.0
        for asked in pods:
            lab.poller._runners[asked.uid].due = float(hash(asked.uid) % 9)
        order = [lab.poller._runners[asked.uid].due for asked in lab.poller.due(pods)]
        assert len(order) == 29
        assert order == sorted(order)

    async def test_one_that_does_not_answer_is_asked_less_often(self) -> None:
        clock = [0.0]
        async with listening(http("no")) as port:
            lab = Lab(clock=lambda: clock[0], poll_seconds=5, port=port)
            asked = lab.runner()
            pauses = []
            for _ in range(6):
                await lab.ask(asked)
                pauses.append(lab.poller._runners[asked.uid].due - clock[0])
        wanted = [10, 20, 40, 60, 60, 60]
        assert all(0.9 * most <= pause <= 1.1 * most for pause, most in zip(pauses, wanted, strict=True))

    def test_what_is_gone_is_forgotten(self) -> None:
        lab = Lab()
        lab.poller.due([lab.runner(1), lab.runner(2)])
        lab.poller.due([lab.runner(2)])
        assert list(lab.poller._runners) == ["pod-2"]

    def test_answers_leave_in_order_and_the_newest_of_each(self) -> None:
        lab = Lab()
        pods = [lab.runner(number) for number in (1, 2, 3)]
        lab.poller.due(pods)
        for asked, frames in [(pods[0], 1), (pods[1], 2), (pods[0], 9), (pods[2], 3)]:
            lab.poller.heard(asked, Progress.from_json(said(framesDone=frames)))
        told = []
        for _ in pods:
            uid = next(iter(lab.poller._waiting))
            lab.poller.deliver_next()
            polled = lab.store.memory(uid).polled
            assert polled is not None
            told.append((polled.pod_uid, polled.progress.frames_done))
        assert told == [("pod-1", 9), ("pod-2", 2), ("pod-3", 3)]
        assert len(lab.queue) == 3

    def test_what_is_worth_nothing_is_not_put_in_line(self) -> None:
        def worth(seen: VideoRestoration, answer: PolledProgress, now: datetime) -> bool:
            return answer.progress.frames_done > 50

        lab = Lab(worth=worth)
        asked = lab.runner()
        lab.poller.due([asked])
        lab.poller.heard(asked, Progress.from_json(said(framesDone=50)))
        assert lab.heard(asked) is None
        lab.poller.heard(asked, Progress.from_json(said(framesDone=51)))
        assert lab.heard(asked) is not None

    def test_since_when_it_says_the_same(self) -> None:
        lab = Lab()
        asked = lab.runner()
        lab.poller.due([asked])
        lab.poller.heard(asked, Progress.from_json(said()))
        first = lab.poller._runners[asked.uid].said
        assert first is not None
        earlier = replace(first, unchanged_since=at(0))
        lab.poller._runners[asked.uid].said = earlier
        lab.poller.heard(asked, Progress.from_json(said()))
        assert lab.poller._runners[asked.uid].said == earlier
        lab.poller.heard(asked, Progress.from_json(said(updatedAt=at(60).isoformat())))
        later = lab.poller._runners[asked.uid].said
        assert later is not None
        assert later.unchanged_since > at(0)


def test_a_thousand_answers_at_once_are_twenty_writes_a_second() -> None:
    clock = [0.0]
    pace = Pace(per_second=20, clock=lambda: clock[0])
    moments = []
    for _ in range(1000):
        clock[0] += pace.claim()
        moments.append(clock[0])
    for begin in range(0, 980, 7):
        within = [moment for moment in moments if moments[begin] <= moment < moments[begin] + 1 - 1e-6]
        assert len(within) <= 20
    assert moments[-1] == pytest.approx(999 / 20)


def test_only_pods_of_the_job_that_is_meant_are_asked() -> None:
    """Labels are anybody's: a pod in another namespace, or of an older Job, has nothing to say."""
    lab = Lab()
    mine = lab.runner()
    for stranger in (replace(mine, uid="s1", namespace="elsewhere"), replace(mine, uid="s2", job_name="another")):
        assert not lab.store._is_current(stranger)
    assert lab.store._is_current(mine)
