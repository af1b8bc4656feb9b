"""The few protocol buffers that foreign functions take and give (protobuf.dev, "Encoding"), read as strictly as protobuf does.

A library would be a dependency for messages of five fields that are all text or bytes.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Literal

Kind = Literal["string", "bytes", "varint"]
Value = int | bytes

VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32 = range(6)
WIRE_TYPES: Final[Mapping[Kind, int]] = {"string": LENGTH, "bytes": LENGTH, "varint": VARINT}
DEEPEST_GROUP: Final = 100
LONGEST_VARINT: Final = 10  # bytes
LARGEST_FIELD: Final = (1 << 29) - 1


class DecodeError(ValueError):
    """The bytes are no message."""


def fields(data: bytes) -> Iterator[tuple[int, int, Value]]:
    """(field number, wire type, value) of each field in turn; groups, which nobody uses any more, are passed over.

    Raises DecodeError.
    """
    at = 0
    groups: list[int] = []
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= LARGEST_FIELD:
            raise DecodeError("a field number is out of range")
        value: Value
        if wire == VARINT:
            value, at = varint(data, at)
        elif wire == START_GROUP:
            groups.append(number)
            if len(groups) > DEEPEST_GROUP:
                raise DecodeError("groups are nested too deep")
            continue
        elif wire == END_GROUP:
            if not groups or groups.pop() != number:
                raise DecodeError("a group ends that did not begin")
            continue
        elif wire in (LENGTH, FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            if wire == LENGTH:
                size, at = varint(data, at)
            if size > len(data) - at:
                raise DecodeError("a field is cut off")
            value = data[at : at + size]
            at += size
        else:
            raise DecodeError("a wire type is unknown")
        if not groups:
            yield number, wire, value
    if groups:
        raise DecodeError("a group does not end")


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number (modulo 2**64) at `at`, and what comes after it. Raises DecodeError."""
    value = 0
    for i in range(LONGEST_VARINT):
        if at + i >= len(data):
            raise DecodeError("a number is cut off")
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + i + 1
    raise DecodeError("a number has more than 10 bytes")


def decode(data: bytes, message: Mapping[int, tuple[str, Kind]]) -> dict[str, Value]:
    """The values of `message`'s fields by name; those that are absent are missing. The last of equal fields counts; one of
    another wire type is an unknown field. Raises DecodeError, also for a string that is no UTF-8.
    """
    found: dict[str, Value] = {}
    for number, wire, value in fields(data):
        name, kind = message.get(number, ("", "bytes"))
        if not name or WIRE_TYPES[kind] != wire:
            continue
        if kind == "string" and isinstance(value, bytes):
            try:
                value.decode()
            except UnicodeDecodeError:
                raise DecodeError(f"{name} is no UTF-8") from None
        found[name] = value
    return found


def encode_varint(number: int) -> bytes:
    """A number from 0 to 2**64 - 1."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def encode(values: Mapping[int, Value]) -> bytes:
    """A message of numbers and bytes, in the order of `values`. What is 0 or empty is left out, as in proto3."""
    data = bytearray()
    for number, value in values.items():
        if not value:
            continue
        if isinstance(value, int):
            data += encode_varint(number << 3 | VARINT) + encode_varint(value)
        else:
            data += encode_varint(number << 3 | LENGTH) + encode_varint(len(value)) + value
    return bytes(data)
