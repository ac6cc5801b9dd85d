"""Building the cluster's programs, with a stand-in for Go: what is built, what is kept, what is said of a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from hack.cluster import build
from hack.cluster.binaries import ALL, CONTROL_PLANE, NODE
from hack.cluster.console import SILENT
from hack.cluster.errors import ClusterError

GO = """#!/bin/sh
mkdir -p "$GOCACHE" "$GOMODCACHE" && touch "$GOCACHE/compiled" "$GOMODCACHE/source"
while [ "$1" != -o ]; do shift; done
echo "$3" > "$2"
"""


@pytest.fixture(autouse=True)
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a `go` that writes the package's name into the program."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = tmp_path / "go"
    program.write_text(GO)
    program.chmod(0o755)
    monkeypatch.setattr(build, "ensure_go", lambda console: program)
    return program


def test_sources_and_compile_cache_go_when_the_last_program_is_built(tmp_path: Path) -> None:
    caches = [tmp_path / "video-restoration" / name for name in ("go-build", "go-modules")]
    build.ensure_built(CONTROL_PLANE, SILENT)
    assert all(cache.exists() for cache in caches)
    build.ensure_built((*CONTROL_PLANE, *NODE), SILENT)
    assert not any(cache.exists() for cache in caches)
    assert [binary.path.read_text().strip() for binary in ALL.values()] == [b.package for b in ALL.values()]


def test_what_is_built_is_not_built_again(go: Path) -> None:
    build.ensure_built(CONTROL_PLANE, SILENT)
    go.write_text("#!/bin/sh\nexit 1\n")
    build.ensure_built(CONTROL_PLANE, SILENT)


def test_a_failed_build_says_why_and_leaves_nothing_half_written(go: Path, tmp_path: Path) -> None:
    go.write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    with pytest.raises(ClusterError, match="no such package"):
        build.ensure_built(CONTROL_PLANE, SILENT)
    assert not list((tmp_path / "video-restoration" / "bin").iterdir())
