"""Request ids: what listeners give to requests that bring none."""

import random
import re
from collections.abc import Iterator

SOUND = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
"""A client's id that is kept: what the core keeps in the header map."""

ENDINGS = tuple(f"{i:03x}" for i in range(4096))


def request_ids() -> Iterator[str]:
    """Ids in the form of a UUID: random per worker, then counted, which costs a tenth of random ones; not secret."""
    digits = f"{random.SystemRandom().getrandbits(128):032x}"
    prefix = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-"
    block = int(digits[20:29], 16)
    while True:
        beginning = f"{prefix}{block:09x}"
        for ending in ENDINGS:
            yield beginning + ending
        block = (block + 1) & 0xFFFFFFFFF
