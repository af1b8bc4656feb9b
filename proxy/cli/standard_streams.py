"""Standard input, output and error, which every process expects to have."""

import os
import sys


def complete() -> None:
    """Open the null device for those that are closed (`penstock run >&- 2>&-`).

    The first socket would take the number of one, and what is meant for the log would go into a connection.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
