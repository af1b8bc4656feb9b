"""A short run of the fuzzer; `make fuzz` is the long one."""

from tests.attacks.fuzz import attack, run


async def test_nothing_is_found() -> None:
    """A few seconds of mutated attacks."""
    findings = await run(4.0, seed=20261121)
    assert findings.problems == []
    assert findings.attacks > 0
    assert findings.statuses[200] > 0
    assert findings.statuses[400] > 0


def test_attacks_can_be_repeated() -> None:
    """The number of an attack and the seed are all that it takes."""
    assert [attack(7, number) for number in range(50)] == [attack(7, number) for number in range(50)]
    assert attack(7, 0) != attack(8, 0)
