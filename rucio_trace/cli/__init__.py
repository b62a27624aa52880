"""The `rucio-trace` command."""
