"""The warehouse: a DuckDB index over the artifacts, rebuilt from them at any time.

`schema.sql` holds the tables, `views.sql` what users query, `load` fills it, `query` reads it.
"""
