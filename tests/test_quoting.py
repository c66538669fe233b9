"""Names and texts that try to end early, in both databases whose quoting is ours."""

from contextlib import closing

import duckdb
import psycopg2
import pytest

from fabric_assets.quoting import quote, quote_all, quote_table, quote_text

HOSTILE = ["plain", 'a"; drop table x; --', "it's", "back\\'slash\\", "$$ % {} é", '""', "''"]


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_texts_come_back_as_they_were(text: str, postgres_database: str) -> None:
    sql = f"select t.* from (select {quote_text(text)} as {quote(text)}) as t"
    with closing(duckdb.connect()) as own, closing(psycopg2.connect(postgres_database)) as server, closing(server.cursor()) as cursor:
        found = own.execute(sql)
        assert (found.description[0][0], found.fetchall()) == (text, [(text,)])
        cursor.execute(sql)
        assert (cursor.description[0][0], cursor.fetchall()) == (text, [(text,)])


def test_each_part_of_a_name_is_quoted_by_itself() -> None:
    assert quote_table("a.b", 'c"d') == '"a.b"."c""d"'
    assert quote_all(["id", "a,b"], table="t") == 't."id", t."a,b"'
