"""The database: tables, queries and migrations; the only place with SQL."""
