"""The load suite: one question per module, each prints its machine and never asserts time."""
