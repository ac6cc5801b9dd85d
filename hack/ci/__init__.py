"""What continuous integration adds to the tests: one summary at the end, and no silent skips."""
