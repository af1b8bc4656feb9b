"""The filter chain: a state machine without I/O."""
