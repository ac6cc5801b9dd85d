"""Everything an administrator may decide about the operator itself; what concerns a restoration is in profiles.

One source: environment variables with the prefix `VR_` (`runner_image` is `VR_RUNNER_IMAGE`). The chart renders them,
and the process refuses to start on a value it cannot use: a setting that is silently ignored is a wrong setting.
Set `enableServiceLinks: false` on the operator's pod: a Service named `vr-http` would else define `VR_HTTP_PORT`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Configuration of the operator's process; read once at start."""

    model_config = SettingsConfigDict(env_prefix="VR_", frozen=True, extra="ignore", env_ignore_empty=True)

    runner_image: str = Field(min_length=1)
    """Image of runner pods where the profile names none. It is part of the profile snapshot, so an upgrade of the
    operator changes only restorations accepted after it. Required: there is no image that is right everywhere."""

    runner_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """Pull policy where the profile names none. Unset leaves it to Kubernetes (`Always` for `:latest`)."""

    default_profile_file: Path | None = None
    """YAML or JSON file with the `spec` of the built-in profile, which serves `ClusterRestorationProfile/default`
    while no such object exists. Read at every use, so a ConfigMap that is updated in place counts at once."""

    watch_namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated namespaces to serve; empty means all, which needs a ClusterRole. With a list the operator makes
    no cluster-wide request but the one that `cluster_profiles` allows."""

    cluster_profiles: bool = True
    """Whether ClusterRestorationProfiles may be read. Set it to false where the operator has Roles only: then
    restorations can use RestorationProfiles of their namespace and the built-in profile."""

    namespace: str = "default"
    """The operator's own namespace (downward API): where profiles are tried out by a dry run."""

    http_host: str = "0.0.0.0"
    """Address of `/healthz`, `/readyz` and `/metrics`."""

    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port of the same; 0 takes a free one, which the log then names."""

    workers: int = Field(default=4, ge=1, le=64)
    """Restorations reconciled at the same time. The API server is the limit, not this: four keep it busy."""

    poll_seconds: float = Field(default=5, gt=0)
    """Shortest time between two questions for the progress of one runner. With more than 20 times as many runners as
    seconds it stretches, so that all status writes together stay under 20 a second."""

    resync_seconds: float = Field(default=600, gt=0)
    """How often unfinished restorations and their Jobs and pods are listed again, to find what a watch lost."""

    lost_node_seconds: int = Field(default=300, ge=0)
    """How long a pod may outlive its deletion on a node that is not ready, before it is declared lost. Below the time
    that a reboot takes, every reboot would count as a lost node."""

    request_timeout_seconds: float = Field(default=30, gt=0)
    """Longest wait for one answer of the API server."""

    log_format: Literal["json", "console"] = "json"
    """`json` for pods, `console` for people at a terminal."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is written. The reason of every decision is in the status; INFO logs each write once."""

    @field_validator("watch_namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @property
    def cluster_wide(self) -> bool:
        """Whether all namespaces are served."""
        return not self.watch_namespaces
