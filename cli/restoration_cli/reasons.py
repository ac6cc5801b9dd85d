"""What each reason of a condition means, and what its reader can do: the words of `kubectl vr explain`.

Classes of failure have their words in `restoration_api.outcome`; here are the reasons why a restoration is not
accepted, not running, or not running any more. A test compares the table with the operator's code.
"""

from dataclasses import dataclass
from typing import Final

from restoration_api.outcome import FAILURES

NOTHING: Final = "nothing; it goes on by itself"


@dataclass(frozen=True)
class Words:
    """`means` completes the sentence "… waits (or failed): "; `remedy` is what to do."""

    means: str
    remedy: str


ACCEPTED: Final[dict[str, Words]] = {
    "Pending": Words("the operator has not judged it yet", "nothing, unless it stays so: see the operator's log"),
    "ProfileNotFound": Words(
        "the profile that it names does not exist", "create the profile, or cancel this and name one that exists"
    ),
    "ProfileNotReady": Words(
        "the profile that it names cannot be used", "have the profile corrected by whoever administers it"
    ),
    "LimitExceeded": Words(
        "it asks for more than the profile allows", "cancel it, and ask for what the profile's limits allow"
    ),
    "NotPermitted": Words(
        "the profile does not permit this input or output",
        "cancel it, and use a place below the profile's allowed prefixes, or another profile",
    ),
    "OutputClaimed": Words(
        "another unfinished restoration writes to the same output",
        "wait for the other one, or cancel this and choose another output",
    ),
    "NameConflict": Words(
        "an object that belongs to somebody else has the name that its Job or ConfigMap needs",
        "delete or rename that object",
    ),
    "ChildRejected": Words(
        "the API server refuses its Job or ConfigMap", "correct what the message names: a quota, a policy or a webhook"
    ),
}
"""Reasons of `Accepted` that are not `Valid`."""

SCHEDULED: Final[dict[str, Words]] = {
    "Pending": Words("its pod is being created", "nothing, unless it stays so: kubectl describe its Job and pod"),
    "Planning": Words("a pod without a GPU looks at the input and plans the work", NOTHING),
    "Queued": Words(
        "it waits for its turn, in the queue or for a slot of the profile",
        "nothing; a higher priority or more quota makes it sooner",
    ),
    "Unschedulable": Words(
        "no node has room for its pod", "wait for a node to become free, add one, or use a profile that asks for less"
    ),
    "PodRejected": Words(
        "its pod may not be created, or does not get started",
        "correct what the message names: a quota, Pod Security, a service account, a Secret or ConfigMap",
    ),
    "MountFailed": Words(
        "a volume of its pod cannot be mounted",
        "correct what the message names: mostly a Secret, ConfigMap or volume claim that is missing in this namespace",
    ),
    "ImagePullError": Words(
        "the node cannot pull the image",
        "correct the image or the pull secret in the profile, or the way to the registry",
    ),
    "NodeLost": Words("its node stopped answering", "repair the node, or delete its Node object"),
    "BackingOff": Words("the last execution failed, and the next one comes after a pause", NOTHING),
    "Running": Words("it is at work", NOTHING),
    "CacheHit": Words("the result had been computed before", NOTHING),
}
"""Reasons of `Scheduled`; while it backs off the reason may also be a class of failure."""

ENDINGS: Final[dict[str, Words]] = {
    "Completed": Words("the output is verified and published", NOTHING),
    "CacheHit": Words("the same result had been computed before and lies at the output", NOTHING),
    "RetriesExhausted": Words(
        "it was tried as often as spec.retryPolicy allows",
        "see to the cause of the last failure, then: kubectl vr retry",
    ),
    "StartDeadlineExceeded": Words(
        "no pod of it ran within startDeadlineSeconds", "give it more time, or see to what it waited for"
    ),
}
"""Reasons of `Succeeded`, classes of failure aside."""


def words(reason: str, table: dict[str, Words]) -> Words:
    """The words for a reason; for one of a newer operator, that it is not known here."""
    known = table.get(reason)
    if known is not None:
        return known
    row = next((row for row in FAILURES.values() if row.reason == reason), None)
    if row is not None:
        return Words(row.meaning, row.remedy)
    return Words(f"the operator says {reason}", "see the message; a newer kubectl-vr may know more")
