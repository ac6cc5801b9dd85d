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


def model_folders() -> tuple[Path, ...]:
    """Where models are looked for by name; the last one is where `models pull` puts them.

    `VR_MODELS_DIR` stands for all of them. Without it: the image's folder, then the user's own.
    """
    if chosen := os.environ.get("VR_MODELS_DIR"):
        return (Path(chosen),)
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return IMAGE_FOLDER, data / "video-restoration" / "models"


def shipped_folder() -> Path:
    """The model that comes with this package."""
    return Path(str(resources.files("restoration_runner"))) / SHIPPED_PACKAGE_FOLDER


def find_model(name: str) -> Path:
    """The folder for `--model`: a path, a model of the image or of the user, or the one that comes with this package.

    Raises:
        RestorationError: `ModelInvalid` if there is none.
    """
    if os.sep in name or Path(name).joinpath("model.json").is_file():
        return Path(name)
    candidates = [folder / name for folder in model_folders()]
    if name == SHIPPED:
        candidates.append(shipped_folder())
    for folder in candidates:
        if (folder / "model.json").is_file():
            return folder
    looked = " and ".join(str(folder) for folder in candidates)
    raise RestorationError(
        FailureReason.MODEL_INVALID,
        f"there is no model '{name}' (looked in {looked}); name a folder that holds model.json, or get one with "
        "'video-restoration models pull'",
    )
