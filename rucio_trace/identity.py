"""Who may sign, and what about: anchors, the federation file and its members' rights.

A `Trust` is built once, from bytes, and then only asked. `from_anchors` trusts every signer of
some authorities with everything; `from_federation` gives each member its own authority, subjects
and rights (docs/format.md, section 6). Files are read by the caller: this module does no I/O.
"""

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509

from rucio_trace import certificates
from rucio_trace.certificates import Certificate
from rucio_trace.chains import CACHED_SIGNERS, Anchors, ChainKey, Path, chain_key
from rucio_trace.errors import ConfigurationError, Malformed
from rucio_trace.revocation import Revocations
from rucio_trace.statement import Event, Statement

__all__ = ["Member", "Patterns", "SubjectPattern", "Trust"]


class Patterns:
    """Names with `*` for any run of characters; an empty list matches nothing."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)

    def match(self, name: str) -> bool:
        return any(_matches(pattern, name) for pattern in self.patterns)

    def __str__(self) -> str:
        return ", ".join(self.patterns) or "nothing"


def _matches(pattern: str, name: str) -> bool:
    """Each part between stars is found where it first occurs: no name costs more than a search a part."""
    first, *middle = pattern.split("*")
    if not middle:
        return name == pattern
    last = middle.pop()
    position, end = len(first), len(name) - len(last)
    if position > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


class SubjectPattern:
    """`URI:…` held against the SAN URIs, `DN:…` against the subject, `*` for any certificate.

    A DN is written as in RFC 4514 and compared name by name, so that a `*` cannot reach over a
    comma into the next one.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._uri: str | None = None
        self._names: list[tuple[str, str]] | None = None
        if pattern.startswith("URI:") and len(pattern) > 4:
            self._uri = pattern[4:]
        elif pattern.startswith("DN:"):
            self._names = _names_of_pattern(pattern[3:])
        elif pattern != "*":
            raise ConfigurationError("subject", expected="URI:…, DN:… or *", found=pattern)

    def match(self, certificate: Certificate) -> bool:
        if self._uri is not None:
            # two URIs, one of them another member's, name nobody
            return bool(certificate.uris) and all(_matches(self._uri, uri) for uri in certificate.uris)
        if self._names is not None:
            names = _names_of(certificate.x509.subject)
            return len(names) == len(self._names) and all(
                oid == wanted and _matches(wanted_value, value)
                for (oid, value), (wanted, wanted_value) in zip(names, self._names, strict=True)
            )
        return True


def _names_of(name: x509.Name) -> list[tuple[str, str]]:
    """Most special first, as RFC 4514 writes them."""
    return [(a.oid.dotted_string, str(a.value)) for rdn in reversed(name.rdns) for a in rdn]


def _names_of_pattern(text: str) -> list[tuple[str, str]]:
    try:
        names = _names_of(x509.Name.from_rfc4514_string(text))
    except ValueError as error:
        raise ConfigurationError("subject", expected="a DN as in RFC 4514", found=f"{text}: {error}") from None
    if not names:
        raise ConfigurationError("subject", expected="a DN with at least one name", found=text)
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of the federation: whose certificates are its own, and what they may say."""

    name: str
    anchors: Anchors
    subjects: tuple[SubjectPattern, ...]
    rses: Patterns
    create: Patterns
    obsolete: Patterns
    revoke: Patterns
    outside: bool
    needs_crl: bool

    def owns(self, certificate: Certificate) -> bool:
        return any(subject.match(certificate) for subject in self.subjects)

    def missing_right(self, s: Statement, scope: str | None = None) -> str | None:
        """The right this member lacks for saying *s*; None when it may.

        Whoever looks at replicas needs their RSE; whoever speaks for a product needs its scope. A file in no Rucio has
        neither: it is spoken of by right of *scope*, that of a product in Rucio which it is, or of `outside`.
        """
        product = s.product
        if s.outside and scope is None:
            return None if self.outside else "the right to speak of files outside Rucio"
        if s.rse is not None:
            return None if self.rses.match(s.rse) else f"the right to attest RSE {s.rse}"
        if product is not None:
            scope = product.scope
        rights = {Event.CREATE: self.create, Event.OBSOLETE: self.obsolete, Event.REVOKE: self.revoke}
        patterns = rights.get(s.event)
        if patterns is not None and patterns.match(scope or ""):
            return None
        return f"the right to {s.event} in scope {scope}"


@dataclass(frozen=True, slots=True)
class Trust:
    """Everyone we believe, each for what they may say. No members: nobody."""

    members: tuple[Member, ...]
    revocations: Revocations = field(default_factory=lambda: Revocations(()))
    _vouching: dict[ChainKey, tuple[Member, ...]] = field(default_factory=dict, repr=False, compare=False)

    def vouching(self, signer: Certificate, chain: tuple[Certificate, ...], at: datetime) -> list[tuple[Member, Path]]:
        """The members to whose authorities a path leads from *signer*, each with one: see `Anchors.path`.

        Whether there is any path does not depend on the time, so who is asked is kept: a federation
        of a hundred members costs no more than one of two.
        """
        key = chain_key(signer, chain)
        members = self._vouching.get(key)
        if members is None:
            members = tuple(m for m in self.members if m.anchors.path(signer, chain, at))
            if any(m.owns(signer) for m in members):
                members = tuple(m for m in members if m.owns(signer))
            if len(self._vouching) >= CACHED_SIGNERS:
                self._vouching.clear()
            self._vouching[key] = members
        return [(member, path) for member in members if (path := member.anchors.path(signer, chain, at))]

    @classmethod
    def from_anchors(cls, pems: Iterable[bytes], crls: Iterable[bytes] = ()) -> "Trust":
        """Any signer below these certificates may say anything: the verdict prints who it was.

        As soon as one revocation list is given, every signer's issuer needs one.

        Raises:
            ConfigurationError: unreadable certificates or lists.
        """
        loaded = [c for pem in pems for c in _authorities(pem, "anchors")]
        revocations = Revocations(crls)
        everything = Patterns(["*"])
        member = Member(
            name="anchors",
            anchors=Anchors(loaded),
            subjects=(SubjectPattern("*"),),
            rses=everything,
            create=everything,
            obsolete=everything,
            revoke=everything,
            outside=True,
            needs_crl=bool(revocations),
        )
        return cls((member,) if loaded else (), revocations)

    @classmethod
    def from_federation(cls, text: str, read: Callable[[str], bytes]) -> "Trust":
        """Read a federation file; *read* gives the bytes of the certificates and lists it names.

        Raises:
            ConfigurationError: a wrong or missing key, or an unreadable file.
        """
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # not all that tomllib refuses is a TOMLDecodeError
            raise ConfigurationError("federation file", expected="TOML", found=str(error)) from None
        _check_keys("federation file", table, ("name", "member"))
        entries = table.get("member")
        if not isinstance(entries, list) or not entries:
            raise ConfigurationError("federation file", expected="at least one [[member]]", found="none")
        lists: dict[str, bytes] = {}
        shared: dict[tuple[str, ...], Anchors] = {}
        members = tuple(_member(entry, _reader(read), lists, shared) for entry in entries)
        names = [member.name for member in members]
        if len(set(names)) != len(names):
            raise ConfigurationError("federation file", expected="every member once", found=", ".join(names))
        return cls(members, Revocations(lists.values()))


_MEMBER_KEYS = ("name", "ca", "crl", "subject", "rses", "create", "obsolete", "revoke", "outside")


def _member(
    entry: Any, read: Callable[[str], bytes], lists: dict[str, bytes], shared: dict[tuple[str, ...], Anchors]
) -> Member:
    """Read one member; *lists* and *shared* collect the files of all, each read once."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise ConfigurationError("federation file, member", expected="a table with a name", found=repr(entry))
    where = f"federation file, member {entry['name']}"
    _check_keys(where, entry, _MEMBER_KEYS)
    authorities, crls = _texts(where, entry, "ca"), _texts(where, entry, "crl")
    subjects = _texts(where, entry, "subject")
    if not authorities or not subjects:
        raise ConfigurationError(where, expected="ca and subject", found="one of them missing or empty")
    outside = entry.get("outside", False)
    if not isinstance(outside, bool):
        raise ConfigurationError(f"{where}, outside", expected="true or false", found=repr(outside))
    for location in crls:
        if location not in lists:
            lists[location] = read(location)
    if authorities not in shared:
        shared[authorities] = Anchors([c for file in authorities for c in _authorities(read(file), file)])
    return Member(
        name=entry["name"],
        anchors=shared[authorities],
        subjects=tuple(SubjectPattern(subject) for subject in subjects),
        rses=Patterns(_texts(where, entry, "rses")),
        create=Patterns(_texts(where, entry, "create")),
        obsolete=Patterns(_texts(where, entry, "obsolete")),
        revoke=Patterns(_texts(where, entry, "revoke")),
        outside=outside,
        needs_crl=bool(crls),
    )


def _check_keys(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else ""
            raise ConfigurationError(where, expected=f"one of {', '.join(known)}", found=key, hint=hint)


def _texts(where: str, entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A text or a list of texts; absent is empty."""
    value = entry.get(key, [])
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise ConfigurationError(f"{where}, {key}", expected="a text or a list of texts", found=repr(value))
    return tuple(items)


def _reader(read: Callable[[str], bytes]) -> Callable[[str], bytes]:
    def read_file(location: str) -> bytes:
        try:
            return read(location)
        except OSError as error:
            raise ConfigurationError(
                f"federation file, {location}", expected="a readable file", found=error.strerror or str(error)
            ) from error

    return read_file


def _authorities(pem: bytes, subject: str) -> list[Certificate]:
    try:
        return certificates.load_pem(pem, subject)
    except Malformed as error:
        raise ConfigurationError(error.subject, expected=error.expected, found=error.found) from None
