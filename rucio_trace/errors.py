"""What can go wrong, said once: every error this project raises on purpose.

Each class answers one question of the caller: was the input unreadable (`Malformed`), is the
claim false (`Refuted`), or could we not find out (`Undecided`)? "Could not reach the store" is
not "false", so `StorageError` is a kind of `Undecided`.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigurationError",
    "Malformed",
    "Refuted",
    "StorageError",
    "TraceabilityError",
    "Undecided",
    "shown",
]

_SHOWN_CHARACTERS = 400  # a member of a Sentinel-2 archive and its archive; a hostile name is up to 8 MiB long


def shown(value: object) -> str:
    """Print *value* safely: one line, no control characters, bounded length."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _SHOWN_CHARACTERS:
        text = f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class TraceabilityError(Exception):
    """The base of all our errors: names the object, then what was expected, then what was found.

    *hint* is for an operator who can act. All parts are shown safely, whoever wrote them.
    """

    def __init__(self, subject: str, *, expected: str = "", found: str = "", hint: str = "") -> None:
        self.subject, self.expected, self.found, self.hint = subject, expected, found, hint
        super().__init__(subject, expected, found, hint)

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is into another process, whatever the arguments of its class."""
        return _rebuilt, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        details = []
        if self.expected:
            details.append(f"expected {shown(self.expected)}")
        if self.found:
            details.append(f"found {shown(self.found)}")
        text = shown(self.subject) + (": " + ", ".join(details) if details else "")
        return f"{text} ({self.hint})" if self.hint else text


def _rebuilt(kind: type[TraceabilityError], arguments: tuple[Any, ...], state: dict[str, Any]) -> TraceabilityError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class Malformed(TraceabilityError):
    """The input cannot be read: it is not what it says it is."""


class Refuted(TraceabilityError):
    """The claim was checked and is false."""


class Undecided(TraceabilityError):
    """The claim could not be checked; nothing is known about its truth."""


class ConfigurationError(TraceabilityError):
    """A setting, key or file of the operator's is missing or wrong."""


class StorageError(Undecided):
    """A store or a database did not answer."""
