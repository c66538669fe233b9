"""Text for a CSV file -> text that no spreadsheet runs as a formula (CWE-1236, OWASP ASVS 1.2.10).

A spreadsheet may run a cell that begins with one of these characters when it opens the file. A customer's row could then read or send what the reader's
machine can reach. An apostrophe before the cell makes it text, as in spreadsheets themselves.
"""

# The last four are the full-width forms of the first.
_STARTERS = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")


def neutralise(text: str) -> str:
    """Put an apostrophe before text that could be a formula."""
    return f"'{text}" if text.startswith(_STARTERS) else text
