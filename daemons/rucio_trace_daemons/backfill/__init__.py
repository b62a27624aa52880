"""An archive that is older than its traces is proven and signed: the recorder's own work, fed by a search for gaps.

`feed` queues untraced replicas, a bounded number at a time; `work` is recorders that empty the outbox, in threads of
this process or in several; `run` holds both together until nothing is left; `remote` has a Dask cluster do the reading.
Nothing is remembered between two runs: what is done has a trace, what is queued is in the outbox, the rest is a gap.
"""
