"""`make demo` as its user runs it, on the installation that the other tests left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hack.cluster.paths import CHECKOUT
from PIL import Image

from tests.builders import ffprobe
from tests.e2e.conftest import Installation


@pytest.mark.timeout(900)
def test_the_demo_shows_a_restored_clip(installation: Installation, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hack.demo", f"--out={tmp_path}"]
    done = subprocess.run(command, cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stdout + done.stderr
    original = CHECKOUT / "examples" / "01-first-restoration" / "clip" / "original.mp4"
    video, truth = ffprobe.video(tmp_path / "restored.mp4"), ffprobe.video(original)
    assert (video["width"], video["height"]) == (truth["width"], truth["height"])
    assert len(ffprobe.times(tmp_path / "restored.mp4")) == int(truth["nb_frames"])
    with Image.open(tmp_path / "before-after.png") as picture:
        assert picture.width > 3 * truth["width"]
    assert "PSNR" in done.stdout
    assert "frames/s" in done.stderr or "100%" in done.stderr  # progress was shown on the way
