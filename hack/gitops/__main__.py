"""`python -m hack.gitops`: what the GitOps tests need is built and installed: minutes the first time.

Argo CD from its Go module, redis from Debian, the CRDs of Flux.
"""

import sys

from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.toolchain import ensure_helm
from hack.gitops.argocd import ArgoCD
from hack.gitops.flux import flux_crds


def main() -> int:
    """Returns the process's exit code."""
    console = Console()
    try:
        ArgoCD.prepare(console)
        flux_crds(console)
        ensure_helm(console)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
