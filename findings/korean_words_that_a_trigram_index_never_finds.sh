#!/usr/bin/env bash
# SQLite 3.51 (apsw 3.51.1.0): full-text search of Korean, by the tokenizer that is recommended for languages without
# spaces between words.
# Expected by most: `tokenize = 'trigram'` finds any piece of a text, as its page says of substrings.
# Seen: a word of two syllables is never found, and most Korean nouns have two; the same word with its particle is.
# A trigram is three characters, and a query shorter than that has none. With the default tokenizer it is the other way
# round: the noun isn't found since the particle is part of the word.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.51.1.0
"$work/venv/bin/python" - <<'PYTHON'
import apsw

database = apsw.Connection(":memory:")
seen = {}
for tokenizer in ("trigram", "unicode61"):
    database.execute(f"CREATE VIRTUAL TABLE {tokenizer} USING fts5 (text, tokenize = '{tokenizer}')")
    database.execute(f"INSERT INTO {tokenizer} VALUES ('연차는 15일입니다')")
    for word in ("연차", "연차는"):
        query = f"SELECT count(*) FROM {tokenizer} WHERE {tokenizer} MATCH ?"
        seen[tokenizer, word] = database.execute(query, (f'"{word}"',)).fetchone()[0]
print(apsw.sqlite_lib_version(), seen)
assert list(seen.values()) == [0, 1, 0, 1], seen
PYTHON
echo "as stated"
