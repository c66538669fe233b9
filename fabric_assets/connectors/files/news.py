"""The listed files and those that earlier loads remember -> the new and changed ones, fetched, and the same bytes only once.

Two things are remembered of a file. By its version (size and times, or a bucket's tag) an unchanged file is not even opened. By its hash
a file with only a new time is not loaded again. Of files with the same bytes the first by name is loaded; the others are its twins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fabric_assets.connectors.files.listing import FetchedFile, SourceFile, fetch
from fabric_assets.rows.column_names import compose
from fabric_assets.visible import show_name

# For each file: version and sha256; for a twin also the name under which its bytes are loaded.
Remembered = Mapping[str, Mapping[str, str]]


@dataclass
class News:
    """The new and changed files of a load.

    Args:
        files: to be loaded, the last changed at the end, so that their rows win among rows with the same key.
        forgotten: names of twins whose earlier rows are removed, because their bytes are loaded under another name.
        seen: what to remember of all files.
    """

    files: list[FetchedFile] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    seen: dict[str, dict[str, str]] = field(default_factory=dict)


def find_news(
    found: Sequence[SourceFile],
    remembered: Remembered,
    folder: Path,
    *,
    replaces: bool,
    most: int,
    where: str,
    report: Callable[[str], None],
    check: Callable[[], None],
) -> News:
    """Fetch the new and changed files.

    Args:
        folder: for copies.
        replaces: a file's rows replace those of its earlier version; twins of the earlier version are then loaded themselves.
        most: bytes that a file may have.
        check: raises when the load's time is up.
    """
    found = _keep_spellings(found, remembered)
    news, hashes = News(), {entry["sha256"]: name for name, entry in remembered.items() if "twin" not in entry}
    at_hand: dict[str, FetchedFile] = {}

    def add(number: int, file: SourceFile) -> None:
        before = remembered.get(file.name, {})
        if file.name not in at_hand:
            check()
            at_hand[file.name] = fetch(file, folder, number, most=most, where=where)
        sha256 = at_hand[file.name].sha256
        if replaces and before and before["sha256"] != sha256 and hashes.get(before["sha256"]) == file.name:
            del hashes[before["sha256"]]
        news.seen[file.name] = {"version": file.kept_version, "sha256": sha256}
        twin = hashes.setdefault(sha256, file.name)
        if twin != file.name:
            report(f"{where}: {file.shown} is skipped: same content as {show_name(twin)}, already loaded")
            news.seen[file.name]["twin"] = twin
            news.forgotten.append(file.name)
        elif before.get("sha256") != sha256 or "twin" in before:
            news.files.append(at_hand[file.name])

    numbered = list(enumerate(found))
    for number, file in numbered:
        known = remembered.get(file.name, {})
        if file.former and known.get("version") == file.former:
            news.seen[file.name] = {**known, "version": file.version}
        elif known.get("version") != file.version:
            add(number, file)
    for number, file in numbered:
        entry = news.seen.get(file.name) or remembered[file.name]
        if replaces and "twin" in entry and entry["sha256"] not in hashes:
            add(number, file)
    news.files.sort(key=lambda fetched: (fetched.source.modified, fetched.source.name))
    return news


def _keep_spellings(found: Sequence[SourceFile], remembered: Remembered) -> Sequence[SourceFile]:
    """Give a file its remembered name if only the Unicode form (NFC, NFD) differs, as after a copy by another system."""
    there = {file.name for file in found}
    known = {compose(name): name for name in remembered if name not in there}
    return [replace(file, name=known.get(compose(file.name), file.name)) if file.name not in remembered else file for file in found]
