"""What the laws of plain messages do to messages."""


def mutated(data: bytes, at: int, cut: int, put: bytes) -> bytes:
    """`data` with `cut` of its bytes, from `at` on (counted round), replaced by `put`."""
    at %= len(data)
    return data[:at] + put + data[at + cut :]
