"""Where things lie. Expensive things outlive clusters and checkouts; a cluster's own state does not.

* cache (`$XDG_CACHE_HOME/video-restoration`, default `~/.cache/video-restoration`): binaries, toolchain, base images,
  registry and containerd content. Keyed by version or digest, shared by all checkouts, safe to delete while no
  cluster runs.
* state (`/var/lib/video-restoration`): what belongs to the one running node. `down` removes it.
* checkout (`.dev/cluster/`): kubeconfig and addresses for the people and programs of this checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).resolve().parent
DEV_FOLDER = CHECKOUT / ".dev" / "cluster"
NODE_STATE = Path("/var/lib/video-restoration")


def cache_folder() -> Path:
    """The cache of this user. Honours XDG_CACHE_HOME; the folder may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "video-restoration"
