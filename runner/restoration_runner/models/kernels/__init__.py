"""Fused GPU kernels, one idea a file, each beside a fallback in plain PyTorch that defines what it computes.

Only the fast networks import this package, and they are built where a GPU is; nothing else loads Triton.

Times of whole networks "instead of" others, in each module's docstring: `python -m benchmarks.gpu kernels`, which puts
the kernel's fallback in its place (one H100, one window of 21 frames 1280×720, bf16; 3B).
"""
