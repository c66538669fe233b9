"""The services that other tests rely on are really there, and private to them."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
import sqlalchemy

from tests.support.services import Bucket


def test_a_postgres_database_is_empty_and_reached_over_tcp(postgres_database: str) -> None:
    assert urlsplit(postgres_database).hostname == "127.0.0.1"
    with psycopg2.connect(postgres_database) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_tables where schemaname = 'public'")
        assert cursor.fetchone() == (0,)
        cursor.execute("show data_directory")
        (folder,) = cursor.fetchone() or ("",)
    connection.close()
    assert Path(folder).parent.name.startswith("fabric-pg-")


def test_a_mariadb_database_takes_rows(mariadb_url: str) -> None:
    engine = sqlalchemy.create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table t (id int primary key, name varchar(20))"))
        connection.execute(sqlalchemy.text("insert into t values (1, 'käse')"))
        assert connection.execute(sqlalchemy.text("select name from t")).scalar_one() == "käse"
    engine.dispose()


def test_redis_answers(redis_url: str) -> None:
    parts = urlsplit(redis_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=3) as connection:
        connection.sendall(b"ECHO fabric\r\n")
        assert connection.recv(64) == b"$6\r\nfabric\r\n"


def test_a_bucket_gives_back_what_was_put(s3: Bucket) -> None:
    s3.put("a/b.txt", b"rows")
    assert s3.client.get_object(Bucket=s3.name, Key="a/b.txt")["Body"].read() == b"rows"


def test_the_browser_is_executable(chromium: str) -> None:
    assert os.access(chromium, os.X_OK)


@pytest.mark.parametrize("name", ["FABRIC_DATA_DIR", "FABRIC_SECRET_KEYS", "DAGSTER_HOME", "CREDENTIALS", "PGPASSWORD", "AWS_PROFILE"])
def test_nothing_of_the_developers_environment_is_left(name: str) -> None:
    assert name not in os.environ
