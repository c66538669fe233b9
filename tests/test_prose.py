"""Plain English: sentences that a stranger understands at the first reading, in docs, docstrings, comments and messages."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST_IN_DOCS = 30
# Literary words, and the plain ones: fix, anyone who, so that ... not, suddenly, wrong, again, of which, in which, by which, is not.
BANNED = re.compile(r"\b(mend\w*|whoever|whomever|whosoever|lest|of a sudden|at fault|stands? twice|afresh|thereof|wherein|whereby|is none)\b", re.IGNORECASE)


def split_page(text: str) -> Iterator[str]:
    """Yield the paragraphs and list items of a page, without code, tables, comments and headings."""
    text = re.sub(r"^```.*?^```|<!--.*?-->", "\n\n", text, flags=re.DOTALL | re.MULTILINE)
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|^#.*\n?", text, flags=re.MULTILINE):
        if part.strip() and not part.lstrip().startswith("|"):
            yield part


def split_sentences(paragraph: str) -> Iterator[str]:
    """Yield the sentences of a paragraph; code counts as one word, a link as its text."""
    plain = re.sub(r"`[^`]*`", "X", paragraph)
    plain = re.sub(r"\]\([^)]*\)", "]", plain)
    yield from re.split(r"(?<=[.!?])\s+(?=[A-Z(\[])", re.sub(r"\s+", " ", plain).strip())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_plain_english(page: Path) -> None:
    sentences = [sentence for part in split_page(page.read_text()) for sentence in split_sentences(part)]
    assert [sentence for sentence in sentences if len([word for word in sentence.split() if re.search(r"\w", word)]) > LONGEST_IN_DOCS] == []
    assert [sentence for sentence in sentences if BANNED.search(sentence)] == []


def test_a_long_sentence_is_found() -> None:
    words = " ".join(["word"] * 29)
    code = f"```\n{words} {words}\n```\n"
    page = f"# A heading that does not count\nThe `code of several words` {words}. A [link](docs/x.md) {words} more.\n\n- item {words}\n\n{code}"
    assert [len(sentence.split()) for part in split_page(page) for sentence in split_sentences(part)] == [31, 32, 31]
