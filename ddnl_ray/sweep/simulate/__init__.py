"""A sweep on a modelled cluster in simulated time: how long, how much, and what the tail is, before anything is spent.

The plan, the studies, the search, the ledger and the status are those of a real sweep; only machines and trials are
modelled. What comes out are no results: every row says ``device: simulated``, and its folder is refused as a run.
"""
