"""Processes, listeners, and the way of one request: downstream, exchange, upstream."""
