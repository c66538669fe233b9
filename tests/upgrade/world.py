"""The sources of the recorded tenants, filled step by step, and the tenants' YAML.

The recording fills steps 1 and 2, a load after each. The test fills the same two into empty databases, and then step 3.
Imports nothing of the project, so that any release of it can be recorded.
"""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-of-the-recording"
TENANTS = {
    "old_duck": "{type: duckdb}",
    "old_own": "{type: postgres, url: {env: WAREHOUSE_URL}}",
    "old_managed": "{type: postgres, url: {env: WAREHOUSE_ADDRESS}, managed: true}",
}
YAML = """version: 1
tenant: {tenant}
destination: {destination}
sources:
  lite:
    type: sql_database
    url: {{env: LITE_URL}}
    streams:
      orders: {{primary_key: id, cursor: {{field: updated_at}}}}
      events: {{write_disposition: append, cursor: {{field: at}}}}
      codes: {{primary_key: code, schema_contract: {{data_type: discard}}}}
      shops: {{}}
  pg:
    type: sql_database
    url: {{env: PG_URL}}
    streams:
      things: {{primary_key: id, cursor: {{field: updated_at}}}}
  my:
    type: sql_database
    url: {{env: MY_URL}}
    streams:
      bookings: {{primary_key: id, cursor: {{field: updated_at}}}}
  crm:
    type: rest_api
    base_url: {{env: API_URL}}
    allow_private_network: true
    auth: {{type: bearer, token: {{secret: crm_token}}}}
    streams:
      contacts: {{path: contacts, primary_key: id, data: data, paginator: {{type: single_page}}, cursor: {{field: updated_at, param: since}}}}
      notes: {{path: "contacts/{{contacts.id}}/notes", primary_key: note_id, data: data, paginator: {{type: single_page}}}}
  exports:
    type: files
    path: exports/{tenant}
    streams:
      prices: {{glob: "*.csv", format: csv, primary_key: code}}
      tickets: {{glob: "*.jsonl", format: jsonl, primary_key: id, schema_contract: {{columns: discard}}}}
      points: {{glob: "*.parquet", format: parquet}}
  ads:
    type: csv_import
    path: inbox/{tenant}/ads
    streams:
      spend:
        glob: "*.csv"
        mapping: {{Date: day, Channel: channel, "Spend (EUR)": spend}}
        columns:
          day: {{type: date, required: true, formats: ["%Y-%m-%d"]}}
          channel: {{type: text, required: true}}
          spend: {{type: decimal, min: 0}}
        rejects: {{max: 40%}}
      plan:
        glob: "*.xlsx"
        mapping: {{Month: month, Budget: budget}}
        columns: {{month: {{type: text, required: true}}, budget: {{type: decimal}}}}
        primary_key: month
        write_disposition: merge
transform: {{select: [order_totals]}}
checks:
  raw/lite/orders: [{{type: not_null, columns: ["имя"]}}]
"""

MODELS = {
    "models/staging/lite/_lite__sources.yml": """version: 2
sources:
  - name: lite
    schema: "{{ var('fabric_tenant') }}_raw_lite"
    tables: [{name: orders}]
""",
    "models/marts/order_totals.sql": "select count(*) as orders, sum(amount) as amount from {{ source('lite', 'orders') }}\n",
}

_LITE = {
    1: """create table orders (id integer primary key, "имя" text, "price ($)" real, amount decimal(10,2), updated_at datetime);
insert into orders values (1, 'Anna', 1.5, 10.50, '2024-01-01 10:00:00'), (2, 'Борис', 2.5, 20.25, '2024-01-02 10:00:00');
create table events (name text, at datetime);
insert into events values ('a', '2024-01-01 10:00:00'), ('b', '2024-01-02 10:00:00'), ('b', '2024-01-02 10:00:00');
create table codes (code text primary key, amount integer);
insert into codes values ('007', 1), ('10.10', 2), ('10.1', 3);
create table shops ("日付" text, size integer);
insert into shops values ('2024-01-01', 1), ('2024-01-02', 2);""",
    2: """insert into orders values (3, 'Çelik', 3.5, 30.00, '2024-01-03 10:00:00');
insert into events values ('c', '2024-01-03 10:00:00');
insert into codes values ('1e5', 'many');
insert into shops values ('2024-01-03', 3);""",
    3: """insert into orders values (4, '名', 4.5, 40.00, '2024-01-04 10:00:00');
insert into events values ('d', '2024-01-04 10:00:00');
insert into codes values ('1e6', 4);
insert into shops values ('2024-01-04', 4);""",
}
_THING = (
    "insert into things values ('{0}', '{{{1},{1}}}', '{{\"a b\",c}}', '{{\"n\": {1}}}', '{{\"b\": [{1}]}}', '[1,{1})', '12.3{1}', '10.0.0.{1}',"
    " '2024-01-0{1} 10:00Z')"
)
_UUID = "6f8a2f0e-0000-4000-8000-00000000000"
_THINGS = (
    "create table things"
    " (id uuid primary key, counts int[], labels text[], body jsonb, raw json, span int4range, paid money, host inet, updated_at timestamptz)"
)
_PG = {
    1: ";".join([_THINGS, *(_THING.format(f"{_UUID}{number}", number) for number in (2, 3))]),
    2: _THING.format(f"{_UUID}4", 4),
    3: _THING.format(f"{_UUID}5", 5),
}
_BOOKING = (
    "insert into bookings values ({0}, unhex('00112233445566778899aabbccddee0{0}'), '1{0}:00:00', '2024-01-0{0}', {0}.5{0}, '{{\"n\": {0}}}',"
    " '2024-01-0{0} 10:00:00')"
)
_BOOKINGS = "create table bookings (id int primary key, token binary(16), slot time, day date, price decimal(10,2), body json, updated_at datetime)"
_MY = {
    1: ";".join([_BOOKINGS, *map(_BOOKING.format, (1, 2))]),
    2: _BOOKING.format(3),
    3: _BOOKING.format(4),
}


def write_tenants(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for tenant, destination in TENANTS.items():
        (folder / f"{tenant}.yaml").write_text(YAML.format(tenant=tenant, destination=destination))


def fill(step: int, *, sqlite: Path | None, postgres: str, mysql: str) -> None:
    """Bring the source databases from one step to the next.

    Args:
        sqlite: None where the recorded file is there.
        postgres: postgresql:// URL of a database.
        mysql: mysql+pymysql:// URL of one.
    """
    import psycopg2
    import pymysql

    if sqlite is not None:
        with contextlib.closing(sqlite3.connect(sqlite)) as connection:
            connection.executescript(_LITE[step])
    with contextlib.closing(psycopg2.connect(postgres)) as connection:
        connection.cursor().execute(_PG[step])
        connection.commit()
    parts = urlsplit(mysql)
    host = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username, "password": parts.password or "", "database": parts.path[1:]}
    with contextlib.closing(pymysql.connect(**host)) as connection:  # type: ignore[arg-type]
        for statement in _MY[step].split(";"):
            connection.cursor().execute(statement)
        connection.commit()


def drop_files(step: int, data: Path) -> None:
    """Put a step's files into every tenant's folders."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for tenant in TENANTS:
        exports, ads = data / "exports" / tenant, data / "inbox" / tenant / "ads"
        for folder in (exports, ads):
            folder.mkdir(parents=True, exist_ok=True)
        codes = {1: "007,1.5\n10.10,2.5\n", 2: "1e5,3.5\n", 3: "1e6,4.5\n"}[step]
        (exports / f"prices{step}.csv").write_text(f"code,город\n{codes}")
        rows: list[dict[str, Any]] = [{"id": step, "tags": ["a", "b"], "lines": [{"sku": "x", "n": step}], "at": f"2024-01-0{step}T10:00:00Z"}]
        if step == 2:
            rows.append({"id": 20, "tags": [], "surprise": "the contract discards it"})
        (exports / f"tickets{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        points = pa.table({"name": [f"p{step}"], "価": [step], "list": pa.array([[step, step]]), "key": pa.array([bytes(range(16))], pa.binary(16))})
        pq.write_table(points, exports / f"points{step}.parquet")
        good = f"2024-01-0{step},search,{step}.50\n2024-01-0{step},social,{step}.75\n"
        head = "Date,Channel,Spend (EUR)\n"
        (ads / f"spend{step}.csv").write_text(head + good + (f"2024-01-0{step},email,a lot\n" if step < 3 else ""))
        if step == 1:
            (ads / "again.csv").write_text((ads / "spend1.csv").read_text())
            (ads / "broken.csv").write_text(head + "yesterday,search,1\ntoday,social,2\n2024-01-01,email,3\n")
        (ads / f"plan{step}.xlsx").write_bytes(build_workbook(f"2024-0{step}", step * 100))


def read_tables(tenant: str, data: Path, warehouse: str) -> dict[str, dict[str, Any]]:
    """Every table and view of a tenant: its columns, and its rows as texts, without dlt's columns."""
    import duckdb
    import psycopg2

    if tenant == "old_duck":
        connection: Any = duckdb.connect(str(data / "warehouse" / "old_duck.duckdb"), read_only=True)
        connection.execute("set TimeZone = 'UTC'")
    else:
        connection = psycopg2.connect(warehouse, options="-c TimeZone=UTC")
    with contextlib.closing(connection):
        cursor = connection.cursor()
        cursor.execute(
            "select table_schema, table_name, column_name from information_schema.columns"
            f" where table_schema like '{tenant}\\_%' escape '\\' order by table_schema, table_name, ordinal_position"
        )
        found: dict[str, dict[str, Any]] = {}
        for schema, table, column in cursor.fetchall():
            if not column.startswith("_dlt_") and not table.startswith("_dlt_"):
                found.setdefault(f"{schema}.{table}", {"columns": []})["columns"].append(column)
        for table, entry in found.items():
            listed = ", ".join(f'cast("{column}" as varchar)' for column in entry["columns"])
            cursor.execute(f"select {listed} from {table}")
            entry["rows"] = sorted([list(row) for row in cursor.fetchall()], key=repr)
        return found


def build_workbook(month: str, budget: int) -> bytes:
    from fabric_assets.demo.workbook import build_workbook as build

    return build("Plan", ["Month", "Budget"], [[month, budget]])


CONTACTS = {
    1: [
        {"id": 1, "имя": "Anna", "userName": "anna", "address": {"город": "Oslo"}, "phones": [{"n": "1"}, {"n": "2"}], "updated_at": "2024-01-01T10:00:00Z"},
        {"id": 2, "имя": "Bo", "userName": "bo", "address": None, "phones": [], "updated_at": "2024-01-02T10:00:00Z"},
    ],
    2: [{"id": 3, "имя": "Cy", "userName": "cy", "address": {"город": "Bergen"}, "phones": [{"n": "3"}], "updated_at": "2024-01-03T10:00:00Z"}],
    3: [{"id": 4, "имя": "Di", "userName": "di", "address": {"город": "Moss"}, "phones": [{"n": "4"}], "updated_at": "2024-01-04T10:00:00Z"}],
}


@contextmanager
def serve(step: list[int], port: int = 0) -> Iterator[str]:
    """Serve the contacts of all steps up to the list's one number, and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            since = parse_qs(url.query).get("since", [""])[0]
            contacts = [contact for number in range(1, step[0] + 1) for contact in CONTACTS[number]]
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._answer(401, {"error": "who are you?"})
            elif url.path == "/contacts":
                self._answer(200, {"data": [contact for contact in contacts if contact["updated_at"] >= since[:19]]})
            else:
                number = int(url.path.split("/")[2])
                self._answer(200, {"data": [{"note_id": number * 10, "text": f"of {number}"}]})

        def _answer(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library names it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
