"""How the store says no. All but configuration mistakes are "could not find out", never "false"."""

from rucio_trace.errors import ConfigurationError, Refuted, StorageError

__all__ = [
    "BadStoreUrl",
    "CorruptRow",
    "NewerStore",
    "StoreNotEmpty",
    "StoreUnavailable",
    "TooManyTraces",
    "TooMuchEvidence",
    "UnpreparedStore",
]


class BadStoreUrl(ConfigurationError):
    """The URL names no database that a store can live in."""

    def __init__(self, shown_url: str, reason: str) -> None:
        self.shown_url, self.reason = shown_url, reason
        super().__init__(
            f"store {shown_url}",
            found=reason,
            hint="sqlite:////path/of/file.db, postgresql://user@host/database or mysql://user@host/database",
        )


class StoreUnavailable(StorageError):
    """The database did not answer, or refused; trying again later may help."""

    def __init__(self, shown_url: str, reason: str) -> None:
        self.shown_url, self.reason = shown_url, reason
        super().__init__(f"store {shown_url}", expected="an answer", found=reason)


class UnpreparedStore(StorageError):
    """The database holds no tables of ours, or old ones."""

    def __init__(self, shown_url: str, expected: str, found: str | None) -> None:
        super().__init__(
            f"store {shown_url}",
            expected=f"tables of version {expected}",
            found=f"version {found}" if found else "none",
            hint="run `rucio-trace store migrate`",
        )


class NewerStore(StorageError):
    """A newer program has migrated this store; an older one must not write to it."""

    def __init__(self, shown_url: str, expected: str, found: str) -> None:
        super().__init__(
            f"store {shown_url}",
            expected=f"tables of version {expected}",
            found=f"version {found}",
            hint="upgrade rucio-trace",
        )


class CorruptRow(StorageError):
    """A row contradicts itself: it was altered in the database, by a fault or by a hand."""

    def __init__(self, position: object, what: str, expected: str, found: str) -> None:
        self.position, self.what = position, what
        super().__init__(
            f"stored trace at position {position}, {what}",
            expected=expected,
            found=found,
            hint="the row was altered: restore it from a backup",
        )


class TooMuchEvidence(StorageError):
    """More traces speak of these digests than can be judged at once; judging a part of them could mislead."""

    def __init__(self, limit: int, of: str = "traces", *, read: int = 0) -> None:
        """Before it was known, as much was done as reading *read* traces takes."""
        self.limit, self.read = limit, read
        super().__init__("evidence", expected=f"at most {limit} {of}", found="more", hint="ask with --did")


class TooManyTraces(Refuted):
    """A question that no index answers, of more traces than anybody should wait for."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__("search", expected=f"at most {limit} traces to look at", found="more", hint="ask for less")


class StoreNotEmpty(ConfigurationError):
    """A store can only be copied whole: two histories cannot be put into one order afterwards."""

    def __init__(self, shown_url: str) -> None:
        super().__init__(f"store {shown_url}", expected="an empty store", found="one that holds traces")
