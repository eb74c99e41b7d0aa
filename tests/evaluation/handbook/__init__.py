"""A company's handbook in Korean and English, with a question for each section, in other words than the section's."""

import json
from pathlib import Path

from flowkit.context import Context
from flowkit.models.offline.embeddings import SentenceEmbedder
from knowledge import CANDIDATES, Library, rank_passages
from knowledge_index import AnswerEmbedder, Index

FOLDER = Path(__file__).parent


def count_right(
    folder: Path, *, second: AnswerEmbedder | None, questions: str = "questions.json"
) -> dict[str, dict[int, int]]:
    """Count, by language, for how many questions the right section is among the first 1 and 3; under 0 all questions.

    The questions of `questions.json` are held out: nobody looks at them while a ranking changes; those of
    `development.json` are there for that. The indexes are made in `folder`, with the second encoder if one is given.
    """
    counted: dict[str, dict[int, int]] = {}
    for language, rows in json.loads((FOLDER / questions).read_text(encoding="utf-8")).items():
        index = Index(folder / f"{language}-{second is not None}.sqlite3", SentenceEmbedder(), second)
        index.update(FOLDER / language)
        counted[language] = {0: len(rows), 1: 0, 3: 0}
        for row in rows:
            query = row["question"]
            found = index.search_meaning(query, CANDIDATES), index.search_words(query, CANDIDATES)
            ranked = rank_passages(query, *found, 3, Context(Library(index)))
            places = [(one.file, one.heading) for one in ranked]
            for first in (1, 3):
                counted[language][first] += (row["file"], row["heading"]) in places[:first]
    return counted
