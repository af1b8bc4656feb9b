"""`penstock filter keygen` and `sign`: who made a filter, so that gateways can tell. `verify` is in filter_kit.py."""

import sys
from pathlib import Path

import click

from proxy.cli.filter_kit import PATH, fail

EXIT_FAILED = 1


@click.command()
@click.argument("name", metavar="NAME", type=PATH)
def keygen(name: Path) -> None:
    """Make a pair of Ed25519 keys.

    Writes NAME.key, the private one, which only its owner may read and which signs, and NAME.pub, the public one, which goes
    into trusted_keys of those who run your filters. The private key has no password: keep the file where nobody else is.

    \b
    Example:
      penstock filter keygen acme
    """
    from proxy.sources.signature import SignatureError, key_id, make_key

    private, public = name.with_name(name.name + ".key"), name.with_name(name.name + ".pub")
    if public.exists():
        fail([f"{public}: is there already; write another name"])
    try:
        text = make_key(private)
        public.write_text(text + "\n")
    except SignatureError as error:
        fail([str(error)])
    except OSError as error:
        fail([f"{error.filename}: {error.strerror}; write another name"])
    click.echo(f"{private}: the private key {key_id(text)}. Keep it to yourself.")
    click.echo(f"{public}: the public key. To trust it, in a config:")
    click.echo(f"trusted_keys:\n  - name: {name.name}\n    key: {text}")


@click.command()
@click.argument("file", metavar="FILE.wasm", type=PATH)
@click.option("--key", "key_path", metavar="FILE.key", type=PATH, required=True, help="The private key.")
@click.option("--name", metavar="NAME", help="The filter's name; that of filter.yaml without it.")
@click.option("--version", "version", metavar="VERSION", help="Its version; that of filter.yaml without it.")
def sign(file: Path, key_path: Path, name: str | None, version: str | None) -> None:
    """Sign a filter.

    Writes FILE.wasm.sig beside it. The signature is over the module's SHA-256, the filter's name and version, and the SHA-256
    of the filter.yaml beside it, if that is about this module.

    \b
    Example:
      penstock filter sign my-filter.wasm --key acme.key
    """
    from proxy.sources import asks, signature

    try:
        module = file.read_bytes()
        path = asks.beside(file)
        manifest = path.read_bytes() if path is not None else None
        stated = asks.parse(manifest) if manifest is not None else None
        name = name or (stated.name if stated else "")
        version = version or (stated.version if stated else "")
        for option, value in (("--name", name), ("--version", version)):
            if not value:
                fail([f"{file}: there is no filter.yaml beside it that gives its {option[2:]}; write {option}"])
        statement = signature.statement_of(name, version, module, manifest)
        out = file.with_name(file.name + signature.SUFFIX)
        out.write_bytes(signature.sign(statement, signature.load_key(key_path)))
    except signature.SignatureError as error:
        fail([str(error)])
    except OSError as error:
        fail([f"{error.filename}: {error.strerror}; write the path of a .wasm file"])
    bound = f", with {path}" if path is not None else ""
    click.echo(f"{out}: {name} {version}, SHA-256 {statement.sha256}{bound}")


def checked(path: Path, keys: tuple[str, ...]) -> None:
    """Hold the signature beside a module against keys, each a line `ed25519:...` or a .pub file; ends the process."""
    from proxy.config.sources import TrustedKey
    from proxy.sources import asks, signature

    try:
        texts = [key if key.startswith(signature.PREFIX) else Path(key).read_text().strip() for key in keys]
        trusted = [TrustedKey(name=f"key-{place}", key=text) for place, text in enumerate(texts, 1)]
        beside = asks.beside(path)
        manifest = beside.read_bytes() if beside is not None else None
        data = path.with_name(path.name + signature.SUFFIX).read_bytes()
        found = signature.verify(data, path.read_bytes(), manifest, trusted)
    except OSError as error:
        fail([f"{error.filename}: {error.strerror}"])
    except ValueError:
        fail(["--key: write the .pub file that penstock filter keygen made, or its line"])
    except signature.SignatureError as error:
        click.echo(f"FAIL signature: {error}")
        sys.exit(EXIT_FAILED)
    key = texts[int(found.signer.partition("-")[2]) - 1]
    click.echo(f"ok   signed as {found.statement.name} {found.statement.version} by {signature.key_id(key)}")


COMMANDS = (keygen, sign)
"""What main.py adds to `penstock filter`."""
