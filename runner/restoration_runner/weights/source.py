"""Finding the folder of a model by its name."""

import os
from importlib import resources
from pathlib import Path

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError

IMAGE_FOLDER = Path("/models")
"""Where the runner's image has the models that it ships, and where a pod mounts others."""
SHIPPED = "seedvr2-nano"
SHIPPED_PACKAGE_FOLDER = "nano"


def find_model(name: str) -> Path:
    """The folder for `--model`: a path, a model of the image, or the one that comes with this package.

    Raises:
        RestorationError: `ModelInvalid` if there is none.
    """
    if os.sep in name or Path(name).joinpath("model.json").is_file():
        return Path(name)
    candidates = [Path(os.environ.get("VR_MODELS_DIR", IMAGE_FOLDER)) / name]
    if name == SHIPPED:
        candidates.append(Path(str(resources.files("restoration_runner"))) / SHIPPED_PACKAGE_FOLDER)
    for folder in candidates:
        if (folder / "model.json").is_file():
            return folder
    looked = " and ".join(str(folder) for folder in candidates)
    raise RestorationError(
        FailureReason.MODEL_INVALID,
        f"there is no model '{name}' (looked in {looked}); name a folder that holds model.json instead",
    )
