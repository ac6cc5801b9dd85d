"""Video files: what is in them, their frames in and out with exact colour and exact times, and proof of the result.

Knows nothing of models, storage or Kubernetes. The order of use: `probe` → `support` → `scan` → per segment `read`,
`colour`, `write` → `join` → `verify`.
"""
