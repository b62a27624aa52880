"""How a trace service says no, or nothing. Only what it understood and refused is more than "could not find out"."""

from rucio_trace.errors import ConfigurationError, Malformed, Refuted, StorageError

__all__ = [
    "BadAnswer",
    "BadServiceUrl",
    "BadToken",
    "Denied",
    "NoService",
    "NotTaken",
    "ServiceFailed",
    "ServiceUnavailable",
    "TooLarge",
    "Unreadable",
]


class BadServiceUrl(ConfigurationError):
    """The URL names no service that may be asked."""

    def __init__(self, shown_url: str, found: str, hint: str = "") -> None:
        super().__init__(
            f"trace service {shown_url}", expected="https://host without a user or a query", found=found, hint=hint
        )


class BadToken(ConfigurationError):
    """What should be a token is none; it is not shown."""

    def __init__(self, shown_url: str) -> None:
        super().__init__(
            f"token for trace service {shown_url}", expected="printable ASCII without spaces", found="something else"
        )


class ServiceUnavailable(StorageError):
    """The service did not answer, or could not; trying again later may help."""

    def __init__(self, shown_url: str, reason: str) -> None:
        self.shown_url, self.reason = shown_url, reason
        super().__init__(f"trace service {shown_url}", expected="an answer", found=reason)


class ServiceFailed(ServiceUnavailable):
    """The service broke at what it was sent (500); at something else it may not."""


class BadAnswer(StorageError):
    """The service answered what no trace service answers, or a trace that was altered: nothing of it is used."""

    def __init__(self, shown_url: str, what: str, expected: str, found: str) -> None:
        super().__init__(f"answer of trace service {shown_url}, {what}", expected=expected, found=found)


class Denied(ConfigurationError):
    """The service wants another token."""

    def __init__(self, shown_url: str, detail: str) -> None:
        super().__init__(
            f"trace service {shown_url}",
            expected="to be allowed",
            found=detail,
            hint="a token comes from store.token_file or RUCIO_TRACE_TOKEN_FILE, beside --service from --token-file",
        )


class NoService(ConfigurationError):
    """Something answers at this address, and it is no trace service."""

    def __init__(self, shown_url: str, found: str) -> None:
        super().__init__(f"trace service {shown_url}", expected="a trace service", found=found, hint="check the URL")


class Unreadable(Malformed):
    """The service could not read what it was sent."""

    def __init__(self, shown_url: str, detail: str) -> None:
        super().__init__(f"request to trace service {shown_url}", found=detail)


class TooLarge(Unreadable):
    """More than the service reads at once."""


class NotTaken(Refuted):
    """The service read what it was sent, and will not have it."""

    def __init__(self, shown_url: str, detail: str) -> None:
        super().__init__(f"request to trace service {shown_url}", found=detail)
