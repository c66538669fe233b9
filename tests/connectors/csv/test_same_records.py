"""One CSV file holds the same records for `files` and `csv_import`, whose readers are DuckDB and pyarrow: in odd files as in plain ones.

What differs is what each makes of a record, and is listed in the second half; docs/adr/0041 says why.
"""

import codecs
import gzip
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fabric_assets.connectors.csv.records import Grammar
from tests.connectors.csv.both_readers import Cells, Outcome, load_as_files, load_as_import
from tests.connectors.csv_import.test_generated import FILES, read_slowly

AB = ("id", "name")
ONE_A, TWO_B = ("1", "a"), ("2", "b")
# One reason of `files`, whose codes are older, for two of `csv_import`.
BAD_CSV = {"bad_quotes": "bad_csv", "stray_line_end": "bad_csv"}


def check(content: str | bytes, rows: Sequence[Cells], bad: Sequence[tuple[str, str]] = (), *, columns: Sequence[str] = AB, **stream: Any) -> None:
    data = content.encode() if isinstance(content, str) else content
    expected = Outcome(tuple(rows), tuple(bad))
    files, dropped = load_as_files(data, columns, **stream), load_as_import(data, columns, **stream)
    assert replace(dropped, rejects=tuple((BAD_CSV.get(reason, reason), raw) for reason, raw in dropped.rejects)) == expected
    assert files == expected


# The shapes of public CSV files.
@pytest.mark.parametrize(
    ("content", "rows", "bad"),
    [
        # Names and delimiters.
        ("id,name\n1,a\n2,b\n", [ONE_A, TWO_B], []),
        ("id;name\n1;a\n2;b", [ONE_A, TWO_B], []),
        ("id\tname\r\n1\ta\r\n2\tb\r\n", [ONE_A, TWO_B], []),
        ("id|name\n1|a,b;c\n", [("1", "a,b;c")], []),
        ('"id";"name"\n"1,5";a\n', [("1,5", "a")], []),
        ("sep=;\nid;name\n1;a\n", [ONE_A], []),
        ('"SEP=;"\r\nid;name\r\n1;a\r\n', [ONE_A], []),
        ("sep=^\nid^name\n1^a\n", [ONE_A], []),
        ("id;name\nid;name\n1;a\n", [("id", "name"), ONE_A], []),
        ('"id","name"\n"1","a"\n', [ONE_A], []),
        ("\u00a0id;name\u00a0\n1;a\n", [ONE_A], []),
        ("\u200bid;na\u00adme\n1;a\n", [ONE_A], []),
        ("\ufeff\ufeffid;name\n1;a\n", [ONE_A], []),
        ("id;name", [], []),
        # Lines that are empty, or longer than the header by nothing.
        ("\n\nid;name\n1;a\n", [ONE_A], []),
        (";\n ; \nid;name\n1;a\n", [ONE_A], []),
        ("  \nid;name\n1;a\n", [ONE_A], []),
        ('"";" \n "\nid;name\n1;a\n', [ONE_A], []),
        ("id;name\n\n1;a\n\n\n2;b\n;\n", [ONE_A, TWO_B], []),
        ("id;name;\n1;a;\n2;b;\n", [ONE_A, TWO_B], []),
        ("id;name\n1;a;\n2;b;\n", [ONE_A, TWO_B], []),
        ("id;name;\n1;a\n2;b\n", [ONE_A, TWO_B], []),
        ("id;name\n1;a\n2;b;;\n", [ONE_A, TWO_B], []),
        ('id;name\n1;"a";;\n2;b;;\n', [ONE_A, TWO_B], []),
        ('id,name\n1,a,""\n2,b, \n', [], [("ragged_row", '1,a,""'), ("ragged_row", "2,b, ")]),
        ("id,name\n1\n2,b\n3,c,d\n", [TWO_B], [("ragged_row", "1"), ("ragged_row", "3,c,d")]),
        # Line ends.
        ("id,name\r1,a\r2,b\r", [ONE_A, TWO_B], []),
        ("id,name\r\r\n1,a\r\r\n2,b\r\r\n", [ONE_A, TWO_B], []),
        ("id,name\r\n1,a\n2,b\r\n", [ONE_A, TWO_B], []),
        ("id,name\n1,a\r\n2,b\n", [ONE_A, TWO_B], []),
        ('id,name\n1,"x\ry"\n2,"x\r\ny"\n', [("1", "x\ry"), ("2", "x\r\ny")], []),
        ('id,name\r1,"x\ny"\r2,b\r', [("1", "x\ny"), TWO_B], []),
        ('id,name\r\n1,"x\ny"\r\n2,"x\ry"\r\n', [("1", "x\ny"), ("2", "x\ry")], []),
        ("id,name\n1,x\ry\n2,b\n", [TWO_B], [("bad_csv", "1,x\ry")]),
        ("id,name\n1,a\n2,b\n\x1a", [ONE_A, TWO_B], [("ragged_row", "\x1a")]),
        # Quotes.
        ('id,name\n1,5" pipe\n2,""""\n3,"d"""\n', [("1", '5" pipe'), ("2", '"'), ("3", 'd"')], []),
        ('id, "name"\n1, "a"\n2, "b,c"\n', [ONE_A, ("2", "b,c")], []),
        ('id,name\n"1" ,"a"\n"2"  ,"b"  \n', [ONE_A, TWO_B], []),
        ('id,name\n1,  "a"\n2,\t"b"\n', [("1", '  "a"'), ("2", '\t"b"')], []),
        ('id,name\n1,"b" "c"\n2,b\n', [TWO_B], [("bad_csv", '1,"b" "c"')]),
        ('id,name\n1,"b""" "c"\n2,b\n', [TWO_B], [("bad_csv", '1,"b""" "c"')]),
        ('id,name\n1,"" "c"\n2,b\n', [TWO_B], [("bad_csv", '1,"" "c"')]),
        ('id,name\n1, "a" "c"\n2,b\n', [TWO_B], [("bad_csv", '1, "a" "c"')]),
        ('id,name\n1,"say ""hi"" ""you"""\n" "," "\n', [("1", 'say "hi" "you"')], []),
        ('id,name\n1,"say \\"hi\\""\n2,b\n', [TWO_B], [("bad_csv", '1,"say \\"hi\\""')]),
        ('id,name\n1,"a\nb"x\n2,b\n', [TWO_B], [("bad_csv", '1,"a'), ("bad_csv", 'b"x')]),
        ("id,name\n'1','a,b'\n", [], [("ragged_row", "'1','a,b'")]),
        ('id,name\n1,""\n"",x\n', [("1", None), (None, "x")], []),
        # Characters.
        ("id;name\n1;a\x0bb\n2;c\x85d\n3;e\u2028f\n4;g\x1ch\n", [("1", "a\x0bb"), ("2", "c\x85d"), ("3", "e\u2028f"), ("4", "g\x1ch")], []),
        ("\ufeffid,name\n1,a\n\ufeffid,name\n", [ONE_A, ("\ufeffid", "name")], []),
        (b"id,name\n1,\xff\xfe\n2,\xc3\xa9\n", [("2", "é")], [("bad_encoding", "1,\\xff\\xfe")]),
    ],
)
def test_a_file_has_the_same_records_and_bad_lines_for_both(content: str | bytes, rows: list[Cells], bad: list[tuple[str, str]]) -> None:
    check(content, rows, bad)


@pytest.mark.parametrize("header", ['id,"na\nme"', 'id,"na\rme"', 'id,"na\r\nme"', '"id","na""me"'])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_end_in_a_header_costs_no_row(header: str, end: str) -> None:
    names = ("id", header.partition(",")[2][1:-1].replace('""', '"'))
    check(f"{header}{end}1,a{end}2,b{end}", [ONE_A, TWO_B], columns=names)


@pytest.mark.parametrize("content", ["id\n1,5\n2,5\n", 'id\n"1,5"\n"2,5"\n', "id\n1,5\n\n2,5\n"])
def test_the_rows_of_a_single_column_stay_whole(content: str) -> None:
    check(content, [("1,5",), ("2,5",)], columns=("id",))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "cp1252", "cp932"])
def test_a_declared_or_marked_encoding_is_read_alike(encoding: str) -> None:
    text = "ﾃｽﾄ" if encoding == "cp932" else "Ünï"
    options = {"encoding": encoding} if encoding not in ("utf-8", "utf-8-sig", "utf-16", "utf-32") else {}
    check(f'id;name\n1;{text}\n2;"{text};"\n'.encode(encoding), [("1", text), ("2", f"{text};")], **options)


def test_half_a_character_rejects_its_row_alone_and_is_never_another_one() -> None:
    halves = codecs.BOM_UTF16_LE + "id,name\n1,\ud83d\n2,b\n".encode("utf-16-le", "surrogatepass")
    check(halves, [TWO_B], [("bad_encoding", "1,\\xed\\xa0\\xbd")])
    # In the encoding they are not characters; together they would be é in UTF-8.
    check(b"id,name\n1,\xc3\xa9\n2,b\n", [TWO_B], [("bad_encoding", "1,\\xc3\\xa9")], encoding="ascii")


@pytest.mark.parametrize("lines", [1, 3])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("hint", ["", "sep=;\n"])
def test_lines_before_the_header_are_left_out_whatever_they_hold(lines: int, end: str, hint: str) -> None:
    preamble = ['Bank "export', "", "x;y"][:lines]
    content = "\n".join([*preamble, f"{hint}id;name", "1;a", "2;b", ""]).replace("\n", end)
    check(content, [ONE_A, TWO_B], skip_rows=lines)


@pytest.mark.parametrize("delimiter", [";", ","])
def test_a_line_that_names_the_delimiter_is_not_a_row_if_one_is_declared_too(delimiter: str) -> None:
    check(f"sep=;\nid{delimiter}name\n1{delimiter}a\n", [ONE_A], delimiter=delimiter)


@pytest.mark.parametrize("line", ["", "c0;c1;c2\n", '\u200bC0;"c1"; c2\n'])
def test_names_are_declared_where_no_line_need_name_them(line: str) -> None:
    rows = (("1", "2,5", "a"), ("2", "3,5", "b"))
    names, content = ["c0", "c1", "c2"], f"{line}1;2,5;a\n2;3,5;b\n".encode()
    assert load_as_files(content, names, header=names) == load_as_import(content, names, header=names) == Outcome(rows)


PIECES = ["x", "yy", ",", ",", ",", '"', '"', '""', '","', "\n", "\n", "\r\n", " ", " ", "ü", "1,2,3\n", '1,"2\n",3\n', '"a" "b"', ', "', "\r", "\t", ",,\n"]


@settings(max_examples=max(60, FILES // 3), deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.lists(st.sampled_from(PIECES), max_size=40), delimiter=st.sampled_from([",", ";"]))
@example(body=['1,"2" "3",x\n'], delimiter=",")
@example(body=["1,2,3,,\n", "1,2,3\r\r\n"], delimiter=",")
@example(body=['x, "y" ,z\n', "\r"], delimiter=";")
def test_any_text_has_the_same_records_for_both(body: list[str], delimiter: str) -> None:
    text = ("a,b,c\n" + "".join(body)).replace(",", delimiter)
    files, dropped = load_as_files(text.encode(), delimiter=delimiter), load_as_import(text.encode(), delimiter=delimiter)
    expected = read_slowly(text, delimiter, '"')
    if expected is None:
        assert dropped.refusal == "unclosed_quote"
        assert files.rejects
        return
    assert [row for _, row in expected[0][1:]] == [list(row) for row in files.rows]
    assert files.rows == dropped.rows
    rejects = tuple((BAD_CSV.get(reason, reason), raw) for reason, raw in dropped.rejects)
    assert _leave_out_blank(files, delimiter) == replace(dropped, rejects=rejects)


def _leave_out_blank(outcome: Outcome, delimiter: str) -> Outcome:
    """Without lines of another length that are empty all over, which `csv_import` leaves out."""
    grammar = Grammar(delimiter)
    bad = [each for each in outcome.rejects if each[0] != "ragged_row" or not next(grammar.scan(each[1], 1, final=True)).is_blank]
    return replace(outcome, rejects=tuple(bad))


# --- what each makes of them


@pytest.mark.parametrize(
    ("content", "files", "dropped"),
    [
        # Machines that write NUL mean it; Postgres refuses it row by row.
        ("id,name\n1,a\0b\n", Outcome((("1", "a\0b"),)), Outcome((), (("nul_byte", "1,a\0b"),))),
        # `csv_import` judges a file as a whole, before its first row.
        ('id,name\n1,a\n2,"b\n3,c\n', Outcome((ONE_A,), (("bad_csv", '2,"b'), ("bad_csv", "3,c"))), Outcome(refusal="unclosed_quote")),
        # People leave lines of spaces; a machine's line of spaces may have lost its values.
        ("id,name\n1,a\n  \n", Outcome((ONE_A,), (("ragged_row", "  "),)), Outcome((ONE_A,))),
        # Another day's file of a machine would be guessed otherwise, so its encoding is declared.
        ("id,name\n1,ä\n2,b\n".encode("cp1252"), Outcome((TWO_B,), (("bad_encoding", "1,\\xe4"),)), Outcome((("1", "ä"), TWO_B))),
        (
            "id,name\n1,a\n".encode("utf-16-le"),
            Outcome(refusal="here: the file a is not UTF-8 text: it looks like UTF-16"),
            Outcome((ONE_A,)),
        ),
        # Single quotes are a key of `csv_import`.
        ("'id','name'\n'1','a'\n", Outcome(refusal="columns: [\"'id'\", \"'name'\"]"), Outcome((ONE_A,))),
        # `csv_import` asks for the column to be named.
        ("id,name,ID\n1,a,2\n", Outcome(refusal="columns: ['id', 'name', 'ID_2']"), Outcome(refusal="duplicate_header")),
        # An empty file of a machine says that there is nothing.
        ("", Outcome(), Outcome(refusal="empty_file")),
        ("\n\n", Outcome(refusal="here: the file a has nothing but empty lines"), Outcome(refusal="empty_file")),
        # Packed files are known by their bytes, dropped ones by their name.
        (gzip.compress(b"id,name\n1,a\n", mtime=0), Outcome((ONE_A,)), Outcome(refusal="not_text")),
    ],
)
def test_what_differs_is_known(content: str | bytes, files: Outcome, dropped: Outcome) -> None:
    data = content.encode() if isinstance(content, str) else content
    assert (load_as_files(data, AB), load_as_import(data, AB)) == (files, dropped)


@pytest.mark.parametrize("content", [b"%PDF-1.7 \xff\n", b"PK\x03\x04 and so on", b"<!DOCTYPE html>\n<html>id,name</html>\n", b'[{"id": 1}]', b"PAR1\0\0\0"])
def test_both_refuse_other_formats_and_name_them(content: bytes) -> None:
    assert ", not CSV" in load_as_files(content, AB).refusal
    assert load_as_import(content, AB).refusal == "not_text"
