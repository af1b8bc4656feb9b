import logging
import os

import pytest
import structlog

from proxy.telemetry import logging as logs
from proxy.telemetry.writer import Writer


class MemoryWriter(Writer):
    """Keeps the lines."""

    def __init__(self):
        super().__init__(-1)
        self.kept = []

    def write(self, line):
        self.kept.append(line)

    def flush(self):
        pass


@pytest.fixture
def logged():
    """`logged(level, format)` configures logging and gives the list that lines are added to."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, vars(logs.output).copy()

    def configure(level="info", format="json"):
        writer = MemoryWriter()
        logs.configure(level, format, writer)
        return writer.kept

    yield configure
    root.handlers[:], root.level = before[:2]
    vars(logs.output).update(before[2])
    logging.captureWarnings(False)
    logs.buckets.clear()
    structlog.reset_defaults()


@pytest.fixture
def pipe():
    read_end, write_end = os.pipe()
    yield read_end, write_end
    for end in (read_end, write_end):
        try:
            os.close(end)
        except OSError:
            continue
