"""What marks an object as a child of one restoration: labels to select it by, and the reference that deletes it."""

from typing import Any

from restoration_api.resources import API_VERSION, VideoRestoration
from restoration_operator.views import MANAGED_BY_LABEL, MANAGER, UID_LABEL


def labels(uid: str) -> dict[str, str]:
    """Labels of every child."""
    return {
        "app.kubernetes.io/name": "video-restoration",
        "app.kubernetes.io/component": "runner",
        MANAGED_BY_LABEL: MANAGER,
        UID_LABEL: uid,
    }


def owner_reference(restoration: VideoRestoration) -> dict[str, Any]:
    """The controlling owner. No `blockOwnerDeletion`: setting it needs rights on finalizers that the operator lacks."""
    meta = restoration.metadata
    return {
        "apiVersion": API_VERSION,
        "kind": "VideoRestoration",
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
    }
