"""Signatures of filters: Ed25519 (RFC 8032) in an envelope of DSSE 1.0, detached, as FILE.wasm.sig.

What is signed is a statement: JSON with the module's SHA-256, the filter's name and version, and the SHA-256 of its
filter.yaml if it has one. DSSE puts the kind of statement under the signature, so that one made for something else is never
taken for one of these. The statement does not say when it was made, nor for how long it holds: a key that should no longer
count is taken out of `trusted_keys`. Source of the envelope: github.com/secure-systems-lab/dsse, protocol.md.
"""

import base64
import binascii
import hashlib
import importlib
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from proxy.config.sources import TrustedKey

INSTALL: Final = "pip install 'penstock[signatures]'"
SUFFIX: Final = ".sig"
KIND: Final = "application/vnd.penstock.filter.v1+json"
PREFIX: Final = "ed25519:"
LARGEST: Final = 1 << 16
"""Bytes of a signature file."""
MOST_SIGNATURES: Final = 16
DIGEST: Final = re.compile("[0-9a-f]{64}")
VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
NAME: Final = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}")


class SignatureError(Exception):
    """A signature, or a key, that does not do: why, and what to do about it."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(problem, mend)
        self.problem = problem
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.problem}; {self.mend}"


@dataclass(frozen=True, slots=True)
class Statement:
    """What is signed. `manifest`: the SHA-256 of filter.yaml, "" without one."""

    name: str
    version: str
    sha256: str
    manifest: str = ""

    def payload(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement, and by whose key it is signed: the name in `trusted_keys`."""

    statement: Statement
    signer: str


def statement_of(name: str, version: str, module: bytes, manifest: bytes | None) -> Statement:
    """Raises SignatureError for a name or version that cannot be signed."""
    if not NAME.fullmatch(name):
        raise SignatureError(f"{name!a} is no filter's name", "write letters, digits, _ . and -")
    if not VERSION.fullmatch(version):
        raise SignatureError(f"{version!a} is no version", "write one such as 1.2.0")
    return Statement(name, version, sha256(module), sha256(manifest) if manifest is not None else "")


def sign(statement: Statement, key: Any) -> bytes:
    """The signature file's content. `key`: as `load_key` gives it."""
    payload = statement.payload()
    public = public_text(key.public_key())
    envelope = {
        "payloadType": KIND,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(public), "sig": base64.b64encode(key.sign(encoding(payload))).decode()}],
    }
    return json.dumps(envelope, indent=2).encode() + b"\n"


def encoding(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what the signature is over."""
    return b"DSSEv1 %d %s %d %s" % (len(KIND), KIND.encode(), len(payload), payload)


def verify(data: bytes, module: bytes, manifest: bytes | None, trusted: Sequence[TrustedKey]) -> Signed:
    """The statement, if one of the keys signed it for these bytes and for its name. Raises SignatureError."""
    payload, signatures = opened(data)
    signer = None
    for key in trusted:
        public = load_public(key.key)
        if any(holds(public, signature, payload) for _, signature in signatures):
            signer = key
            break
    if signer is None:
        ids = ", ".join(identity[:64] for identity, _ in signatures) or "none"
        raise SignatureError(
            f"no trusted key has signed it (it names {ids!a})", "add the signer to trusted_keys, if you trust it"
        )
    statement = read_statement(payload)
    if statement.sha256 != sha256(module):
        raise SignatureError(
            f"the signature is of another file, with SHA-256 {statement.sha256}",
            "get the file that was signed, or sign this one",
        )
    # Else whoever stands between could add one to a filter that was signed without, and ask for more in its name.
    if (sha256(manifest) if manifest is not None else "") != statement.manifest:
        raise SignatureError("its filter.yaml is not the one that was signed", "get the one that was, or sign again")
    if signer.filters is not None and not any(fnmatchcase(statement.name, pattern) for pattern in signer.filters):
        raise SignatureError(
            f"{signer.name} has signed it as {statement.name}, and may not sign for that name",
            f"add {statement.name} to filters of trusted_keys, {signer.name}",
        )
    return Signed(statement, signer.name)


def opened(data: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The payload, and each signature with the key that it says. Raises SignatureError."""
    wrong = SignatureError("the signature file is none", "sign again: penstock filter sign")
    if len(data) > LARGEST:
        raise wrong
    try:
        envelope = json.loads(data)
        if envelope["payloadType"] != KIND:
            raise SignatureError(f"the signature is of another kind: {str(envelope['payloadType'])[:80]!a}", "sign the filter")
        payload = base64.b64decode(envelope["payload"], validate=True)
        listed = envelope["signatures"][:MOST_SIGNATURES]
        return payload, [(str(one.get("keyid", "")), base64.b64decode(one["sig"], validate=True)) for one in listed]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise wrong from None


def read_statement(payload: bytes) -> Statement:
    """Of a payload whose signature holds. Raises SignatureError."""
    try:
        fields = json.loads(payload)
        statement = Statement(**fields)
        texts = (statement.name, statement.version, statement.sha256, statement.manifest)
        if (
            all(isinstance(text, str) for text in texts)
            and NAME.fullmatch(statement.name)
            and VERSION.fullmatch(statement.version)
            and DIGEST.fullmatch(statement.sha256)
            and (not statement.manifest or DIGEST.fullmatch(statement.manifest))
        ):
            return statement
    except (ValueError, TypeError):
        pass
    raise SignatureError("the signed statement cannot be read", "sign again with this version: penstock filter sign")


def holds(public: Any, signature: bytes, payload: bytes) -> bool:
    try:
        public.verify(signature, encoding(payload))
    except primitives("exceptions").InvalidSignature:
        return False
    return True


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---- Keys ----


def installed() -> bool:
    return importlib.util.find_spec("cryptography") is not None


def primitives(module: str) -> Any:
    """A module of cryptography, an extra. Raises SignatureError."""
    if not installed():
        raise SignatureError("signatures need cryptography", INSTALL)
    return importlib.import_module(f"cryptography.{module}")


def ed25519() -> Any:
    return primitives("hazmat.primitives.asymmetric.ed25519")


def load_public(text: str) -> Any:
    """Raises SignatureError."""
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        return ed25519().Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise SignatureError(f"{text[:80]!a} is no public key", "write the line of the .pub file") from None


def public_text(public: Any) -> str:
    return PREFIX + base64.b64encode(public.public_bytes_raw()).decode()


def key_id(public: str) -> str:
    """Names a key, for people and for choosing: nothing is believed because of it."""
    return sha256(base64.b64decode(public.removeprefix(PREFIX)))[:16]


def load_key(path: Path) -> Any:
    """The private key in a PEM file (PKCS #8, without a password). Raises SignatureError."""
    serialization = primitives("hazmat.primitives.serialization")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise SignatureError(f"{path}: can not be read: {error.strerror}", "name the .key file") from None
    except (ValueError, TypeError):
        raise SignatureError(f"{path}: is no private key without a password", "make one: penstock filter keygen NAME") from None
    if not isinstance(key, ed25519().Ed25519PrivateKey):
        raise SignatureError(f"{path}: is no Ed25519 key", "make one: penstock filter keygen NAME")
    return key


def make_key(path: Path) -> str:
    """Write a new private key, readable to its owner alone; gives the public one. Raises SignatureError, OSError."""
    serialization = primitives("hazmat.primitives.serialization")
    key = ed25519().Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return public_text(key.public_key())
