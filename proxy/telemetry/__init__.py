"""Logs, metrics and the record of one stream."""
