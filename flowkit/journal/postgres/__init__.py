"""A journal in a PostgreSQL database: for the processes of many machines. It needs the extra `postgres` (psycopg 3)."""
