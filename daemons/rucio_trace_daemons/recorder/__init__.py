"""The recorder: turns changes of replicas in Rucio into signed traces, each exactly once.

The way of a batch is written in `step`; what a change ends as is decided in `decide`, which is pure.
"""
