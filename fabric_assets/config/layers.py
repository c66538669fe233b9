"""A tenant's file, the templates that it extends and the defaults -> one merged tree; each shared file is parsed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fabric_assets.config.folder import DEFAULTS, TEMPLATES, get_shared_file, get_template_names
from fabric_assets.config.overlay import overlay
from fabric_assets.config.problems import Problem, make_problem
from fabric_assets.config.yaml_file import Document, load_document
from fabric_assets.config.yaml_tree import Finding, Node, unpack
from fabric_assets.suggestions import suggest

_OWN_KEYS = ("tenant", "extends")


@dataclass(frozen=True)
class Stack:
    """The layers of one tenant, merged.

    Args:
        root: None where a layer cannot be used: validating the other layers would report mistakes that do not exist.
        texts: of each file, for snippets.
    """

    root: Node | None
    findings: tuple[tuple[Path, Finding], ...]
    texts: dict[Path, str]


@dataclass(frozen=True)
class _Base:
    root: Node | None
    documents: tuple[Document, ...]


class Layers:
    """The defaults and templates of all tenants, each read at its first use and then kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = get_template_names(folder)
        self._templates: dict[str, Document] = {}
        file = get_shared_file(folder, DEFAULTS)
        self._defaults = _load_shared(file) if file else None
        self._bases: dict[tuple[str, ...], _Base] = {}

    def stack(self, file: Path) -> Stack:
        """Lay a tenant's own file over its templates and the defaults."""
        own = load_document(file)
        findings = [(file, finding) for finding in own.findings]
        texts = {file: own.text}
        if own.root is None:
            return Stack(None, tuple(findings), texts)
        extends, refused = self._get_extends(own.root)
        base = self._get_base(extends)
        for document in base.documents:
            texts[document.file] = document.text
            findings += [(document.file, finding) for finding in document.findings]
        findings += [(file, finding) for finding in refused]
        if refused or any(document.root is None for document in base.documents):
            return Stack(None, tuple(findings), texts)
        return Stack(overlay(base.root, own.root) if base.root else own.root, tuple(findings), texts)

    def find_problems(self) -> tuple[Problem, ...]:
        """Report the mistakes in defaults and templates, whether or not a tenant uses them."""
        documents = [self._get_template(name) for name in self._names] + ([self._defaults] if self._defaults else [])
        return tuple(
            make_problem("", document.file, (finding.line, finding.column), finding.path, finding.message, text=document.text)
            for document in documents
            for finding in document.findings
        )

    def _get_extends(self, root: Node) -> tuple[tuple[str, ...], list[Finding]]:
        node = root.value.get("extends")  # type: ignore[union-attr]
        names: list[str] = []
        findings = []
        for index, item in enumerate(node.value if node and isinstance(node.value, list) else []):
            if not isinstance(item.value, str):
                continue  # the model says so
            if item.value not in self._names:
                findings.append(Finding(*unpack(item.at), ("extends", index), f"unknown template '{item.value}'{suggest(item.value, self._names)}"))
            elif item.value in names:
                findings.append(Finding(*unpack(item.at), ("extends", index), f"names '{item.value}' twice"))
            else:
                names.append(item.value)
        return tuple(names), findings

    def _get_base(self, extends: tuple[str, ...]) -> _Base:
        if extends not in self._bases:
            documents = ([self._defaults] if self._defaults else []) + [self._get_template(name) for name in extends]
            self._bases[extends] = _Base(_merge([document.root for document in documents if document.root]), tuple(documents))
        return self._bases[extends]

    def _get_template(self, name: str) -> Document:
        if name not in self._templates:
            folder = self._folder / TEMPLATES
            self._templates[name] = _load_shared(get_shared_file(folder, name) or folder / f"{name}.yaml")
        return self._templates[name]


def _merge(roots: Sequence[Node]) -> Node | None:
    merged = None
    for root in roots:
        merged = overlay(merged, root) if merged else root
    return merged


def _load_shared(file: Path) -> Document:
    document = load_document(file)
    if document.root is None:
        return document
    own = [(key, node) for key, node in document.root.value.items() if key in _OWN_KEYS]  # type: ignore[union-attr]
    refused = tuple(Finding(*unpack(node.key_at), (key,), "belongs in a tenant's own file, not in defaults or templates") for key, node in own)
    return document._replace(findings=(*document.findings, *refused))
