"""Why is it waiting, in the words of a real kubelet; the causes that need none are in tests/cluster/operator."""

import base64
from typing import Any

import pytest
from hack.demo.watch import status_of, why

from restoration_api.resources.status import ConditionType
from tests.builders import clips
from tests.builders.clips import Clip
from tests.e2e.lab import Lab, eventually


def secret(lab: Lab, name: str) -> dict[str, Any]:
    store = lab.bucket.endpoint
    data = {"access-key": store.access_key, "secret-key": store.secret_key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": lab.kubectl.namespace},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def scheduled(lab: Lab, name: str) -> tuple[str, str]:
    """Reason and message of the condition `Scheduled`."""
    status = status_of(lab.kubectl, name)
    return next(
        ((item.reason, item.message) for item in status.conditions if item.type == ConditionType.SCHEDULED), ("", "")
    )


def says(lab: Lab, name: str, reason: str, text: str) -> None:
    """Wait until a restoration says this."""

    def told() -> bool:
        found = scheduled(lab, name)
        return found[0] == reason and text in found[1]

    eventually(told, what=f"{name}: {reason} with {text!r}; it says {why(status_of(lab.kubectl, name))}")


@pytest.mark.timeout(420)
def test_an_image_and_a_secret_that_are_missing(lab: Lab) -> None:
    source = lab.upload(clips.write(lab.folder / "short.mp4", Clip(frames=9, width=48, height=32)))
    nowhere = f"{lab.stage.registry}/no-such-runner:1"
    lab.apply("imageless", source=source, to="a.mp4", changes=lab.profile("imageless", {"image": nowhere}))
    lab.apply(
        "secretless", source=source, to="b.mp4", changes=lab.profile("secretless", {"storage.0.secretName": "late"})
    )

    says(lab, "secretless", "MountFailed", 'secret "late" not found')
    lab.kubectl.apply(secret(lab, "late"))
    says(lab, "imageless", "ImagePullError", "no-such-runner:1")

    # The Secret has come: the wait is over, and nothing of it is left.
    status = lab.succeed("secretless")
    assert scheduled(lab, "secretless")[0] == "Running"
    assert all("late" not in item.message for item in status.conditions)
    assert status.attempts.executions == 1

    def posted() -> bool:
        """Events follow the status. Whether a run this short was ever seen running is a matter of luck."""
        found = lab.kubectl.run(
            "get", "events", "--field-selector=involvedObject.name=secretless", "--output=jsonpath={.items[*].reason}"
        )
        return {"JobCreated", "MountFailed", "Completed"} <= set(found.split())

    eventually(posted, what="Events of the whole life of secretless")
