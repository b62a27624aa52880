"""Where Rucio's catalogue and our traces do not fit together: `find` looks, `mend` queues what the recorder can mend.

Both work in pages of a bounded number of rows, in the order of a primary key. Each page is one statement, so it sees
one moment of the database, and no transaction stays open between two: a search through an archive of millions takes
minutes, a backfill takes days, and Rucio's database must be able to clean up meanwhile.
"""
