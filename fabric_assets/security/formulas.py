"""Text for a CSV file -> text that no spreadsheet takes for a formula (CWE-1236, OWASP ASVS 1.2.10).

A cell that begins with one of these characters may be run when the file is opened. A customer's row could then read or send what the reader's machine can
reach. An apostrophe before it makes it text, and is what spreadsheets themselves write for that.
"""

# The last four are the full-width forms of the first.
_STARTERS = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")


def neutralise(text: str) -> str:
    """Put an apostrophe before text that could be a formula."""
    return f"'{text}" if text.startswith(_STARTERS) else text
