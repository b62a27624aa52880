"""Pseudonyms: the same for the same account and key, and reversed by trying names alone."""

from __future__ import annotations

from rucio_trace.accounts import is_pseudonym, names_by_pseudonym, pseudonym

KEY = b"a secret of this site"


def test_a_pseudonym_is_the_first_half_of_a_keyed_hash() -> None:
    # printf alice | openssl dgst -sha256 -hmac 'a secret of this site'
    assert pseudonym(KEY, "alice") == "hmac-sha256:9750fb7d066320d4d913c3fd058b9c38"
    assert is_pseudonym(pseudonym(KEY, "alice"))
    assert not is_pseudonym("alice")


def test_names_are_found_back_under_their_key_alone() -> None:
    names = names_by_pseudonym(KEY, ["alice", "böb"])
    assert names[pseudonym(KEY, "böb")] == "böb"
    assert pseudonym(b"the secret of another site", "böb") not in names
