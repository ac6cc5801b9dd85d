"""Compiles the kernels of all cases for an H100, where there is none: `python -m tests.model.compile_kernels`.

Prints their names as JSON; nothing is launched. Triton's interpreter takes what its compiler refuses: a variable that
changes its type from one step of a loop to the next, for one.
"""

import json
from collections import defaultdict
from contextlib import ExitStack
from typing import Any
from unittest import mock

from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from tests.model import dit_kernels, vae_kernels
from tests.model.kernel_cases import Draw


class H100:
    """What Triton asks a driver before it compiles."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def takes(_x: Tensor, *sizes: int) -> bool:
    return all(size.bit_count() == 1 for size in sizes)


def main() -> None:
    driver.set_active(H100())
    found: dict[str, set[str]] = defaultdict(set)
    run_kernel = JITFunction.run

    def compile_kernel(kernel: JITFunction[Any], *args: Any, warmup: bool, **options: Any) -> Any:
        found[kernel.__module__.rpartition(".")[2]].add(kernel.__name__)
        return run_kernel(kernel, *args, warmup=True, **options)

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(JITFunction, "run", compile_kernel))
        for program in (vae_kernels, dit_kernels):
            for module in program.MODULES:
                patches.enter_context(mock.patch.object(module, "takes", takes))
            for _, dtype, run in program.cases():
                run(Draw(dtype))
    print(json.dumps({module: sorted(names) for module, names in found.items()}))


if __name__ == "__main__":
    main()
