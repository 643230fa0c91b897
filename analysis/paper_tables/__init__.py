"""The tables of the papers, and the numbers behind the figures of two, filled from the result tables of runs.

``python -m analysis.paper_tables RUN...`` writes them; :mod:`analysis.paper_tables.catalogue` lists them.
"""

from analysis.paper_tables.catalogue import (
    PAPER_TABLES,
    Written,
    named,
    read_sources,
    sources_of,
    tables_of,
    write_tables,
)
from analysis.paper_tables.fill import Filled, fill
from analysis.paper_tables.render import layout, to_json

__all__ = [
    "PAPER_TABLES",
    "Filled",
    "Written",
    "fill",
    "layout",
    "named",
    "read_sources",
    "sources_of",
    "tables_of",
    "to_json",
    "write_tables",
]
