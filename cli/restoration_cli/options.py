"""Options that several commands share, spelled as kubectl spells them.

kubectl hands a plugin everything after its name, so they stand behind the command: `kubectl vr list -n media`.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from restoration_cli import access
from restoration_cli.errors import CommandError


def _names(context: typer.Context, incomplete: str) -> list[str]:
    """Proposals for NAME, from the cluster; none if it does not answer."""
    given = context.params
    cluster = Access(given.get("kubeconfig"), given.get("context"), given.get("namespace"))
    with contextlib.suppress(CommandError):
        found = cluster.connect().list().items
        return sorted(it.name for it in found if it.name.startswith(incomplete))
    return []


Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: the context's namespace.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; default the current one.")]
Kubeconfig = Annotated[str | None, typer.Option(help="Default KUBECONFIG, else ~/.kube/config.")]
Selector = Annotated[str | None, typer.Option("--selector", "-l", help="Only those with these labels.")]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the VideoRestoration.", autocompletion=_names)]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Names of VideoRestorations.", autocompletion=_names)
]
Endpoint = Annotated[str | None, typer.Option(help="S3 server; default AWS_ENDPOINT_URL, else AWS.")]
Region = Annotated[str | None, typer.Option(help="Its region; default AWS_REGION.")]
AwsProfile = Annotated[str | None, typer.Option(help="Profile of ~/.aws/credentials with the keys for it.")]
CaFile = Annotated[Path | None, typer.Option(help="Certificate authority of the S3 server.")]


@dataclass(frozen=True)
class Access:
    """Which cluster, and which namespace of it."""

    kubeconfig: str | None
    context: str | None
    namespace: str | None

    def connect(self, *, everywhere: bool = False) -> access.Restorations:
        return access.connect(
            kubeconfig=self.kubeconfig, context=self.context, namespace=self.namespace, everywhere=everywhere
        )
