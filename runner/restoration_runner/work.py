"""The work prefix: what is written there, in which order, and who wins when two write the same.

The order is the protocol. An object comes before the marker that names it, so a segment counts only when both are
there and agree. `plan.json` and markers are written with "only if absent": the first one wins, and whoever comes second
takes what is there. A process may be killed between any two requests, and a later one goes on from what it finds.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from restoration_api.ledger import (
    Manifest,
    Marker,
    Plan,
    Segment,
    manifest_key,
    marker_key,
    plan_key,
    segment_key,
)
from restoration_api.outcome import FailureReason, StreamOutcome, Timings, Verification
from restoration_runner.errors import RestorationError
from restoration_runner.storage.store import (
    Absent,
    ObjectInfo,
    ObjectMissingError,
    PreconditionError,
    Store,
    TooLongError,
    Unchanged,
    When,
    read_whole,
)

if TYPE_CHECKING:
    from restoration_runner.restoration.pipeline import Made

log = structlog.get_logger()

MOST_MARKER_BYTES = 1 << 20
_WORK_NAME = re.compile("[0-9a-f]{16}-[0-9a-f]{8}")
TRIES = 5
"""Of a write that meets another writer: each try sees what the other one left, so more than two mean a fight."""


@dataclass(frozen=True)
class Maker:
    """Who makes segments: goes into the markers."""

    execution: int
    environment: dict[str, str]
    fingerprint: str


class Work:
    """One work prefix in one store."""

    def __init__(self, store: Store, prefix: str, *, believes: Callable[[Plan], bool] = lambda plan: True) -> None:
        """believes: whether a plan that lies there is one to work by. Whoever may write to the bucket may write one."""
        self._store = store
        self.prefix = prefix
        self._believes = believes

    @property
    def name(self) -> str:
        """Of the prefix's last folder: tells whose work an output is."""
        return self.prefix.rstrip("/").rpartition("/")[2]

    def sibling(self, name: str) -> Work:
        """Another work for outputs in the same folder; ourselves for a name that no work has. It comes from an object's
        metadata, which may say anything."""
        if not _WORK_NAME.fullmatch(name):
            return self
        return Work(self._store, f"{self.prefix.rstrip('/').rpartition('/')[0]}/{name}/")

    def manifest_uri(self) -> str:
        return self._store.uri(manifest_key(self.prefix))

    # plan.json

    def read_plan(self, cache_key: str) -> Plan | None:
        """The plan that is there, if it is one of ours: another schema or another key counts as absent."""
        return self._plan(cache_key)[0]

    def publish_plan(self, plan: Plan) -> Plan:
        """Write the plan, or take the one that somebody else wrote first."""
        for _ in range(TRIES):
            theirs, when = self._plan(plan.cache_key)
            if theirs is not None:
                return theirs
            try:
                self._store.put(plan_key(self.prefix), plan.to_json().encode(), when=when)
            except PreconditionError:
                continue
            return plan
        raise self._fight(plan_key(self.prefix))

    def _plan(self, cache_key: str) -> tuple[Plan | None, When]:
        """The plan, and the condition for replacing what is there."""
        key = plan_key(self.prefix)
        info = self._store.head(key)
        if info is None:
            return None, Absent()
        try:
            plan = Plan.from_json(read_whole(self._store, key, if_match=info.etag))
        except (ObjectMissingError, PreconditionError):
            return None, Absent()
        except (ValidationError, TooLongError):
            log.warning("a plan of another schema is replaced", object=self._store.uri(key))
            return None, Unchanged(info.etag)
        if plan.cache_key != cache_key:
            return None, Unchanged(info.etag)
        if not self._believes(plan):
            log.warning("a plan that does not follow from its own facts is replaced", object=self._store.uri(key))
            return None, Unchanged(info.etag)
        return plan, Absent()

    # segments and markers

    def markers(self, plan: Plan) -> dict[int, Marker]:
        """Finished segments: those whose marker and object are both there and agree."""
        folder = f"{self.prefix}seg/"
        objects = {item.key: item for item in self._store.list_objects(folder)}
        found: dict[int, Marker] = {}
        for segment in plan.segments:
            key = marker_key(self.prefix, segment.index)
            if key in objects:
                marker, _ = self._read_marker(plan, segment, objects[key])
                if marker is not None and _agrees(marker, objects.get(marker.object_key)):
                    found[segment.index] = marker
        return found

    def finished(self, plan: Plan, segment: Segment) -> Marker | None:
        """The marker of one segment, if it is finished by now."""
        marker, _ = self._marker(plan, segment)
        if marker is not None and _agrees(marker, self._store.head(marker.object_key)):
            return marker
        return None

    def commit(self, plan: Plan, made: Made, maker: Maker) -> Marker:
        """Object first, then its marker. Returns the marker that counts, which may be somebody else's."""
        mine = self._put_segment(plan, made, maker)
        for _ in range(TRIES):
            theirs, when = self._marker(plan, made.segment)
            if theirs is not None and _agrees(theirs, self._store.head(theirs.object_key)):
                if theirs.object_key != mine.object_key:
                    self._store.delete(mine.object_key, if_match=mine.etag)
                return theirs
            try:
                self._store.put(marker_key(self.prefix, made.segment.index), mine.to_json().encode(), when=when)
            except PreconditionError:
                continue
            return mine
        raise self._fight(marker_key(self.prefix, made.segment.index))

    def _put_segment(self, plan: Plan, made: Made, maker: Maker) -> Marker:
        key = segment_key(self.prefix, made.segment.index, made.written.sha256)
        try:
            info = self._store.upload(key, made.path, when=Absent())
        except PreconditionError:
            # The name holds the content's hash: it is what an interrupted try, or a peer with equal bytes, left there.
            there = self._same_content(key, made)
            info = there if there is not None else self._store.upload(key, made.path)
        return Marker(
            segment=made.segment.index,
            cache_key=plan.cache_key,
            object_key=key,
            etag=info.etag,
            size_bytes=made.written.size_bytes,
            frames=made.written.frames,
            sha256=made.written.sha256,
            frames_sha256=made.written.frames_sha256,
            fingerprint=maker.fingerprint,
            environment=maker.environment,
            execution=maker.execution,
            timings=Timings(
                decode_milliseconds=made.decode_milliseconds,
                inference_milliseconds=made.inference_milliseconds,
                encode_milliseconds=made.encode_milliseconds,
            ),
            peak_gpu_memory_bytes=made.peak_gpu_memory_bytes,
            non_finite_values=made.non_finite_values,
        )

    def _same_content(self, key: str, made: Made) -> ObjectInfo | None:
        """The object that is there, if it holds what its name says: eight digits are a name, not a proof."""
        info = self._store.head(key)
        if info is None or info.size_bytes != made.written.size_bytes:
            return None
        digest = hashlib.sha256()
        try:
            for piece in self._store.stream(key, if_match=info.etag):
                digest.update(piece)
        except (ObjectMissingError, PreconditionError):
            return None
        return info if digest.hexdigest() == made.written.sha256 else None

    def _marker(self, plan: Plan, segment: Segment) -> tuple[Marker | None, When]:
        """The marker that is there, if it is of this plan, and the condition for replacing what is there."""
        info = self._store.head(marker_key(self.prefix, segment.index))
        return (None, Absent()) if info is None else self._read_marker(plan, segment, info)

    def _read_marker(self, plan: Plan, segment: Segment, info: ObjectInfo) -> tuple[Marker | None, When]:
        key, replace = marker_key(self.prefix, segment.index), Unchanged(info.etag)
        try:
            content = read_whole(self._store, key, if_match=info.etag, most_bytes=MOST_MARKER_BYTES)
            marker = Marker.from_json(content)
        except (ObjectMissingError, PreconditionError):
            return None, Absent()
        except (ValidationError, TooLongError):
            return None, replace
        if (marker.cache_key, marker.segment, marker.frames) != (plan.cache_key, segment.index, segment.frames):
            return None, replace
        if marker.object_key != segment_key(self.prefix, segment.index, marker.sha256):
            return None, replace  # an object of some other place, which is not ours to join or to remove
        return marker, replace

    def fetch(self, marker: Marker, folder: Path) -> Path:
        """The segment's file, exactly the one that the marker names.

        Bytes that are not those of the marker any more (a bad disk keeps size and times) are removed, so that the
        segment is made again instead of failing every verification to come.

        Raises:
            ObjectMissingError, PreconditionError: it is no longer there, or another one.
        """
        here = self._store.local_path(marker.object_key)
        path = here or folder / f"segment-{marker.segment:05d}.mkv"
        digest = hashlib.sha256()
        with contextlib.nullcontext() if here else path.open("wb") as copy:
            for piece in self._store.stream(marker.object_key, if_match=marker.etag):
                digest.update(piece)
                if copy is not None:
                    copy.write(piece)
        if digest.hexdigest() != marker.sha256:
            self._store.delete(marker.object_key, if_match=marker.etag)
            name = self._store.describe(marker.object_key)
            raise ObjectMissingError(f"{name} does not hold the bytes that its marker names; it was removed")
        return path

    # final.json

    def read_manifest(self) -> Manifest | None:
        try:
            return Manifest.from_json(read_whole(self._store, manifest_key(self.prefix)))
        except (ObjectMissingError, ValidationError, TooLongError):
            return None

    def publish_manifest(
        self,
        plan: Plan,
        *,
        output_uri: str,
        output: ObjectInfo,
        sha256: str,
        verification: Verification,
        streams: tuple[StreamOutcome, ...],
        markers: dict[int, Marker],
        timings: Timings,
    ) -> Manifest:
        """Write `final.json`: the proof of what lies at the output now, hence without a condition."""
        manifest = Manifest(
            cache_key=plan.cache_key,
            output_uri=output_uri,
            etag=output.etag,
            version_id=output.version_id,
            size_bytes=output.size_bytes,
            sha256=sha256,
            verification=verification,
            streams=streams,
            markers=tuple(markers[index] for index in sorted(markers)),
            plan=plan,
            timings=timings,
            finished_at=datetime.now(UTC),
        )
        for _ in range(TRIES):
            try:
                self._store.put(manifest_key(self.prefix), manifest.to_json().encode())
            except PreconditionError:  # a peer that has finished cleared up while this was being written
                continue
            return manifest
        raise self._fight(manifest_key(self.prefix))

    def clear(self) -> None:
        """Remove what only unfinished work needs; `final.json` keeps the plan. Markers go before their objects."""
        found = sorted(self._store.list_objects(f"{self.prefix}seg/"), key=lambda item: not item.key.endswith(".json"))
        for item in found:
            self._store.delete(item.key)
        self._store.delete(plan_key(self.prefix))
        self.abort_uploads()

    def abort_uploads(self) -> None:
        """Give up what killed predecessors began to send in parts: invisible, but paid for."""
        try:
            self._store.abort_uploads(self.prefix, older_than=timedelta(0))
        except RestorationError as error:
            log.info("unfinished uploads cannot be listed or given up", cause=error.message)

    def _fight(self, key: str) -> RestorationError:
        return RestorationError(
            FailureReason.STORAGE_ERROR,
            f"{self._store.uri(key)} was rewritten {TRIES} times by somebody else meanwhile: is another restoration "
            "writing to the same output?",
        )


def _agrees(marker: Marker, found: ObjectInfo | None) -> bool:
    return found is not None and (found.etag, found.size_bytes) == (marker.etag, marker.size_bytes)
