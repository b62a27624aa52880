"""What the settings stand for, opened: the trace store, and whom we trust. The edge: this reads files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_trace.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rucio_trace.client import ServiceStore
    from rucio_trace.config import Settings
    from rucio_trace.config import Trust as TrustSettings
    from rucio_trace.envelope import Signer
    from rucio_trace.identity import Trust
    from rucio_trace.store import Store, TraceStore

__all__ = [
    "load_signer",
    "load_trust",
    "open_database",
    "open_service",
    "open_store",
    "read_accounts_key",
    "read_file",
    "read_secret",
]

PATIENCE_SECONDS = 10.0
"""How long a service that is away is asked: commands keep what they have, daemons come again."""

_MIN_ACCOUNTS_KEY = 16  # 128 bits, else accounts could be guessed back


def read_file(path: Path, *, most: int = -1) -> bytes:
    """The bytes, all or at most so many, of a file that somebody named in the settings or on the command line.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise ConfigurationError(str(path), expected="a readable file", found=error.strerror or str(error)) from error


def read_secret(path: Path | None) -> bytes | None:
    """The secret that the file at *path* holds, without the line's end an editor leaves."""
    return None if path is None else read_file(path).strip(b"\r\n")


def read_accounts_key(path: Path) -> bytes:
    """The site's secret for pseudonyms.

    Raises:
        ConfigurationError: it cannot be read, or could be guessed.
    """
    key = read_file(path).strip()
    if len(key) < _MIN_ACCOUNTS_KEY:
        raise ConfigurationError(str(path), expected=f"at least {_MIN_ACCOUNTS_KEY} bytes", found=f"{len(key)}")
    return key


def open_store(settings: Settings, *, migrate: bool, spool: Path | None = None) -> TraceStore:
    """The store that the settings name: a database, or a service, which is not asked before it is used.

    What a service that is away cannot take waits in the folder *spool*, if one is given.

    Raises:
        ConfigurationError: they name none, or not so that it can be opened.
        StorageError: it does not answer, or is not ready and *migrate* is False.
    """
    return open_service(settings, spool) if settings.store.service else open_database(settings, migrate=migrate)


def open_database(settings: Settings, *, migrate: bool) -> Store:
    """The store that the settings name, which must be a database; raises as `open_store` does."""
    from rucio_trace.store import Store

    if service := settings.store.service:
        raise ConfigurationError(
            f"store {service}", expected="a database", found="a trace service, whose operator does this"
        )
    if not settings.store.url:
        where = settings.file or "no settings file found"
        raise ConfigurationError(
            f"{where}: store.url", expected="the URL of a trace store", found="none", hint="or name a service"
        )
    password = read_secret(settings.store.password_file)
    return Store.open(settings.store.url, password=password.decode() if password else None, migrate=migrate)


def open_service(settings: Settings, spool: Path | None = None) -> ServiceStore:
    """The service that the settings name. Its times of registration count if nobody on the way could change them.

    Raises:
        ConfigurationError: its URL or its token cannot be used.
    """
    from rucio_trace.client import Client, ServiceStore
    from rucio_trace.client.asking import is_in_the_open

    file = settings.store.token_file
    client = Client(
        settings.store.service,
        None if file is None else lambda: (read_secret(file) or b"").decode("utf-8", "replace"),
        patience=PATIENCE_SECONDS,
        spool=spool,
    )
    return ServiceStore(client, own=settings.own_service and not is_in_the_open(client.url))


def load_signer(key: Path, certificate: Path, password_file: Path | None) -> Signer:
    """The key at *key*, with its certificate and those that vouch for it.

    Raises:
        ConfigurationError: a file cannot be read, or they do not belong together.
    """
    from rucio_trace.envelope import Signer

    return Signer.load(read_file(key), read_file(certificate), read_secret(password_file))


def load_trust(settings: TrustSettings, read: Callable[[Path], bytes] = read_file) -> Trust | None:
    """Whom the settings trust: the federation's members, else any signer of the anchors; None if they name nobody.

    A folder of anchors stands for the `.pem` and `.crt` files in it. *read* may watch the files it reads.

    Raises:
        ConfigurationError: a file is missing or wrong.
    """
    from rucio_trace.identity import Trust

    if settings.federation is not None:
        folder = settings.federation.parent
        text = read(settings.federation).decode("utf-8", "replace")
        return Trust.from_federation(text, lambda name: read(folder / name))
    if not settings.anchors:
        return None
    files = [file for path in settings.anchors for file in _certificate_files(path)]
    return Trust.from_anchors([read(file) for file in files], [read(file) for file in settings.crls])


def _certificate_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in (".pem", ".crt"))
    if not files:
        raise ConfigurationError(str(path), expected="certificates (*.pem, *.crt)", found="none")
    return files
