"""Where a model's files come from, and the proof that they are the right ones."""
