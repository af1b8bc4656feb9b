"""The three answers to a header name with an underscore (listeners[].underscores)."""

import pytest

from tests.attacks.stage import Stage

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.2.3.4\r\nX-Kept: y\r\n\r\n"


@pytest.mark.parametrize(("setting", "status"), [("reject", 400), ("drop", 200), ("keep", 200)])
async def test_setting(setting: str, status: int) -> None:
    async with Stage(listener={"underscores": setting}) as stage:
        outcome = await stage.play(REQUEST, [b"GET"])
    assert outcome.statuses == [status]
    assert [b"x_forwarded_for: 1.2.3.4\r\n" in message.head for message in outcome.reached] == (
        [] if setting == "reject" else [setting == "keep"]
    )
    assert all(b"x-kept: y\r\n" in message.head for message in outcome.reached)
