"""What the operator costs and how fast it is, against a real API server: `python -m benchmarks.operator`."""
