"""Fused GPU kernels, one idea a file, each beside a fallback in plain PyTorch that defines what it computes.

Only the fast networks import this package, and they are built where a GPU is; nothing else loads Triton.
"""
