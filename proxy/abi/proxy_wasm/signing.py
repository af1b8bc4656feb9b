"""The foreign functions `verify_signature` and `sign`, as in Envoy 1.40 (messages: its verify_signature.proto and sign.proto).

What Envoy's BoringSSL takes is taken here by `cryptography`, an extra: keys as SubjectPublicKeyInfo or PKCS#8, in PEM also in
the traditional forms; RSA (PKCS#1 v1.5) and ECDSA over NIST's curves. Texts of errors are Envoy's.
"""

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

from proxy.abi.proxy_wasm.protobuf import DecodeError, Kind, Value, decode, encode

MODULE: Final = "cryptography.hazmat.primitives.serialization"
EXTRA: Final = "pip install penstock[signatures]"

VERIFY_ARGUMENTS: Final[dict[int, tuple[str, Kind]]] = {
    1: ("hash_function", "string"),
    2: ("key", "bytes"),
    3: ("signature", "bytes"),
    4: ("text", "bytes"),
    5: ("pem", "string"),
}
SIGN_ARGUMENTS: Final[dict[int, tuple[str, Kind]]] = {
    1: ("hash_function", "string"),
    2: ("key", "bytes"),
    3: ("text", "bytes"),
    4: ("pem", "string"),
}

HASHES: Final = {b"sha1": "SHA1", b"sha224": "SHA224", b"sha256": "SHA256", b"sha384": "SHA384", b"sha512": "SHA512"}
CURVES: Final = frozenset({"secp224r1", "secp256r1", "secp384r1", "secp521r1"})
LARGEST_RSA: Final = 4096
"""Bits of a key. A signature by one takes 2 ms; by a larger one, too long for a callback."""
LARGEST_EXPONENT: Final = 33
"""Bits of a public exponent, as in BoringSSL: verifying with a long one takes as long as signing."""

ELLIPTIC_FUEL: Final = 1_000_000
"""Fuel of a signature or its verification on the slowest curve."""

PUBLIC_PEM: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
PRIVATE_PEM: Final = re.compile(rb"-----BEGIN ((?:RSA |EC )?PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
SEQUENCE: Final = 0x30

Charge = Callable[[int], object]
"""Takes fuel from the filter, for work that is about to be done."""


class ArgumentsError(Exception):
    """The arguments are no message, or have no key or two: status 2 (BadArgument)."""


def installed() -> bool:
    """Is the extra there?"""
    return find_spec("cryptography") is not None


def verify_signature(arguments: bytes, charge: Charge) -> bytes:
    """A serialised VerifySignatureResult. Raises ArgumentsError."""
    from cryptography.exceptions import InvalidSignature

    given = parse(arguments, VERIFY_ARGUMENTS)
    digest = digest_of(given)
    if digest is None:
        return result(2, error=unsupported(given))
    key = public_key(given)
    if key is None:
        return result(2, error=b"Failed to initialize digest verify.")
    charge(fuel_of(key, signs=False))
    try:
        key.verify(given.get("signature", b""), given.get("text", b""), *scheme(key, digest))
    except InvalidSignature:
        return result(2, error=b"Failed to verify digest. Error code: 0")
    return result(2)


def sign(arguments: bytes, charge: Charge) -> bytes:
    """A serialised SignResult. Raises ArgumentsError."""
    given = parse(arguments, SIGN_ARGUMENTS)
    digest = digest_of(given)
    if digest is None:
        return result(3, error=unsupported(given))
    key = private_key(given)
    if key is None:
        return result(3, error=b"Invalid key type: private key required for signing operation.")
    if fuel_of(key, signs=True) == 0:
        return result(3, error=b"Invalid private key: key data is corrupted or malformed.")
    charge(fuel_of(key, signs=True))
    try:
        signature: bytes = key.sign(given.get("text", b""), *scheme(key, digest))
    except ValueError:  # a key too short for the digest
        return result(3, error=b"Failed to create signature.")
    return result(3, signature)


def result(error_field: int, signature: bytes = b"", error: bytes = b"") -> bytes:
    return encode({1: int(not error), 2: signature, error_field: error} if not error else {error_field: error})


def parse(arguments: bytes, message: dict[int, tuple[str, Kind]]) -> dict[str, Any]:
    try:
        given: dict[str, Value] = decode(arguments, message)
    except DecodeError as error:
        raise ArgumentsError(f"the arguments are no such message: {error}") from None
    if bool(given.get("key")) == bool(given.get("pem")):
        raise ArgumentsError("one key is needed, either in DER or in PEM")
    return given


def digest_of(given: dict[str, Any]) -> Any:
    """The hash function; None: Envoy knows no such name."""
    from cryptography.hazmat.primitives import hashes

    name = HASHES.get(given.get("hash_function", b"").lower())
    return None if name is None else getattr(hashes, name)()


def unsupported(given: dict[str, Any]) -> bytes:
    name: bytes = given.get("hash_function", b"")
    return name + b" is not supported."


def public_key(given: dict[str, Any]) -> Any:
    """The key; None: there is none that BoringSSL would read."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        if given.get("pem"):
            block = PUBLIC_PEM.search(given["pem"])
            key: Any = serialization.load_pem_public_key(block[0]) if block is not None else None
        else:
            der = outer(given["key"])
            key = serialization.load_der_public_key(der) if inner_tag(der, 0) == SEQUENCE else None
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if key is not None and fuel_of(key, signs=False) else None


def private_key(given: dict[str, Any]) -> Any:
    """The key; None: there is none that BoringSSL would read."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    # The library's own check looks whether RSA's factors are primes: 36 ms. Ours is BoringSSL's, see `consistent`.
    quick = {"unsafe_skip_rsa_key_validation": True}
    try:
        if given.get("pem"):
            block = PRIVATE_PEM.search(given["pem"])
            key: Any = serialization.load_pem_private_key(block[0], None, **quick) if block is not None else None
        else:
            der = outer(given["key"])
            key = serialization.load_der_private_key(der, None, **quick) if inner_tag(der, 1) == SEQUENCE else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if key is not None and consistent(key) else None


def consistent(key: Any) -> bool:
    """Do the numbers of an RSA key belong together? Other keys have been checked when they were read."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    if not isinstance(key, rsa.RSAPrivateKey):
        return True
    n = key.private_numbers()
    p, q, e = n.p, n.q, n.public_numbers.e
    if not (1 < p < n.public_numbers.n and q > 1 and p * q == n.public_numbers.n and p & q & e & 1 and e > 1):
        return False
    return (
        (n.d * e - 1) % (p - 1) == 0
        and (n.d * e - 1) % (q - 1) == 0
        and n.dmp1 == n.d % (p - 1)
        and n.dmq1 == n.d % (q - 1)
        and n.iqmp * q % p == 1
        and n.iqmp < p
    )


def scheme(key: Any, digest: Any) -> tuple[Any, ...]:
    """What `sign` and `verify` take beside the data."""
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        return padding.PKCS1v15(), digest
    return (ec.ECDSA(digest),)


def fuel_of(key: Any, *, signs: bool) -> int:
    """About what one use of the key would cost in guest code; 0: it is of a kind or a size that is not supported."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return ELLIPTIC_FUEL if key.curve.name in CURVES else 0
    if not isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey) or key.key_size > LARGEST_RSA:
        return 0
    public = key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key
    if public.public_numbers().e.bit_length() > LARGEST_EXPONENT:
        return 0
    return int(key.key_size**3 // 16384 if signs else key.key_size**2 // 32)


def outer(der: bytes) -> bytes:
    """The first element alone: BoringSSL does not look at what comes behind it."""
    size, head = element(der, 0)
    return der[: head + size]


def inner_tag(der: bytes, index: int) -> int:
    """The tag of the element `index` within the outer one; -1: there is none."""
    _, at = element(der, 0)
    for _ in range(index):
        size, at = element(der, at)
        at += size
    return der[at] if at < len(der) else -1


def element(der: bytes, at: int) -> tuple[int, int]:
    """(size, address) of the content of the element at `at`. Raises ValueError."""
    if at + 2 > len(der):
        raise ValueError("cut off")
    size = der[at + 1]
    if size < 0x80:
        return size, at + 2
    count = size & 0x7F
    if not 0 < count <= 4 or at + 2 + count > len(der):
        raise ValueError("a length is malformed")
    return int.from_bytes(der[at + 2 : at + 2 + count], "big"), at + 2 + count
