"""The custom resources of `videorestoration.dev/v1alpha1`: what users write, and what the operator answers.

These models are the source: `make crds` writes the CustomResourceDefinitions from them, and the operator parses
objects with them.
"""

from restoration_api.resources.common import API_VERSION, GROUP, VERSION, Condition, Metadata, OwnerReference, Part
from restoration_api.resources.profile import ClusterRestorationProfile, ProfileSpec, ProfileStatus, RestorationProfile
from restoration_api.resources.reading import read_strictly
from restoration_api.resources.restoration import VideoRestoration, VideoRestorationSpec
from restoration_api.resources.status import ConditionType, Phase, VideoRestorationStatus

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "ClusterRestorationProfile",
    "Condition",
    "ConditionType",
    "Metadata",
    "OwnerReference",
    "Part",
    "Phase",
    "ProfileSpec",
    "ProfileStatus",
    "RestorationProfile",
    "VideoRestoration",
    "VideoRestorationSpec",
    "VideoRestorationStatus",
    "read_strictly",
]
