"""The demo: a federation of two sites on this machine, and the life of two products in it, told as it happens."""
