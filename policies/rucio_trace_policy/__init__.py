"""Rucio policy package: the outbox in Rucio's database, who acts in a transaction, and trace metadata of DIDs."""

SUPPORTED_VERSION = ">=41.5,<42"
