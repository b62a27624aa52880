"""Signed provenance traces for every replica in a Rucio federation."""

__version__ = "0.1.0"
