"""Every kernel compiles for a GPU, on a machine that has none: the interpreter alone would not tell."""

import json
import os
import subprocess
import sys
from pathlib import Path

from restoration_runner.models import kernels

WITHOUT = {"__init__", "launch"}


def test_every_kernel_compiles() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "tests.model.compile_kernels"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    modules = {path.stem for path in Path(kernels.__path__[0]).glob("*.py")}
    assert set(json.loads(done.stdout)) == modules - WITHOUT
