"""Accounts as traces name them: a pseudonym tells one from another, and only the site's key tells who it is.

Pure; safe to call concurrently.
"""

import hashlib
import hmac
from collections.abc import Iterable

__all__ = ["is_pseudonym", "names_by_pseudonym", "pseudonym"]

_MARK = "hmac-sha256:"
_HEX_DIGITS = 32  # 128 bits: nobody finds another account with the same one


def pseudonym(key: bytes, name: str) -> str:
    """What stands in traces for the account *name*, by its name outside of any VO; *key* is the site's secret."""
    return _MARK + hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:_HEX_DIGITS]


def is_pseudonym(account: str) -> bool:
    return account.startswith(_MARK)


def names_by_pseudonym(key: bytes, names: Iterable[str]) -> dict[str, str]:
    """The way back: pseudonyms cannot be reversed, but the accounts there are can be tried."""
    return {pseudonym(key, name): name for name in names}
