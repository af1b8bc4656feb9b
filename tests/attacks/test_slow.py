"""Slow clients cost little, disturb nobody, and are closed. Times are recorded, never asserted; memory has a wide margin."""

from tests.attacks.slow import KINDS, slow_clients, slow_readers

CLIENTS = 2000
READERS = 40
MOST_IDLE = 64 * 1024
MOST_READER = 2 * 1024 * 1024


async def test_thousands_of_slow_clients() -> None:
    """All are closed; the innocent client's requests are all answered meanwhile."""
    figures = await slow_clients(CLIENTS)
    print(figures)
    assert figures.closed == dict.fromkeys(KINDS, CLIENTS // len(KINDS))
    assert figures.innocent > 0
    assert figures.idle_bytes < MOST_IDLE


async def test_clients_that_do_not_read() -> None:
    """What they asked for stays in the origin's hands."""
    size = await slow_readers(READERS)
    print(f"{size / 1024:.0f} KiB for each slow reader")
    assert size < MOST_READER
