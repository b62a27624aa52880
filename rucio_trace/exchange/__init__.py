"""Traces in the words of others: reading what comes with products, writing what others read."""
