"""Measurements against named peers: `python -m benchmarks [NAME…]` prints one table."""
