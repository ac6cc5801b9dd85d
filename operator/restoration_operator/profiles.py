"""Judges profiles: renders a Job from each, lets the API server try it without creating it, and writes `Ready`.

Nothing waits for it: a restoration is admitted by its own rules, and a profile that nobody could judge (no rights to
create Jobs in the operator's namespace) simply has no status.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from pydantic import ValidationError

from restoration_api.resources import ClusterRestorationProfile, ProfileSpec, RestorationProfile
from restoration_operator.clock import utc_now
from restoration_operator.cluster import ApiError, Cluster, UnreachableError
from restoration_operator.decide.profile_check import ready, sample_job
from restoration_operator.decide.types import Profile

RETRY_SECONDS: Final = 30.0

log = structlog.get_logger()


class UnjudgedError(Exception):
    """Rights, quota or policies of the operator's own namespace refuse the trial, which says nothing of the profile."""


class ProfileChecker:
    """One profile after the other; the newest state of each counts."""

    def __init__(self, cluster: Cluster, complete: Callable[[ProfileSpec], ProfileSpec], *, namespace: str) -> None:
        self._cluster = cluster
        self._complete = complete
        self._namespace = namespace
        self._pending: dict[str, dict[str, Any]] = {}
        self._judged: dict[str, int] = {}
        """Generation by uid that this process has judged."""
        self._added = asyncio.Event()

    def add(self, body: dict[str, Any]) -> None:
        """A profile exists or has changed."""
        meta = body["metadata"]
        if self._judged.get(meta["uid"]) != meta["generation"]:
            self._pending[meta["uid"]] = body
            self._added.set()

    async def run(self) -> None:
        """Judge until cancelled."""
        while True:
            await self._added.wait()
            self._added.clear()
            while self._pending:
                uid, body = next(iter(self._pending.items()))
                del self._pending[uid]
                try:
                    await self._judge(body)
                except (ApiError, UnreachableError) as error:
                    log.warning("profile not judged", name=body["metadata"]["name"], error=str(error))
                    self._judged.pop(uid, None)
                    self._pending.setdefault(uid, body)
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception:
                    # A defect here must not end the process: restorations do not depend on it.
                    log.exception("profile not judged", name=body["metadata"]["name"])

    async def _judge(self, body: dict[str, Any]) -> None:
        model = RestorationProfile if body["kind"] == "RestorationProfile" else ClusterRestorationProfile
        try:
            profile = model.model_validate(body)
        except ValidationError:
            return  # the watch has said so
        meta = profile.metadata
        spec = self._complete(profile.spec)
        manifest = sample_job(
            Profile(kind=profile.kind, name=meta.name, generation=meta.generation, spec=spec), self._namespace
        )
        self._judged[meta.uid] = meta.generation
        try:
            problem = manifest if isinstance(manifest, str) else await self._try(manifest)
        except UnjudgedError as error:
            log.info("profile cannot be judged", name=meta.name, reason=str(error))
            return
        status = ready(profile.status, meta.generation, problem, utc_now())
        if status != profile.status:
            # A conflict means that it has changed: the watch brings it again.
            await self._cluster.apply_profile_status(profile, status.to_json())

    async def _try(self, manifest: dict[str, Any]) -> str | None:
        try:
            await self._cluster.try_job(manifest)
        except ApiError as error:
            if error.status in (400, 422):
                return error.message
            if error.rejected:
                raise UnjudgedError(error.message) from error
            raise
        return None
