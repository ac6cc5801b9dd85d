"""The built-in default profile: a file that the chart mounts, so that the first apply after an install works.

A custom resource could not do this: Helm would have to create it after its own CRD, and GitOps would see a diff.
"""

from pathlib import Path

import yaml

from restoration_api.resources import ProfileSpec, read_strictly
from restoration_operator.decide.types import NoProfile, Profile

NO_STORAGE = (
    "there is no ClusterRestorationProfile 'default', and the built-in profile has no object storage: set the chart's "
    "value defaultProfile.storage, or create the profile"
)


class ImageFiller:
    """Fills in the operator's runner image, so that the snapshot of a profile says which image will run."""

    def __init__(self, runner_image: str, pull_policy: str | None) -> None:
        self._image = runner_image
        self._pull_policy = pull_policy

    def __call__(self, spec: ProfileSpec) -> ProfileSpec:
        """The profile with an image. The operator's pull policy belongs to the operator's image."""
        if spec.image:
            return spec
        policy = spec.image_pull_policy or self._pull_policy
        return spec.model_copy(update={"image": self._image, "image_pull_policy": policy})


class BuiltinProfile:
    """Reads the file again when it has changed; a mounted ConfigMap is replaced in place."""

    def __init__(self, file: Path | None, fill: ImageFiller) -> None:
        self._file = file
        self._fill = fill
        self._stamp: tuple[float, int] | None = None
        self._profile: Profile | NoProfile | None = None

    def __call__(self) -> Profile | NoProfile:
        """The profile, or one sentence on why there is none."""
        if self._file is None:
            message = "there is no ClusterRestorationProfile 'default'; create it, or choose one with spec.profileRef"
            return NoProfile(reason="ProfileNotFound", message=message)
        try:
            found = self._file.stat()
            stamp = (found.st_mtime, found.st_size)
            if self._profile is None or stamp != self._stamp:
                self._profile, self._stamp = self._read(self._file), stamp
        except OSError as error:
            return NoProfile(reason="ProfileNotReady", message=f"the built-in profile cannot be read: {error}")
        return self._profile

    def _read(self, file: Path) -> Profile | NoProfile:
        try:
            content = yaml.safe_load(file.read_bytes())
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            text = " ".join(str(error).split())[:200]  # it shows the place in lines of its own
            return NoProfile(reason="ProfileNotReady", message=f"the built-in profile is not YAML: {text}")
        if not isinstance(content, dict) or not content.get("storage"):
            return NoProfile(reason="ProfileNotReady", message=NO_STORAGE)
        try:
            spec = read_strictly(ProfileSpec, content)
        except ValueError as error:
            return NoProfile(reason="ProfileNotReady", message=f"the chart's value defaultProfile is wrong: {error}")
        return Profile(kind="Builtin", name="default", generation=None, spec=self._fill(spec))
