"""`type: sql_database`, with each dialect that the tests have a server of."""

import contextlib
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.contract.source import Row, Source
from tests.support.duck import DuckSource
from tests.support.shop import SourceDatabase, build_sqlite_url

PASSWORD = "c4n4ry-of-the-database"


class Sqlite(Source):
    """Tables in a SQLite file."""

    type = "sql_database"
    boundary = 1
    follows_deletes = True
    key: ClassVar[dict[str, Any]] = {"primary_key": "id", "cursor": {"field": "seq"}}

    def prepare(self) -> None:
        self.database = self.connect()
        self.environ("CONTRACT_SHOP", self.get_url())
        for stream in self.rows:
            self.make_table(stream)

    def connect(self) -> SourceDatabase:
        return SourceDatabase(build_sqlite_url(self.settings.tenants_dir.parent), self.settings)

    def get_url(self) -> str:
        """As the tenant's YAML names it."""
        return self.database.url

    def make_table(self, stream: str) -> None:
        self.database.run(f"create table {stream} (id integer, owner varchar(40), note varchar(80), seq integer)")

    def build(self) -> dict[str, Any]:
        return {"type": "sql_database", "url": {"env": "CONTRACT_SHOP"}, "streams": dict.fromkeys(self.rows, self.key)}

    def write(self, stream: str, changed: list[Row]) -> None:
        self.database.run(f"delete from {stream} where id in ({', '.join(str(row[0]) for row in changed)})")
        self.database.fill(stream, changed)

    def delete(self, stream: str, row: Row) -> None:
        self.database.run(f"delete from {stream} where id = {row[0]}")

    def add_bad_row(self) -> None:
        self.database.run(f"insert into orders values (null, 'acme', 'bad', {self.next_seq()})")

    def break_stream(self) -> None:
        self.database.run("drop table stores")

    def fix_stream(self) -> None:
        self.make_table("stores")
        self.database.fill("stores", list(self.rows["stores"].values()))


class DuckDb(Sqlite):
    """Tables in a DuckDB file."""

    def connect(self) -> SourceDatabase:
        return DuckSource(self.settings.tenants_dir.parent / "shop.duckdb", self.settings)


class Postgres(Sqlite):
    """Tables of a Postgres, which is told a password that it does not ask for."""

    def connect(self) -> SourceDatabase:
        self.secret = PASSWORD
        return SourceDatabase(self.get_fixture("make_database")(), self.settings)

    def get_url(self) -> str:
        return self.database.url.replace("postgres:postgres@", f"postgres:{PASSWORD}@")


class MariaDb(Sqlite):
    """Tables of a MariaDB, read by a user that has a password."""

    def connect(self) -> SourceDatabase:
        self.secret = PASSWORD
        return SourceDatabase(self.get_fixture("mariadb_url"), self.settings)

    def get_url(self) -> str:
        parts = urlsplit(self.database.url)
        name = parts.path.strip("/")
        self.database.run(f"create user {name}@'%%' identified by '{PASSWORD}'", f"grant all on {name}.* to {name}@'%%'")
        self.get_fixture("request").addfinalizer(lambda: self.drop_user(name))
        return parts._replace(netloc=f"{name}:{PASSWORD}@{parts.hostname}:{parts.port or 3306}").geturl()

    def drop_user(self, name: str) -> None:
        with contextlib.suppress(Exception):
            self.database.run(f"drop user {name}@'%%'")
