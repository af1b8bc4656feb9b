"""What ends a call into a guest."""

from typing import Literal

Reason = Literal["trap", "fuel", "deadline", "memory", "start", "result"]


class GuestFault(Exception):
    """A call into a guest that did not come back; its store must not be entered again."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
