"""The raw write ceiling: the operator's own writes through the operator's own client, with nothing else around them.

No watch, no queue, no decision: what one restoration needs is worked out once, by the operator's own code, and then
repeated for every restoration with its name and uid put in. So the ceiling follows the operator: a write more or less
there is one more or less here.

    python -m benchmarks.operator.ceiling IN_FLIGHT < restorations

reads one VideoRestoration a line, waits for the line `go`, writes, and prints what it used as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, cast

from tests.builders.operator_process import BUILTIN_PROFILE
from tests.builders.resources import make_vr

from restoration_api.resources import ProfileSpec, VideoRestoration
from restoration_operator.clock import utc_now
from restoration_operator.cluster import Cluster, Created, Stored
from restoration_operator.connection import connect, runner
from restoration_operator.decide.types import Profile
from restoration_operator.logs import configure_logging
from restoration_operator.reconcile import Reconciler
from restoration_operator.store import Store

Json = dict[str, Any]
NAME: Final = "clip-99999"
"""As long as the names of the load, and unlike them."""


@dataclass(frozen=True)
class Write:
    """One call of `Cluster`; its body as text, with the sample's name and uid in it."""

    method: str
    body: str


class Recorder:
    """Stands in for `Cluster`: says yes to every write and remembers it. Nothing else exists, and nothing waits."""

    def __init__(self, restoration: Json) -> None:
        self.recorded: list[Write] = []
        self._restoration = restoration
        self._version = 1

    async def apply_status(self, restoration: VideoRestoration, status: Json) -> Json | Stored:
        """`Cluster.apply_status`."""
        self.recorded.append(Write("apply_status", json.dumps(status)))
        self._version += 1
        meta = {**self._restoration["metadata"], "resourceVersion": str(self._version)}
        return {**self._restoration, "metadata": meta, "status": status}

    async def create_config_map(self, manifest: Json) -> Created:
        """`Cluster.create_config_map`."""
        return self._create("create_config_map", manifest)

    async def create_job(self, manifest: Json) -> Created:
        """`Cluster.create_job`."""
        return self._create("create_job", manifest)

    def _create(self, method: str, manifest: Json) -> Created:
        self.recorded.append(Write(method, json.dumps(manifest)))
        made = {
            "uid": str(uuid.uuid4()),
            "resourceVersion": "1",
            "creationTimestamp": f"{utc_now():%Y-%m-%dT%H:%M:%SZ}",
        }
        return Created({**manifest, "metadata": {**manifest["metadata"], **made}}, existed=False)


def recorded_writes(namespace: str) -> tuple[str, list[Write]]:
    """What the operator writes for a new restoration until it has its Job; and the uid that stands in the texts."""
    uid = str(uuid.uuid4())
    body = make_vr(name=NAME, namespace=namespace)
    body["metadata"] |= {"uid": uid, "generation": 1, "resourceVersion": "1", "creationTimestamp": _now()}
    cluster = Recorder(body)
    profile = Profile(
        kind="Builtin",
        name="default",
        generation=None,
        spec=ProfileSpec.model_validate({"image": "runner:1", **BUILTIN_PROFILE}),
    )
    store = Store(builtin_profile=lambda: profile, complete=lambda spec: spec, wake=lambda uid: None)
    store.put_restoration(body)
    _drive(Reconciler(store, cast(Cluster, cluster)).reconcile(uid))
    return uid, cluster.recorded


def _now() -> str:
    return f"{utc_now():%Y-%m-%dT%H:%M:%SZ}"


def _drive(work: Coroutine[Any, Any, Any]) -> None:
    """Run to the end a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("the recorder made somebody wait")


class Replay:
    """Makes the recorded writes for real restorations."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._uid, self._writes = recorded_writes(namespace)

    @property
    def writes_each(self) -> int:
        """Writes for one restoration."""
        return len(self._writes)

    async def one(self, restoration: VideoRestoration) -> None:
        """All writes for one restoration, one after another as they depend on each other."""
        meta = restoration.metadata
        for write in self._writes:
            text = write.body.replace(self._uid, meta.uid)
            text = text.replace(self._uid[-8:], meta.uid[-8:]).replace(NAME, meta.name)
            body: Json = json.loads(text)
            if write.method == "apply_status":
                stored = await self._cluster.apply_status(restoration, body)
                if isinstance(stored, Stored):
                    raise RuntimeError(f"{meta.name}: {stored.value}")
                version = stored["metadata"]["resourceVersion"]
                fresh = restoration.metadata.model_copy(update={"resource_version": version})
                restoration = restoration.model_copy(update={"metadata": fresh})
            elif write.method == "create_config_map":
                await self._cluster.create_config_map(body)
            else:
                await self._cluster.create_job(body)


async def replay(restorations: list[VideoRestoration], in_flight: int) -> Json:
    """Make all writes; returns what it took."""
    api = await connect()
    try:
        namespace = restorations[0].metadata.namespace or ""
        work = Replay(Cluster(api), namespace)
        waiting = iter(restorations)

        async def worker() -> None:
            for restoration in waiting:
                await work.one(restoration)

        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        cpu, began = time.process_time(), time.monotonic()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        took = time.monotonic() - began
        return {"seconds": took, "cpu_s": time.process_time() - cpu, "writes": work.writes_each * len(restorations)}
    finally:
        await api.close()


def main() -> None:
    """The process."""
    configure_logging(form="json", level="ERROR")  # the answer on standard output is for a program
    restorations = []
    while (line := sys.stdin.readline().strip()) != "prepared":
        restorations.append(VideoRestoration.model_validate_json(line))
    with runner() as loop:
        print(json.dumps(loop.run(replay(restorations, int(sys.argv[1])))), flush=True)


if __name__ == "__main__":
    main()
