"""Do the TLS files of a config hold what they must? Whether they can be read was checked when it was loaded."""

import ssl
from collections.abc import Iterator

from proxy.config.model import Config
from proxy.config.problem import KeyPath, Problem

SAYS_NOTHING = "PEM lib"
"""OpenSSL's word for a file in which it finds nothing at all."""


def check_tls_files(config: Config) -> list[Problem]:
    """One problem for each certificate, key or CA file that the gateway could not use."""
    return [config.problem(*found) for found in (*listeners(config), *clusters(config))]


def listeners(config: Config) -> Iterator[tuple[KeyPath, str, str]]:
    for index, listener in enumerate(config.listeners):
        tls = listener.tls
        if tls is None:
            continue
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        place = ("listeners", index, "tls")
        try:
            context.load_verify_locations(str(tls.certificate))
        except OSError as error:
            yield (*place, "certificate"), f"holds no usable certificate{why(error)}", "name a PEM file with the certificate"
            continue
        asked: list[bool] = []

        def no_password(asked: list[bool] = asked) -> str:
            asked.append(True)
            return ""

        try:
            context.load_cert_chain(str(tls.certificate), str(tls.private_key), no_password)
        except OSError as error:
            mend = "name the PEM file with the certificate's key"
            if asked:
                yield (*place, "private_key"), "is encrypted", "name a key without passphrase, protected by the file's mode"
            elif isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
                yield (*place, "private_key"), "is not the key of the certificate", mend
            else:
                yield (*place, "private_key"), f"holds no usable key{why(error)}", mend


def clusters(config: Config) -> Iterator[tuple[KeyPath, str, str]]:
    for index, cluster in enumerate(config.clusters):
        if cluster.tls is None or cluster.tls.ca is None:
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(str(cluster.tls.ca))
        except OSError as error:
            place = ("clusters", index, "tls", "ca")
            yield place, f"holds no usable certificate{why(error)}", "name a PEM file with the trusted certificates"


def why(error: OSError) -> str:
    """OpenSSL's reason in words, if it has one; never a path, which may be a secret."""
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    if not reason or SAYS_NOTHING in reason:
        return ""
    return f" ({reason.lower().replace('_', ' ')})"
