"""What a dropped CSV file says, cell by cell, however it is written."""

import gzip
import json
from typing import Any

import pytest

from tests.connectors.csv_import.imports import drop, get_quarantine

PLAIN = b"a,b,c\n1,2,3\n4,5,6\n"
ROWS = [("1", "2", "3"), ("4", "5", "6")]


# The public edge cases of CSV: github.com/maxogden/csv-spectrum, and RFC 4180's own examples.
@pytest.mark.parametrize(
    ("content", "rows", "lines"),
    [
        pytest.param(b'a,b,c\nJohn,"120 any st.","Anytown, WW"\n', [("John", "120 any st.", "Anytown, WW")], [2], id="comma in quotes"),
        pytest.param(b'a,b,c\n1,"",""\n2,3,4\n', [("1", None, None), ("2", "3", "4")], [2, 3], id="empty"),
        pytest.param(b'a,b,c\r\n1,"",""\r\n2,3,4\r\n', [("1", None, None), ("2", "3", "4")], [2, 3], id="empty crlf"),
        pytest.param(b'a,b,c\n1,"ha ""ha"" ha",3\n', [("1", 'ha "ha" ha', "3")], [2], id="escaped quotes"),
        pytest.param(
            b'a,b,c\n1,"{""type"": ""Point"", ""coordinates"": [102.0, 0.5]}",x\n',
            [("1", '{"type": "Point", "coordinates": [102.0, 0.5]}', "x")],
            [2],
            id="json",
        ),
        pytest.param(
            b'a,b,c\n1,2,3\n"Once upon \na time",5,6\n7,8,9\n', [("1", "2", "3"), ("Once upon \na time", "5", "6"), ("7", "8", "9")], [2, 3, 5], id="newlines"
        ),
        pytest.param(
            b'a,b,c\r\n1,2,3\r\n"Once upon \r\na time",5,6\r\n7,8,9\r\n',
            [("1", "2", "3"), ("Once upon \r\na time", "5", "6"), ("7", "8", "9")],
            [2, 3, 5],
            id="newlines crlf",
        ),
        pytest.param(
            b'a,b,c\n1,"He said\n\n""yes"", twice\n",3\n4,,\n', [("1", 'He said\n\n"yes", twice\n', "3"), ("4", None, None)], [2, 6], id="quotes and newlines"
        ),
        pytest.param("a,b,c\n1,2,3\n4,5,ʤ\n".encode(), [("1", "2", "3"), ("4", "5", "ʤ")], [2, 3], id="utf-8"),
        pytest.param(b"a,b,c\r\n1,2,3\r\n4,5,6", ROWS, [2, 3], id="crlf without a last one"),
        pytest.param(b"a,b,c\r1,2,3\r4,5,6\r", ROWS, [2, 3], id="cr"),
        pytest.param(b'a,b,c\r1,"2\rx",3\r4,5,6', [("1", "2\rx", "3"), ("4", "5", "6")], [2, 4], id="cr in quotes"),
        pytest.param(b"\n\na,b,c\n\n1,2,3\n \n,,\n4,5,6\n\n", ROWS, [5, 8], id="blank lines"),
        pytest.param(b'a,b,c\n1,5" wide,"x"\n4,5",6\n', [("1", '5" wide', "x"), ("4", '5"', "6")], [2, 3], id="quotes that are inches"),
        pytest.param(b'a,b,c\n"1","""","3"\n', [("1", '"', "3")], [2], id="a quote alone"),
        pytest.param(b'"a","b","c"\n"1","2","3"\n', [("1", "2", "3")], [2], id="all quoted"),
        pytest.param(b"a,b,c\n =1+1,-2 , x \n", [(" =1+1", "-2 ", " x ")], [2], id="texts keep their blanks"),
        pytest.param(b"a,b,c\n#1,2,3\n//4,5,6\n", [("#1", "2", "3"), ("//4", "5", "6")], [2, 3], id="no comments"),
        pytest.param(b"a,b,c\n\\N,NULL,n/a\n", [("\\N", "NULL", "n/a")], [2], id="no words for null"),
        pytest.param(b"sep=;\na;b;c\n1;2;3\n", [("1", "2", "3")], [3], id="a line for spreadsheets"),
        pytest.param(b'a,b,c\n1, "2" , "3,4"\n', [("1", "2", "3,4")], [2], id="spaces beside quotes"),
        pytest.param(b"a,b,c\n1,2,3,\n4,5,6,,\n", ROWS, [2, 3], id="empty fields after the last column"),
        pytest.param(b"a,b,c,,\n1,2,3\n4,5,6,\n", ROWS, [2, 3], id="no fields for columns without a name"),
        pytest.param(b"a,b,c\r\r\n1,2,3\r\r\n4,5,6\r\r\n", ROWS, [2, 3], id="two CR before LF"),
    ],
)
def test_a_file_says_what_it_says_cell_by_cell(content: bytes, rows: list[tuple[Any, ...]], lines: list[int]) -> None:
    dropped = drop(content)
    assert (dropped.cells, dropped.lines, dropped.rejects) == (rows, lines, [])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_delimiter_and_quote_are_found_by_the_header(delimiter: str, quote: str) -> None:
    cells = [["a", "b", "c"], ["1,5;6", "x\ty|z", f"it{quote * 2}s"]]
    content = "\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in cells)
    assert drop(content.encode()).cells == [("1,5;6", "x\ty|z", f"it{quote}s")]


def test_a_declared_dialect_wins() -> None:
    assert drop(b"a;b;c\n1;2,5;3\n", delimiter=";").cells == [("1", "2,5", "3")]
    assert get_quarantine(b"a;b;c\n1;2,5;3\n", delimiter=",")[0] == "no_known_column"
    assert drop(b"a,b,c\n'1','2',3\n", quote="'").cells == [("1", "2", "3")]
    assert drop("a,b,c\né,2,3\n".encode(), encoding="windows-1252").cells == [("Ã©", "2", "3")]


def test_a_file_of_one_column_needs_no_delimiter_as_long_as_its_rows_hold_none() -> None:
    only = {"columns": {"a": {}}}
    assert drop(b"a\n1\n2 x\n", **only).cells == [("1",), ("2 x",)]
    assert drop(b"a\nx, y\nz\n", **only).cells == [("x, y",), ("z",)]
    assert get_quarantine(b"a\nx, y\nz;\tw|\n", **only) == ("unknown_delimiter", "its delimiter may be comma or semicolon or tab or bar")


@pytest.mark.parametrize(
    ("encoding", "described"),
    [
        ("utf-8", "utf-8, comma"),
        ("utf-8-sig", "utf-8, comma"),
        ("utf-16", "utf-16-le, comma"),
        ("utf-16-le", "utf-16-le, comma"),
        ("utf-16-be", "utf-16-be, comma"),
        ("utf-32", "utf-32, comma"),
        ("windows-1252", "windows-1252, comma"),
    ],
)
def test_an_encoding_is_found_out_and_named(encoding: str, described: str) -> None:
    dropped = drop("a,b,c\nMüller,Crème brûlée,50 € “ok”\n".encode(encoding))
    assert dropped.cells == [("Müller", "Crème brûlée", "50 € “ok”")]
    assert dropped.described == described


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("words", ["Москва", "北京一", "القاهرة", "😀", "Łódź"])
def test_utf16_without_a_mark_is_found_out_in_any_script(encoding: str, words: str) -> None:
    dropped = drop(("a,b,c\n" + f"{words},{words},{words}\n" * 300).encode(encoding))
    assert (dropped.cells, dropped.described) == ([(words, words, words)] * 300, f"{encoding}, comma")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Привет, мир", "windows-1251"),
        ("Müller fährt", "mac-roman"),
        ("Müller fährt", "cp437"),
        ("Łódź żółw", "iso8859-2"),
        ("Αθήνα", "iso8859-7"),
        ("カタカナ", "shift-jis"),
        ("北京", "gb18030"),
        ("서울", "euc-kr"),
        ("台北市", "big5"),
        ("東京", "euc-jp"),
    ],
)
def test_another_encoding_is_refused_not_guessed(text: str, encoding: str) -> None:
    assert get_quarantine(f"a;b;c\n1;{text};3\n".encode(encoding))[0] == "unknown_encoding"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("ソ表能", "shift-jis"),
        ("㐀𠀀北", "gb18030"),
        ("서울", "euc-kr"),
        ("許功蓋", "big5"),
        ("Щука", "koi8-r"),
        ("東京", "iso2022_jp"),
        ("Łódź", "cp852"),
        ("é", "utf-32"),
    ],
)
def test_any_encoding_can_be_declared(text: str, encoding: str) -> None:
    assert drop(f'a,b,c\n1,"{text}",3\n{text},{text}\n4,5,6\n'.encode(encoding), encoding=encoding).cells == [("1", text, "3"), ("4", "5", "6")]


@pytest.mark.parametrize("text", ["5 m²", "½ © ®", "10 °C ±2 %", "«Été» “é” £5 ¥JPY 5", "•••• ……", "créée déçue", "µm ¼ ¾", "¿Qué? ¡Sí!", "³³³"])
def test_signs_of_windows_1252_are_read_as_such(text: str) -> None:
    assert drop(f"a,b,c\n1,{text},é\n".encode("cp1252")).cells == [("1", text, "é")]


def test_bytes_that_the_encoding_lacks_reject_their_row_alone() -> None:
    content = "a,b,c\nü,2,3\n".encode() + b"x,\xff\xfe,3\n" + b"\xed\xa0\x80,2,3\n" + "4,5,é\n".encode()
    dropped = drop(content)
    assert dropped.cells == [("ü", "2", "3"), ("4", "5", "é")]
    assert dropped.reasons == [(3, None, "bad_encoding"), (4, None, "bad_encoding")]
    assert dropped.rejects[0].raw == "x,\\xff\\xfe,3"


def test_half_a_surrogate_pair_in_utf_16_rejects_its_row_alone() -> None:
    content = "\ufeffa,b,c\n1,\ud83d,3\n4,😀,6\n".encode("utf-16-le", "surrogatepass")
    dropped = drop(content)
    assert dropped.cells == [("4", "😀", "6")]
    assert dropped.reasons == [(2, None, "bad_encoding")]
    assert get_quarantine(content[:-1])[0] == "bad_encoding"


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (b"1,2", "ragged_row", "line 3 has 2 fields, the header 3"),
        (b"1,2,3,4", "ragged_row", "line 3 has 4 fields, the header 3"),
        (b"x", "ragged_row", "line 3 has 1 fields, the header 3"),
        (b'"1","2"x,3', "bad_quotes", "line 3: text follows a closing quote"),
        (b'1,"2" x,3', "bad_quotes", "line 3: text follows a closing quote"),
        (b"1,\x00,3", "nul_byte", "line 3 holds a NUL byte"),
        (b"1,2\r2,3", "stray_line_end", "line 3: it holds a line end of a different kind than the rest of the file"),
    ],
)
def test_a_line_that_is_not_a_row_is_rejected_unchanged(line: bytes, reason: str, message: str) -> None:
    dropped = drop(b"a,b,c\n1,2,3\n" + line + b"\n4,5,6\n")
    assert dropped.cells == ROWS
    assert dropped.lines == [2, 4]
    reject = dropped.rejects[0]
    assert (reject.row_number, reject.column, reject.reason, reject.message, reject.raw) == (3, None, reason, message, line.decode())


def test_text_after_a_closing_quote_rejects_every_line_that_its_record_spans() -> None:
    dropped = drop(b'a,b,c\n1,"2,3\n4,5,6\n7,"8",9\nx,y,z\n')
    assert dropped.cells == [("x", "y", "z")]
    assert [(reject.row_number, reject.reason, reject.raw) for reject in dropped.rejects] == [
        (2, "bad_quotes", '1,"2,3'),
        (3, "bad_quotes", "4,5,6"),
        (4, "bad_quotes", '7,"8",9'),
    ]
    assert dropped.lines == [5]


def test_a_quote_that_is_never_closed_quarantines_the_file() -> None:
    assert get_quarantine(b'a,b,c\n1,2,3\n4,"5,6\n7,8,9\n') == ("unclosed_quote", "the quote opened in line 3 is not closed")
    swallowing = b'a,b,c\n1,"2,3\n' + b"4,5,6\n" * 5 + b'7,",9\n'
    assert len(drop(swallowing).rows[0]["b"]) == len("2,3\n" + "4,5,6\n" * 5 + "7,")
    assert get_quarantine(swallowing, limits={"field_chars": 20})[0] == "unclosed_quote"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"\xef\xbb\xbf", "empty_file"),
        (b"\n\r\n \n", "empty_file"),
        (b",,\n", "empty_file"),
        (b"x,y\n1,2\n", "no_known_column"),
        (b"1,2,3\n4,5,6\n", "no_known_column"),
        (b"a,b,A\n1,2,3\n", "duplicate_header"),
        (b"a,x, X \n1,2,3\n", "duplicate_header"),
        (b'a,b,"c\n1,2,3\n', "unclosed_quote"),
        (b'"a"x,b,c\n1,2,3\n', "bad_header"),
        (b"a,b\0,c\n1,2,3\n", "bad_header"),
        (b"PK\x03\x04 and so on", "not_text"),
        (b"a,b,c\n" + bytes(1000), "not_text"),
        (gzip.compress(PLAIN, mtime=0), "not_text"),
    ],
)
def test_an_invalid_file_is_quarantined_with_its_reason(content: bytes, reason: str) -> None:
    assert get_quarantine(content)[0] == reason


def test_a_header_without_rows_is_a_file_without_rows() -> None:
    for content in (b"a,b,c", b"a,b,c\n", b"a,b,c\n\n,,\n", b'"a","b","c"\r\n'):
        dropped = drop(content)
        assert (dropped.rows, dropped.rejects) == ([], [])


def test_a_column_without_a_name_may_hold_nothing() -> None:
    dropped = drop(b"a,b,c,,\n1,2,3,,\n4,5,6,x,\n7,8,9,,y\n")
    assert dropped.cells == [("1", "2", "3")]
    assert dropped.reasons == [(3, "column 4", "unnamed_column"), (4, "column 5", "unnamed_column")]
    assert json.loads(dropped.rejects[0].raw) == {"a": "4", "b": "5", "c": "6", "column 4": "x"}


def test_the_name_says_what_a_file_is() -> None:
    assert drop(PLAIN.replace(b",", b"\t"), "Drop.TSV").cells == ROWS
    assert drop(gzip.compress(PLAIN, mtime=0), "drop.csv.gz").cells == ROWS
    assert drop(gzip.compress(PLAIN[:9], mtime=0) + gzip.compress(PLAIN[9:]), "drop.csv.gz").cells == ROWS
    assert get_quarantine(PLAIN, "drop.csv.gz")[0] == "bad_gzip"
    assert get_quarantine(gzip.compress(PLAIN, mtime=0)[:-6], "drop.csv.gz")[0] == "bad_gzip"
    for name in ("drop.txt", "drop.xls", "drop", "drop.csv.zip"):
        assert get_quarantine(PLAIN, name)[0] == "unknown_format"


def test_a_long_file_is_read_in_blocks_without_losing_the_line() -> None:
    count = 400_000
    content = "a,b,c\n" + "".join(f'{n},"x\ny",{"z" * 20}\n' if n % 1000 == 0 else f"{n},xy,{'z' * 20}\n" for n in range(count)) + "last,1\n"
    dropped = drop(content.encode(), limits={"bytes": "1GB"})
    assert [row["a"] for row in dropped.rows] == [str(n) for n in range(count)]
    assert dropped.lines == [2 + n + (n + 999) // 1000 for n in range(count)]
    assert dropped.reasons == [(2 + count + 400, None, "ragged_row")]
