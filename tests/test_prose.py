"""Plain English: sentences that a stranger understands at the first reading, in docs, docstrings, comments and messages."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CODE = [path for folder in ("fabric_assets", "scripts", "benchmarks", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
LONGEST_IN_DOCS, LONGEST_IN_CODE = 30, 25
# Literary words, and the plain ones: fix, anyone who, so that ... not, suddenly, wrong, again, of which, in which, by which, is not.
BANNED = re.compile(
    r"\b(mend\w*|whoever|whomever|whosoever|lest|of a sudden|at fault|stands? twice|afresh|thereof|wherein|whereby|(?<!there )is none)\b", re.IGNORECASE
)


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


@dataclass(frozen=True)
class Text:
    """A docstring, a comment or a message."""

    kind: str
    line: int
    text: str


def read_texts(source: str) -> Iterator[Text]:
    """Yield the texts of a module that people read; a value within a message counts as one word."""
    yield from _read_strings(ast.parse(source))
    yield from _read_comments(source)


def _read_strings(tree: ast.Module) -> Iterator[Text]:
    within = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str(text)) as string), *_]:
                within.add(id(string))
                yield Text("docstring", string.lineno, text)
    for node in ast.walk(tree):
        if id(node) in within:
            continue
        if isinstance(node, ast.JoinedStr):
            yield Text("message", node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text("message", node.lineno, node.value)


def _read_comments(source: str) -> Iterator[Text]:
    """Yield the comments, those of consecutive lines as one."""
    lines, begun, was_alone = list[str](), 0, False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith(("# fmt:", "# pyright:", "#!")):
            continue
        words = re.sub(r"#+ ?|(noqa|type|pyright): .*? - |(noqa|type|pyright): .*", "", token.string)
        is_alone = token.line.lstrip().startswith("#")
        if lines and is_alone and was_alone and token.start[0] == begun + len(lines):
            lines.append(words)
            continue
        if lines:
            yield Text("comment", begun, "\n".join(lines))
        lines, begun, was_alone = [words], token.start[0], is_alone
    if lines:
        yield Text("comment", begun, "\n".join(lines))


SQL = re.compile(r"\b(select|insert into|delete from|update \w+ set|create|alter|drop|grant|revoke|with \w+ as|union all|case \S+ when)\b", re.IGNORECASE)
PROGRAM = re.compile(r"\\[wdsbW]|\w\(|\(\?|[=;{}]\n|^\s*(import|from|def|class|version:|sources:)\b|\n\s*\w+:(\s|$)", re.MULTILINE)
# A paragraph, an item, an entry of a docstring with its name, a section, a line of a drawn tree, an example.
PART = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=\s*[`*\w, ]+: )|\n *[│├└]|\n\s*(?:Args|Returns|Raises|Yields):|\n(?=    \s*python )")


def is_prose(text: Text) -> bool:
    """Whether a text is made of sentences: no code, SQL, program, regular expression or YAML."""
    return text.kind != "message" or (count_words(text.text) > 2 and not SQL.search(text.text) and not PROGRAM.search(text.text))


def split_text(text: Text) -> Iterator[str]:
    """Yield the sentences of a text."""
    for part in PART.split(text.text):
        # The name that an entry explains is no word of its sentence.
        yield from split_sentences(re.sub(r"^\s*[*\w]+: ", "", part) if text.kind == "docstring" else part)


def count_words(sentence: str) -> int:
    return len([word for word in sentence.split() if re.search(r"\w", word)])


@pytest.mark.parametrize("module", CODE, ids=lambda module: module.relative_to(ROOT).as_posix())
def test_a_module_is_plain_english(module: Path) -> None:
    found = list[str]()
    is_ours = module.is_relative_to(ROOT / "fabric_assets")
    for text in read_texts(module.read_text()):
        # The messages of tests and benchmarks are data.
        if not is_ours and text.kind == "message":
            continue
        if text.kind == "docstring" and re.match(r"\s*(Args|Returns|Raises|Yields):", text.text) and is_ours:
            found.append(f"{text.line}: a docstring says first what it is about, then its {text.text.split(':')[0].strip()}")
        for sentence in split_text(text) if is_prose(text) else ():
            if count_words(sentence) > LONGEST_IN_CODE:
                found.append(f"{text.line}: {count_words(sentence)} words: {sentence}")
            if (banned := BANNED.search(sentence)) and module != Path(__file__):
                found.append(f"{text.line}: {banned[0]!r}: {sentence}")
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_plain_english(page: Path) -> None:
    sentences = [sentence for part in split_page(page.read_text()) for sentence in split_sentences(part)]
    assert [sentence for sentence in sentences if count_words(sentence) > LONGEST_IN_DOCS] == []
    assert [sentence for sentence in sentences if BANNED.search(sentence)] == []


def test_a_long_sentence_is_found() -> None:
    words = " ".join(["word"] * 29)
    code = f"```\n{words} {words}\n```\n"
    page = f"# A heading that does not count\nThe `code of several words` {words}. A [link](docs/x.md) {words} more.\n\n- item {words}\n\n{code}"
    assert [len(sentence.split()) for part in split_page(page) for sentence in split_sentences(part)] == [31, 32, 31]


def test_a_long_sentence_of_code_is_found() -> None:
    words = " ".join(["word"] * 25)
    source = f"""\"\"\"A module.\"\"\"
def f(x):
    \"\"\"{words} more.

    Args:
        x: {words} more.
    \"\"\"
    # {words}
    # more
    raise ValueError(f"{{x}} {words}", "select {words}")
"""
    sentences = [sentence for text in read_texts(source) if is_prose(text) for sentence in split_text(text)]
    assert [count_words(sentence) for sentence in sentences if count_words(sentence) > LONGEST_IN_CODE] == [26, 26, 26, 26]
