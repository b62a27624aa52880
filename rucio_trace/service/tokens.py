"""The file of tokens: who may register, and read what is private. It holds hashes; a token is shown once, when made.

Every change replaces the file at once, under a lock, so that readers see the old or the new one; a service follows it
on disk. A token is 256 random bits: nobody finds one by its SHA-256, which needs no salt therefore.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rucio_trace import strictjson
from rucio_trace.errors import ConfigurationError, Malformed
from rucio_trace.service.access import Principal, Role
from rucio_trace.statement import format_time, parse_time
from rucio_trace.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Entry", "TokenFile", "Tokens"]

_MAX_NAME = 64  # characters, as the store keeps of a provider
_PREFIX = "rt_"  # tells scanners of leaked secrets, and people, what it is
_KEYS = frozenset({"name", "provider", "roles", "sha256", "created", "until"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One token as it is kept. `until` ends the grace of one that was rotated."""

    name: str
    provider: str
    roles: frozenset[Role]
    sha256: str
    created: datetime
    until: datetime | None = None

    def valid_at(self, now: datetime) -> bool:
        return self.until is None or now < self.until


class Tokens:
    """Finds the holder of a token in a file followed on disk; no file is no tokens. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError: there is a file that cannot be used."""
        self._path, self._lock = path, threading.Lock()
        self._load()

    def __call__(self, token: str) -> Principal | None:
        """Raises ConfigurationError: the file has changed to one that cannot be used."""
        with self._lock:
            if self._files.changed:
                self._load()
            entry = self._entries.get(_hash(token))
        if entry is None or not hmac.compare_digest(entry.sha256, _hash(token)):
            return None
        valid = entry.valid_at(datetime.now(UTC))
        return Principal(entry.name, entry.provider, entry.roles) if valid else None

    @property
    def providers(self) -> set[str]:
        """Whose there are."""
        return {entry.provider for entry in self._entries.values()}

    def __len__(self) -> int:
        return len(self._entries)

    def _load(self) -> None:
        files = Watched()
        self._entries = {entry.sha256: entry for entry in _read(self._path, files)}
        self._files = files


class TokenFile:
    """Changes the file of tokens; several processes may at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> list[Entry]:
        return _read(self._path, Watched())

    def create(self, name: str, provider: str, roles: Sequence[Role], now: datetime) -> str:
        """A new token. Raises ConfigurationError: the name is taken, or a name is none."""
        for what, text in (("name", name), ("provider", provider)):
            if not 0 < len(text) <= _MAX_NAME or not text.isprintable():
                raise ConfigurationError(what, expected=f"1 to {_MAX_NAME} characters", found=repr(text))
        token, entry = _new(name, provider, frozenset(roles), now)
        with self._changing() as entries:
            if any(each.name == name for each in entries):
                raise ConfigurationError(f"token {name}", expected="a new name", found="one that is there")
            entries.append(entry)
        return token

    def rotate(self, name: str, grace: timedelta, now: datetime) -> str:
        """A new token for *name*; the old one ends after *grace*. Raises ConfigurationError: there is no such name."""
        with self._changing() as entries:
            old = self._named(entries, name)
            token, entry = _new(name, old[-1].provider, old[-1].roles, now)
            kept = [each for each in entries if each.name != name]
            ending = [replace(each, until=min(each.until or now + grace, now + grace)) for each in old]
            entries[:] = [*kept, *(each for each in ending if each.valid_at(now)), entry]
        return token

    def revoke(self, name: str) -> None:
        """End every token of *name*, now. Raises ConfigurationError: there is no such name."""
        with self._changing() as entries:
            self._named(entries, name)
            entries[:] = [each for each in entries if each.name != name]

    def _named(self, entries: Sequence[Entry], name: str) -> list[Entry]:
        if found := [each for each in entries if each.name == name]:
            return found
        raise ConfigurationError(
            f"token {name}", expected=f"a name in {self._path}", found="none", hint="rucio-trace token list"
        )

    @contextmanager
    def _changing(self) -> Iterator[list[Entry]]:
        """The entries, to be changed in place; nobody else changes them meanwhile."""
        path = self._path.with_name(f"{self._path.name}.lock")
        with ExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                lock = stack.enter_context(path.open("ab"))
                os.fchmod(lock.fileno(), 0o600)
            except OSError as error:
                hint = "run `rucio-trace token` as the service's user; remove the file if another made it"
                expected = "a file that this user may lock"
                raise ConfigurationError(
                    str(path), expected=expected, found=error.strerror or str(error), hint=hint
                ) from error
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self.entries()
            yield entries
            _replace(self._path, _written(entries))


def _new(name: str, provider: str, roles: frozenset[Role], now: datetime) -> tuple[str, Entry]:
    token = _PREFIX + secrets.token_urlsafe(32)
    return token, Entry(name, provider, roles, _hash(token), now)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _read(path: Path, files: Watched) -> list[Entry]:
    try:
        data = files.read(path)
    except ConfigurationError:
        if path.exists():
            raise
        return []
    try:
        value = strictjson.read(data, str(path))
        return [_entry(item) for item in value["tokens"]]
    except (Malformed, KeyError, TypeError, ValueError) as error:
        hint = "`rucio-trace token` writes it; restore it, or remove it and make new tokens"
        raise ConfigurationError(str(path), expected="a file of tokens", found=str(error), hint=hint) from error


def _entry(item: dict[str, Any]) -> Entry:
    if unknown := dict(item).keys() - _KEYS:
        raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
    return Entry(
        name=str(item["name"]),
        provider=str(item["provider"]),
        roles=frozenset(map(Role, item["roles"])),
        sha256=str(item["sha256"]),
        created=parse_time(item["created"]),
        until=parse_time(item["until"]) if "until" in item else None,
    )


def _written(entries: Sequence[Entry]) -> bytes:
    items = [
        {
            "name": entry.name,
            "provider": entry.provider,
            "roles": sorted(entry.roles),
            "sha256": entry.sha256,
            "created": format_time(entry.created),
            **({"until": format_time(entry.until)} if entry.until else {}),
        }
        for entry in entries
    ]
    return json.dumps({"tokens": items}, indent=1).encode() + b"\n"


def _replace(path: Path, data: bytes) -> None:
    """Write the whole file anew, for its owner alone, whoever changes it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if path.exists() and path.stat().st_uid != os.geteuid():
                os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - says what it does
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
