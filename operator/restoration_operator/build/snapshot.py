"""The ConfigMap of one restoration: the resolved request and the profile as it was at admission.

It lies in the user's namespace, so it is evidence and never authority: `status.profile.hash`, which users cannot
write, says which profile it must hold, and the Job's `--request-sha256` says which request.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from restoration_api.base import canonical_json
from restoration_api.request import Request
from restoration_api.resources import ProfileSpec, VideoRestoration
from restoration_operator.build.owner import labels, owner_reference

REQUEST_KEY = "request.json"
PROFILE_KEY = "profile.json"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The two files, as text."""

    profile_json: str
    request_json: str

    @property
    def profile_hash(self) -> str:
        """Hex sha256, as in `status.profile.hash`."""
        return _sha256(self.profile_json)

    @property
    def request_hash(self) -> str:
        """Hex sha256, as in the Job's `--request-sha256`."""
        return _sha256(self.request_json)

    def profile(self) -> ProfileSpec:
        """The profile to build Jobs from.

        Raises:
            pydantic.ValidationError: the text is not a profile.
        """
        return ProfileSpec.model_validate_json(self.profile_json)


def profile_text(profile: ProfileSpec) -> str:
    """The profile's file in canonical form: equal values give equal text, hence equal hashes."""
    return canonical_json(profile.to_json())


def take_snapshot(profile_json: str, request: Request) -> Snapshot:
    """Both files, of which the profile's is there already (`profile_text`)."""
    return Snapshot(profile_json=profile_json, request_json=request.to_json())


def config_map(restoration: VideoRestoration, snapshot: Snapshot, name: str) -> dict[str, Any]:
    """The manifest; immutable, so that nobody edits it under a running pod."""
    meta = restoration.metadata
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": meta.namespace,
            "labels": labels(meta.uid),
            "ownerReferences": [owner_reference(restoration)],
        },
        "immutable": True,
        "data": {REQUEST_KEY: snapshot.request_json, PROFILE_KEY: snapshot.profile_json},
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
