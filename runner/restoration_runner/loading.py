"""The model, loaded while the input is fetched and planned.

Loading the libraries, starting the GPU and reading the weights take seconds in which the network and the decoder have
something to do as well; weights that have to be fetched first take longer. On a CPU, and where the host's memory is
short, the first come one after the other.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import structlog

from restoration_runner import models
from restoration_runner.software import cpu_threads
from restoration_runner.task import JobContext, Task

if TYPE_CHECKING:
    from restoration_runner.models.restorer import Restorer

log = structlog.get_logger()

KERNEL_FOLDER = "TRITON_CACHE_DIR"
"""Where Triton looks for compiled kernels and leaves new ones; the Job sets it to a volume, if the profile has one."""
DRIVER = Path("/dev/nvidiactl")
"""There is a GPU, as far as can be said without loading what could use it."""


class ModelLoading:
    """Loads the model of a task once, on a thread of its own if `ahead` was called."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._checks = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._coming: Future[Restorer] | None = None
        self._checked: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait: a process that ends while the driver starts may crash, and its exit code would be lost."""
        self._task.model.give_up()
        self._pool.shutdown()
        self._checks.shutdown()

    def ahead(self) -> None:
        """Begin now, where that saves time. Errors are told to whoever asks for the restorer."""
        beside = pays(self._task.context)
        if not (beside or self._task.model.is_fetched) or self._task.has_all_segments():
            return
        self._task.model.begin()
        if beside:
            self._coming = self._pool.submit(self._load)

    def restorer(self) -> Restorer:
        """The loaded model; the thread that computes still has to make its GPU its own (`use_device`).

        Whether its weights are the promised ones is known when `check` returns: nothing that they compute before that
        may be kept.

        Raises:
            RestorationError: see `models.load_restorer`; and as `check`.
        """
        try:
            return self._load() if self._coming is None else self._coming.result()
        except Exception:
            self.check()  # of two errors the one that says what is wrong with the folder as a whole
            raise

    @property
    def is_checked(self) -> bool:
        """Whether `check` would return, or raise, at once."""
        return self._checked is not None and self._checked.done()

    def check(self) -> None:
        """Wait until the weights are found to be the promised ones; `restorer` has begun to look.

        Raises:
            RestorationError: `ModelInvalid`, `ModelUnavailable`; see `Supply.check`.
        """
        if self._checked is not None:
            with self._task.clock.step("model"):
                self._checked.result()

    def _load(self) -> Restorer:
        task = self._task
        check_kernel_folder()
        task.model.wait()
        self._checked = self._checks.submit(task.model.check)
        with task.clock.step("model"):
            return models.load_restorer(
                task.model.folder,
                device=task.context.device,
                precision=task.request.model.precision,
                threads=cpu_threads(),
                path=task.context.path,
                spare_host=task.context.memory_hint_mib is not None,
            )


def check_kernel_folder() -> None:
    """Without the volume if nothing can be written to it: compiling takes seconds, and is no reason to fail."""
    folder = os.environ.get(KERNEL_FOLDER)
    if folder is None:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        log.warning("compiled kernels cannot be kept: the folder cannot be written to", folder=folder)
        del os.environ[KERNEL_FOLDER]


def pays(context: JobContext) -> bool:
    """Whether to load the model beside other work."""
    on_gpu = context.device.startswith("cuda") or (context.device == "auto" and DRIVER.exists())
    return on_gpu and context.memory_hint_mib is None
