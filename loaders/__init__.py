"""Bring data in: one module per source, each a dlt pipeline that lands in a ``raw_*`` schema."""
