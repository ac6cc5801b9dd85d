"""Told to stop: the flag is set though the main thread is busy, and after the grace period the process ends."""

import signal
import subprocess
import sys

import pytest

from restoration_runner.stopping import InterruptedByRequestError, StopSignal, watching

BUSY = """
import ctypes, os, signal, sys, threading
from restoration_runner import stopping
stopping.GRACE_SECONDS = 0.2
stop = stopping.StopSignal()

def signal_me():
    while not ready.wait(): pass
    os.kill(os.getpid(), signal.SIGTERM)

ready = threading.Event()
threading.Thread(target=signal_me, daemon=True).start()
with stopping.watching(
    stop, signals=(signal.SIGTERM,), last_words=lambda: print("last words", stop.is_set, flush=True)
):
    ready.set()
    libc = ctypes.CDLL(None)
    while True:  # as in a native call that does not return to Python: handlers never get to run for long
        libc.usleep(200000)
"""


def test_the_flag_is_set_by_the_signal_and_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    stop = StopSignal()
    stop.check()
    with watching(stop, signals=(signal.SIGUSR1,), last_words=lambda: None):
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(InterruptedByRequestError):
            stop.check()
    assert stop.exit_code == 128 + signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) == before


def test_work_that_does_not_stop_is_ended_with_its_last_words() -> None:
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 143, done.stderr
    assert done.stdout == "last words True\n"
