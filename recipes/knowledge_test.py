"""Run with `python -m pytest`: the search on a document of this test; it needs flowkit's extra `local`."""

from pathlib import Path

import knowledge


def test_a_passage_is_found(tmp_path: Path) -> None:
    (tmp_path / "handbook.md").write_text("# Holidays\n\nEverybody has 15 days of holiday a year.\n")
    with knowledge.open_data(documents=tmp_path, index=tmp_path / "index.sqlite3") as data:
        result = knowledge.search.options(data=data, cache=False).run_sync(query="How many days off do I have?")

    assert [passage.file for passage in result.output.passages] == ["handbook.md"]
