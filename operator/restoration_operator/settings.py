"""Everything an administrator may decide about the operator itself; what concerns a restoration is in profiles.

Environment variables with the prefix `VR_` (`runner_image` is `VR_RUNNER_IMAGE`), which the chart renders, and flags
(`--runner-image`), which win. The process refuses to start on a value it cannot use: a setting that is silently ignored
is a wrong setting. The docstring of each field says unit, default and reason; `--help` and the generated page
`docs/operator-reference.md` show the same text.

Set `enableServiceLinks: false` on the operator's pod: a Service named `vr-http` would else define `VR_HTTP_PORT`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from restoration_operator.build.light import LightResources
from restoration_operator.decide.types import PlanJobs

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]

PREFIX: Final = "VR_"
PROGRAM: Final = "video-restoration-operator"


class Settings(BaseSettings):
    """Configuration of the operator's process; read once at start. Every flag can be an environment variable too."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        use_attribute_docstrings=True,
        cli_prog_name=PROGRAM,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

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

    namespace_selector: str | None = None
    """Label selector of the namespaces to serve, as kubectl takes it (`restoration=enabled`); they may come and go.
    Unset: every namespace, or those of `watch_namespaces`. Needs `list` and `watch` on namespaces."""

    cluster_profiles: bool = True
    """Whether ClusterRestorationProfiles may be read. Set it to false where the operator has Roles only: then
    restorations can use RestorationProfiles of their namespace and the built-in profile."""

    namespace: str = "default"
    """The operator's own namespace (downward API): where profiles are tried out by a dry run."""

    lease_name: str | None = None
    """Lease, in the operator's own namespace, that decides which of several replicas works; the others follow, ready to
    take over. Unset: no lease, and there must be one process only."""

    pod_name: str | None = None
    """The name under which this process holds the lease. The chart gives the pod's: a container that is restarted in
    its pod gets the lease back at once. Unset: the host's name and a random number."""

    lease_duration_seconds: int = Field(default=15, ge=1)
    """How long other replicas wait after the last renewal that they saw: what a crash costs, plus a second."""

    lease_renew_deadline_seconds: float = Field(default=10, gt=0)
    """A leader that could not renew for so long ends. The distance to the duration is what the clocks of two machines
    may differ in speed, and what one request may take to arrive."""

    lease_retry_seconds: float = Field(default=2, gt=0)
    """Time between renewals; replicas that wait look twice as often, which bounds the gap after a graceful stop."""

    http_host: str = "0.0.0.0"
    """Address of `/healthz`, `/readyz` and `/metrics`."""

    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port of the same; 0 takes a free one, which the log then names."""

    workers: int = Field(default=4, ge=1, le=64)
    """Restorations reconciled at the same time. The API server is the limit, not this: four keep it busy."""

    poll_seconds: float = Field(default=5, gt=0)
    """Shortest time between two questions for the progress of one runner. Where runners are many it stretches, so that
    no more are asked than `progress_writes_per_second`."""

    progress_writes_per_second: float = Field(default=20, gt=0, le=1000)
    """Most status writes a second for progress, of all restorations together. SIG Scalability calls 20 changes a second
    the steady churn that a cluster bears; a change of phase or condition is never held back by it."""

    stale_progress_seconds: int = Field(default=600, ge=60)
    """How long a runner that answers may say the same before the condition `Scheduled` mentions it. Loading a large
    model from a slow disk takes minutes in which nothing moves. Nothing is ever stopped because of it."""

    events_per_second: float = Field(default=20, gt=0, le=1000)
    """Most Kubernetes Events of our own a second. They wait in a bounded line, Warnings first, and nothing waits for
    them; a burst that is longer than the line loses its oldest."""

    resync_seconds: float = Field(default=600, gt=0)
    """How often unfinished restorations and their Jobs and pods are listed again, to find what a watch lost."""

    stale_watch_seconds: float = Field(default=60, gt=0)
    """How long a change that a listing found may stay undelivered by a watch, before the process ends to start afresh.
    Deliveries take milliseconds; a minute is beyond any load at which the operator would still be of use."""

    lost_node_seconds: int = Field(default=300, ge=0)
    """How long a pod may outlive its deletion on a node that is not ready, before it is declared lost. Below the time
    that a reboot takes, every reboot would count as a lost node."""

    kueue_workloads: bool = False
    """Whether Kueue's Workloads may be read, which say why a Job is held back; the Job itself only says that it is.
    Needs Kueue, and `list` on `workloads.kueue.x-k8s.io` (chart value `kueue.readWorkloads`)."""

    plan_jobs: PlanJobs = "Always"
    """For which profiles a Job without a GPU plans before another one restores: `Always`, `GPU` (profiles that ask for
    one) or `Never`. What needs no GPU, a result that is there or an input that is not, then never waits for one. It
    costs a pod of a few seconds, which short clips on CPU profiles may want to save. Set `Never` where a queue holds
    back every Job that carries no queue label."""

    light_cpu: Quantity = "250m"
    """Processor time that Jobs without a GPU ask for, or what the profile asks for where that is less."""

    light_memory: Quantity = "256Mi"
    """Memory that Jobs without a GPU ask for, or what the profile asks for where that is less. Planning takes 100 MiB
    and the decoder's frames."""

    light_memory_limit: Quantity = "4Gi"
    """Most memory that Jobs without a GPU may take, or the profile's limit where that is less: a decoder holds up to 32
    frames, 3.4 GiB of 8K at 10 bits."""

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

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> "Settings":
        """Read flags, then the environment for what no flag says.

        Raises:
            pydantic.ValidationError: a value cannot be used, or a required one is missing.
            SystemExit: `--help`, or a flag that does not exist.
        """
        return cls(_cli_parse_args=list(arguments))

    @model_validator(mode="after")
    def _one_scope(self) -> Self:
        if self.watch_namespaces and self.namespace_selector:
            raise ValueError("VR_WATCH_NAMESPACES and VR_NAMESPACE_SELECTOR exclude each other: set one of them")
        return self

    @model_validator(mode="after")
    def _lease_times_fit(self) -> Self:
        if not self.lease_retry_seconds * 1.2 < self.lease_renew_deadline_seconds < self.lease_duration_seconds:
            raise ValueError(
                "VR_LEASE_RETRY_SECONDS x 1.2 < VR_LEASE_RENEW_DEADLINE_SECONDS < VR_LEASE_DURATION_SECONDS must hold"
            )
        return self

    @property
    def light_resources(self) -> LightResources:
        """What Jobs without a GPU are given."""
        return LightResources(cpu=self.light_cpu, memory=self.light_memory, memory_limit=self.light_memory_limit)

    @property
    def cluster_wide(self) -> bool:
        """Whether all namespaces are served."""
        return not self.watch_namespaces


def environment_variable(name: str) -> str:
    """The variable of a setting: `VR_POLL_SECONDS`."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The flag of a setting: `--poll-seconds`."""
    return "--" + name.replace("_", "-")
