"""The accounts that pseudonyms in traces can stand for: from Rucio's database, else as Rucio's server lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_trace.accounts import is_pseudonym, names_by_pseudonym
from rucio_trace.cli.terminal import printable, say
from rucio_trace.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["account_names"]


def account_names(seen: Collection[str], key: bytes | None, given: Collection[str]) -> Mapping[str, str]:
    """The names behind those of *seen* that are pseudonyms under the site's *key*.

    *given* are names to try; Rucio's accounts are asked for only if they are not enough. Says what stays unknown.
    """
    wanted = {account for account in seen if is_pseudonym(account)}
    if not wanted:
        return {}
    if key is None:
        say("note: accounts are pseudonyms; recorder.accounts_key or --accounts-key FILE tells who they are")
        return {}
    names = names_by_pseudonym(key, given)
    if not wanted <= names.keys():
        names |= names_by_pseudonym(key, _accounts_in_rucio())
    if left := len(wanted - names.keys()):
        say(f"note: {left} pseudonyms are of no account known here: another site's, or name them with --account")
    return {account: names[account] for account in wanted & names.keys()}


def _accounts_in_rucio() -> list[str]:
    try:
        from rucio_trace_policy.database import NoDatabase

        try:
            return _of_database()
        except NoDatabase:
            return _of_server()
    except (ModuleNotFoundError, ConfigurationError):  # here is no Rucio, or none is configured
        return []


def _of_database() -> list[str]:
    """Those that were closed too: they may have acted before."""
    from rucio.common.types import InternalAccount
    from rucio_trace_policy.database import open_database
    from sqlalchemy import column, select, table
    from sqlalchemy.exc import DBAPIError

    engine, schema = open_database()
    try:
        with engine.connect() as connection:
            found = connection.scalars(select(table("accounts", column("account"), schema=schema).c.account)).all()
    except DBAPIError as error:
        say(f"note: Rucio's database does not tell its accounts: {printable(str(error).splitlines()[0])}")
        return []
    return [str(InternalAccount(account, from_external=False).external) for account in found]


def _of_server() -> list[str]:
    from rucio.common.exception import RucioException

    from rucio_trace.cli.transfers import client, without_secrets

    try:
        return [str(account["account"]) for account in client().list_accounts()]
    except (RucioException, OSError) as error:  # of which requests makes its own
        said = without_secrets(str(error)).strip().splitlines()
        say(f"note: Rucio does not tell its accounts: {printable(said[0] if said else type(error).__name__)}")
        return []
