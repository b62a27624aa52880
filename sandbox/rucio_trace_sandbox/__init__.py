"""A whole Rucio federation on one machine, made of the real parts: for tests, benchmarks and the demo.

Nothing here is meant for production. Every server listens on loopback (or on a
Unix socket), on a port nobody else uses, with its data in one folder, and dies
with the process that started it.

This package imports Rucio's server code only inside functions, because Rucio
reads its configuration when it is imported: call `home.claim_process` first.
"""
