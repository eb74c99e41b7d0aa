#!/usr/bin/env bash
# psycopg 3.3.9 with PostgreSQL 16 (pgserver 0.1.4): the product of two parameters, price times quantity.
# Expected by most: Python's `int` travels as one type, so a product that is right for large numbers is right for small.
# Seen: 300 * 300 fails as "smallint out of range", 40000 * 300 is right: each number travels as the smallest type that
# holds it, and PostgreSQL multiplies two smallints as smallint. Tests with prices of two digits don't show it.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check psycopg[binary]==3.3.9 pgserver==0.1.4
"$work/venv/bin/python" - <<'PYTHON'
import tempfile
import warnings

warnings.simplefilter("ignore")
import pgserver
import psycopg

with tempfile.TemporaryDirectory(dir="/tmp") as folder, pgserver.get_server(folder) as server:
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:

        def ask(sql: str, *values: int) -> object:
            try:
                return connection.execute(sql, values).fetchone()[0]
            except psycopg.Error as error:
                return error.diag.message_primary

        seen = [ask("SELECT %s * %s", *values) for values in ((99, 99), (300, 300), (40000, 300))]
        print(seen)
        assert seen == [9801, "smallint out of range", 12000000], seen
        assert ask("SELECT %s + %s", 30000, 30000) == "smallint out of range"
        assert ask("SELECT %s::int * %s", 300, 300) == 90000
PYTHON
echo "as stated"
