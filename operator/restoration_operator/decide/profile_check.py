"""The condition `Ready` of a profile: whether a Job made from it is well-formed.

It is computed once per generation and start of the operator, so a broken `specPatch` is seen on the profile before any
user's restoration meets it. It proves nothing about quota, Pod Security, accounts or Secrets of the namespaces that
will use the profile: those show as `PodRejected` or `MountFailed` on the restoration.
"""

from datetime import datetime
from typing import Any, Final

from restoration_api.resources import Condition, ProfileStatus, VideoRestoration
from restoration_operator.build.job import Execution, Plan, build_job
from restoration_operator.build.names import base_name
from restoration_operator.build.request import ContradictionError, resolve_request
from restoration_operator.build.snapshot import take_snapshot
from restoration_operator.decide.admission import profile_problem
from restoration_operator.decide.conditions import clip
from restoration_operator.decide.types import Profile

SAMPLE_UID: Final = "00000000-0000-4000-8000-000000000000"


def sample_job(profile: Profile, namespace: str) -> dict[str, Any] | str:
    """The Job of an ordinary restoration with this profile, or the sentence that says why there is none."""
    sample = VideoRestoration.model_validate(
        {
            "metadata": {"name": "profile-check", "namespace": namespace, "uid": SAMPLE_UID},
            "spec": {"input": {"uri": "s3://bucket/in.mp4"}, "output": {"uri": "s3://bucket/out.mp4"}},
        }
    )
    problem = profile_problem(sample, profile)
    if problem is not None:
        return problem
    try:
        request = resolve_request(sample.spec, profile.spec)
    except ContradictionError as error:
        return str(error)
    snapshot = take_snapshot(profile.text, request)
    return build_job(
        Plan(
            restoration=sample,
            profile=profile.spec,
            snapshot_name=base_name("profile-check", SAMPLE_UID),
            request_hash=snapshot.request_hash,
            execution=Execution(number=1),
        )
    )


def ready(stored: ProfileStatus, generation: int | None, problem: str | None, now: datetime) -> ProfileStatus:
    """The status to store: `Ready` is True without a problem, else False with its text."""
    status, reason = ("True", "Valid") if problem is None else ("False", "InvalidTemplate")
    before = next((item for item in stored.conditions if item.type == "Ready"), None)
    condition = Condition(
        type="Ready",
        status=status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before and before.status == status else now,
        reason=reason,
        message=clip(problem or ""),
    )
    return ProfileStatus(observed_generation=generation, conditions=(condition,))
