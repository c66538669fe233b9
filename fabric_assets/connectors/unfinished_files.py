"""A file's name -> whether the program that writes the file gives it this name only until it is complete.

Upload and download programs write under a name of their own and rename the file at the end. A glob such as `*` matches both names.
"""

import re
from pathlib import PurePosixPath

# WinSCP, FileZilla, browsers, curl and wget wrappers, torrent and cloud clients, editors.
_SUFFIXES = (
    ".part",
    ".filepart",
    ".partial",
    ".crdownload",
    ".download",
    ".opdownload",
    ".tmp",
    ".temp",
    ".upload",
    ".uploading",
    ".incomplete",
    ".inprogress",
    ".writing",
    ".aria2",
    ".swp",
    "._copying_",
)
# Office lays `~$book.xlsx` beside an open `book.xlsx`; Word saves through `~WRD0001.tmp`.
_PREFIXES = ("~",)
_NUMBERED_PART = re.compile(r"\.(part|filepart|partial|tmp)\d*$")
# Spark and Hadoop write below these folders, and move the files out at the end.
_FOLDERS = ("_temporary", ".spark-staging")


def is_unfinished(name: str) -> bool:
    """Whether a name is that of a file that is still being written.

    Args:
        name: the file's path below the source's path.
    """
    *folders, last = PurePosixPath(name.lower()).parts or ("",)
    if any(folder.startswith(_FOLDERS) for folder in folders):
        return True
    return last.startswith(_PREFIXES) or last.endswith((*_SUFFIXES, "~")) or _NUMBERED_PART.search(last) is not None
