"""The auditor: reads every replica again in its turn, signs what it found good, and has Rucio replace what is not.

    rounds    campaigns and their rounds: which replicas are read next, kept in Rucio's database
    work      one worker's share of a round, by lease, and what it found
    examine   one replica held against its origin
    batches   what was found good, signed: one VERIFY for up to 10,000 replicas of an RSE
    declare   bad replicas, once a CORRUPT or LOST trace of the recorder stands, declared in Rucio
    campaigns, progress, forecast, copies, reporting, plots, page      what `rucio-trace audit` does and shows
    breaker   too much that is bad at once is the storage's fault: nothing is declared any more

The auditor signs no CORRUPT and no LOST: it leaves a doubt in the outbox, and the recorder looks for itself.
"""
