"""A YAML file -> its tree, or every reason why it has no tree. Files come from outside: size, kind and encoding are checked before a byte is parsed."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

import yaml

from fabric_assets.config.yaml_tree import Finding, Node, build_tree, unpack

MAX_BYTES = 256 * 1024
_SHOWN = 100

_PLAIN_WORDS = {
    "found character that cannot start any token": "a value cannot begin with this character (a tab, @, `, %): use spaces, or put the value in quotes",
    "mapping values are not allowed in this context": "a key is not expected here: look at the indentation, or put the value in quotes",
    "could not find expected ':'": "a colon is missing after the key",
    "did not find expected node content": "a value is missing here",
    "did not find expected key": "a key is expected here: look at the indentation",
    "control characters are not allowed": "control characters are not allowed",
}

_NEVER_CLOSED = {
    "quoted scalar": "the quote that opens here is never closed",
    "flow sequence": "the [ that opens here is never closed",
    "flow mapping": "the { that opens here is never closed",
}


class Document(NamedTuple):
    """A file after reading and parsing.

    Args:
        root: None if the file is too broken to have a tree.
        text: empty if the file could not be read.
    """

    file: Path
    text: str
    root: Node | None
    findings: tuple[Finding, ...]


def load_document(file: Path) -> Document:
    """Read and parse one file; each mistake is a finding, never an exception."""
    text, finding = _read(file)
    if finding:
        return Document(file, text, None, (finding,))
    findings: list[Finding] = []
    root = None
    try:
        root = build_tree(text, file, findings)
    except yaml.YAMLError as error:
        findings.append(_describe(error, text))
    if root is not None and not isinstance(root.value, dict):
        findings.append(Finding(*unpack(root.at), (), "the file must be a mapping (key: value)"))
        root = None
    elif root is None and not findings:
        findings.append(Finding(1, 1, (), "the file is empty"))
    if len(findings) > _SHOWN:
        findings[_SHOWN:] = [findings[_SHOWN]._replace(path=(), message=f"... and {len(findings) - _SHOWN} more mistakes of the same kind")]
    return Document(file, text, root, tuple(findings))


def read_text(file: Path) -> str:
    """Read one file; returns an empty text where `load_document` would not parse the file."""
    return _read(file)[0]


def _read(file: Path) -> tuple[str, Finding | None]:
    try:
        # Links are followed, since Kubernetes mounts files as links. The call must not block: a pipe would wait for a writer for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return "", Finding(1, 1, (), "must be a file; it is a folder, a pipe or a device")
            data = os.read(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return "", Finding(1, 1, (), "is a link to a file that does not exist")
    except OSError as error:
        return "", Finding(1, 1, (), f"cannot be read: {os.strerror(error.errno or 0)}")
    if len(data) > MAX_BYTES:
        return "", Finding(1, 1, (), f"is larger than {MAX_BYTES // 1024} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return "", Finding(line, error.start - data.rfind(b"\n", 0, error.start), (), "is not UTF-8 text")
    if "\0" in text:
        position = text.index("\0")
        return text, Finding(text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position), (), "holds a NUL character")
    return text, None


def _describe(error: yaml.YAMLError, text: str) -> Finding:
    reason = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed")
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    for opened, words in _NEVER_CLOSED.items():
        # The parser notices it at the end of the file or at the next key; the mistake is where it opens.
        if context and opened in str(getattr(error, "context", "")) and (mark is None or mark.line > context.line or "end of stream" in reason):
            mark, reason = context, words
    mark = mark or context
    if mark is None:  # the reader's errors carry an offset instead
        position = min(int(getattr(error, "position", 0) or 0), len(text))
        line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    else:
        line, column = mark.line + 1, mark.column + 1
    return Finding(min(line, text.count("\n") + 1), column, (), f"is not valid YAML: {_PLAIN_WORDS.get(reason, reason)}")
