"""Leadership: of several replicas one writes, the others follow with a warm store and write nothing.

A `coordination.k8s.io/v1` Lease says whose turn it is. Three properties make it a fence and not a hint:

* No clock is compared with another. A replica that waits measures, with its own clock, how long the lease has not
  changed (as client-go does); times inside the lease are for people. Only the *rate* of clocks has to agree, within
  the ratio of `duration` to `deadline`.
* The holder counts from the moment at which it *sent* its last successful renewal, everybody else from the moment at
  which they saw it. So the holder's time is over first, whatever happened to the messages.
* Before each write the holder compares its clock with that. It may have been frozen in the meantime (SIGSTOP, a paused
  virtual machine, a blocked event loop), so nothing but ending the process is safe: whatever else it had begun would
  go on. The clock counts time in which the machine was suspended.

What stays open, as with every lease: one request that had left the process before it froze.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, Protocol

import structlog

from restoration_operator import metrics
from restoration_operator.clock import boot_seconds
from restoration_operator.cluster import ApiError, UnreachableError

Json = dict[str, Any]

SLACK: Final = 1.2
"""A renewal must be tried at least this often within the deadline, or one slow answer ends a healthy leader."""

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long a lease lasts; see `settings` for the reasons of the numbers."""

    duration_seconds: int = 15
    """Others wait so long after the last renewal that they saw."""
    deadline_seconds: float = 10
    """The holder stops writing so long after the last renewal that succeeded."""
    retry_seconds: float = 2
    """Time between renewals, and twice the time between looks of those that wait."""

    def __post_init__(self) -> None:
        if not self.retry_seconds * SLACK < self.deadline_seconds < self.duration_seconds:
            raise ValueError(
                f"a lease needs retry x {SLACK} < renew deadline < duration, not "
                f"{self.retry_seconds:g} s, {self.deadline_seconds:g} s, {self.duration_seconds} s"
            )


class Leases(Protocol):
    """What is needed of the API; `Cluster` has it."""

    async def lease(self, namespace: str, name: str) -> Json | None:
        """Read one; None if there is none."""

    async def create_lease(self, body: Json) -> Json:
        """Create one; ApiError 409 if there is one."""

    async def replace_lease(self, body: Json) -> Json:
        """Replace the one of this resource version; ApiError 409 if it has changed, 404 if it is gone."""


class Leadership:
    """One replica's part in it: `acquire`, then `keep` beside the work, then `release`."""

    def __init__(
        self,
        leases: Leases,
        *,
        namespace: str,
        name: str,
        identity: str,
        timing: Timing,
        clock: Callable[[], float] = boot_seconds,
        die: Callable[[str], None] | None = None,
    ) -> None:
        """`identity` must be this process's alone, or that of a predecessor which is certainly dead: a container that
        is restarted in its pod gets its lease back at once."""
        self._leases = leases
        self._place = {"name": name, "namespace": namespace}
        self._identity = identity
        self._timing = timing
        self._clock = clock
        self._die: Callable[[str], None] = die or _die
        self._seen: Json = {}
        self._seen_at = 0.0
        self._version: str | None = None
        self._claims: list[Json] = []
        """What this process has sent since its last answer: one of them may be what is stored."""
        self._renewed_at: float | None = None

    @property
    def leads(self) -> bool:
        """Whether this process may write at this moment."""
        return self._left_seconds() > 0

    def fence(self) -> None:
        """To be called before every write; does not return if this process must not write."""
        if not self.leads:
            self._die("the lease was not renewed in time, another replica may be at work")

    async def acquire(self) -> None:
        """Wait until this process leads; meanwhile it only looks."""
        while self._renewed_at is None:
            try:
                pause = await self._try_to_acquire()
            except (ApiError, UnreachableError) as error:
                log.warning("no lease yet", lease=self._place["name"], error=str(error))
                pause = self._timing.retry_seconds
            if self._renewed_at is None:
                await asyncio.sleep(min(pause, self._timing.retry_seconds / 2))
        metrics.LEADER.labels(self._place["name"]).set(1)
        log.info("leading", lease=self._place["name"], identity=self._identity)

    async def keep(self) -> NoReturn:
        """Renew until cancelled. Where that fails for too long, the process ends."""
        while True:
            await asyncio.sleep(max(0.0, min(self._timing.retry_seconds, self._left_seconds())))
            self.fence()
            try:
                # Half the deadline, so that an answer that never comes leaves time for another try.
                async with asyncio.timeout(min(self._left_seconds(), self._timing.deadline_seconds / 2)):
                    await self._renew()
            except (ApiError, UnreachableError, TimeoutError) as error:
                left = round(self._left_seconds(), 1)
                log.warning("lease not renewed", lease=self._place["name"], error=repr(error), left_seconds=left)

    async def release(self) -> None:
        """Give the lease up, so that another replica takes it at once. Nothing of this process may write any more."""
        if not self.leads:
            return
        given_up = {**self._next_claim(), "holderIdentity": "", "leaseDurationSeconds": 1}
        metrics.LEADER.labels(self._place["name"]).set(0)
        try:
            for _ in range(2):  # the last renewal may still be on its way
                if await self._replace(given_up):
                    self._renewed_at = None
                    log.info("lease released", lease=self._place["name"])
                    return
        except (ApiError, UnreachableError) as error:
            log.warning("lease not released, it runs out", lease=self._place["name"], error=str(error))

    # How.

    async def _try_to_acquire(self) -> float:
        """One look, and the attempt if it is free; returns the seconds until it may be."""
        found = await self._leases.lease(self._place["namespace"], self._place["name"])
        if found is not None:
            record = _record(found)
            if record != self._seen:
                self._seen, self._seen_at = record, self._clock()
        # One that a stranger has deleted runs out first: its holder may not have noticed yet.
        pause = self._held_seconds()
        if pause > 0:
            return pause
        began = self._clock()
        claim = self._claim(transitions=self._seen["leaseTransitions"] + 1 if self._seen else 0)
        try:
            if found is None:
                stored = await self._leases.create_lease(self._body(claim, None))
            else:
                stored = await self._leases.replace_lease(self._body(claim, found["metadata"]["resourceVersion"]))
        except ApiError as error:
            if error.status in (404, 409):  # another was quicker
                return self._timing.retry_seconds
            raise
        self._renewed(stored, claim, began)
        return 0

    async def _renew(self) -> None:
        began = self._clock()
        claim = self._next_claim()
        self._claims.append(claim)
        stored = await self._replace(claim)
        if stored is not None:
            self._renewed(stored, claim, began)

    async def _replace(self, claim: Json) -> Json | None:
        """Store it over the last one; None where that is not the last one, which then was looked at."""
        try:
            if self._version is None:
                return await self._leases.create_lease(self._body(claim, None))
            return await self._leases.replace_lease(self._body(claim, self._version))
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        await self._look_again()
        return None

    async def _look_again(self) -> None:
        """What is stored is not what the last answer said: an answer was lost, or the lease is."""
        found = await self._leases.lease(self._place["namespace"], self._place["name"])
        if found is None:
            self._version = None  # deleted by a stranger; whoever has seen it waits, so it can be made again
        elif _record(found) in self._claims:
            self._version = found["metadata"]["resourceVersion"]
        else:
            holder = _record(found)["holderIdentity"] or "nobody"
            self._die(f"the lease was taken away; it is held by {holder}")

    def _renewed(self, stored: Json, claim: Json, began: float) -> None:
        self._seen = _record(stored)
        self._version = stored["metadata"]["resourceVersion"]
        self._claims = [claim]
        self._renewed_at = began

    def _left_seconds(self) -> float:
        if self._renewed_at is None:
            return 0.0
        return self._renewed_at + self._timing.deadline_seconds - self._clock()

    def _held_seconds(self) -> float:
        """How long the lease, as it was seen last, still binds this replica."""
        if self._seen.get("holderIdentity") in (None, "", self._identity):
            return 0.0
        # The holder's own promise: replicas may be configured differently while a rollout lasts.
        duration = self._seen.get("leaseDurationSeconds") or self._timing.duration_seconds
        return self._seen_at + float(duration) - self._clock()

    def _next_claim(self) -> Json:
        return self._claim(acquired=self._seen["acquireTime"], transitions=self._seen["leaseTransitions"])

    def _claim(self, *, acquired: str | None = None, transitions: int = 0) -> Json:
        now = _now()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._timing.duration_seconds,
            "acquireTime": acquired or now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _body(self, spec: Json, version: str | None) -> Json:
        metadata = {**self._place, **({"resourceVersion": version} if version else {})}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _record(lease: Json) -> Json:
    """What of a stored lease changes with a renewal."""
    spec = lease.get("spec") or {}
    record = {key: spec.get(key) for key in ("holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime")}
    return {**record, "leaseTransitions": spec.get("leaseTransitions") or 0}


def _now() -> str:
    """A `MicroTime`; only people read it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _die(why: str) -> NoReturn:
    log.critical("ending at once: this process must not write", reason=why)
    sys.stderr.flush()
    os._exit(1)
