"""How large an image is, layer by layer, and what of it is ours rather than the base's."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hack.cluster.images import FILES_DATE

_OURS = datetime.datetime.fromtimestamp(FILES_DATE, tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
"""When every step of our Dockerfiles says that it was run; those of a base image have other dates."""
_MIB = 1024 * 1024
_WIDTH = 60


@dataclass(frozen=True)
class Layer:
    """One layer as a tar: its digest and size uncompressed, and the instruction of ours that made it, if any did."""

    digest: str
    size_bytes: int
    made_by: str | None


def layers(described: Mapping[str, Any]) -> list[Layer]:
    """The layers of an image as `Builder.describe` returned it, the base's first."""
    steps = [step for step in described["OCIv1"]["history"] if not step.get("empty_layer")]
    stored = described["Manifest"]["layers"]
    if len(steps) != len(stored):
        raise ValueError(f"the image has {len(stored)} layers, and its history tells of {len(steps)}")
    return [
        Layer(layer["digest"], layer["size"], _instruction(step) if step.get("created") == _OURS else None)
        for layer, step in zip(stored, steps, strict=True)
    ]


def table(name: str, found: Sequence[Layer]) -> str:
    """A row for each layer, then the sum, and what it is beside the base alone."""
    rows = [f"{name}: {len(found)} layers, uncompressed", *map(_row, found)]
    total = sum(layer.size_bytes for layer in found)
    ours = sum(layer.size_bytes for layer in found if layer.made_by)
    rows.append(f"  {total / _MIB:9.1f} MiB  in all, {ours / _MIB:.1f} MiB more than the base")
    return "\n".join(rows)


def _row(layer: Layer) -> str:
    return f"  {layer.size_bytes / _MIB:9.1f} MiB  {layer.digest[7:19]}  {layer.made_by or 'the base'}"


def _instruction(step: Mapping[str, Any]) -> str:
    """What a person recognises of a history entry: the start of the command or of the copy."""
    plain = re.sub(r"^/bin/sh -c (#\(nop\) )?", "", step.get("created_by", "")).replace("\n", " ").strip()
    plain = re.sub(r"(dir|file|multi):[0-9a-f]{64}", "…", plain)
    return plain if len(plain) <= _WIDTH else plain[: _WIDTH - 1] + "…"
