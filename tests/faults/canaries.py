"""A fleet whose every step fails with a secret in its hands, and a search for these secrets in all that a run leaves behind.

Each secret is a value that occurs nowhere else. The far ends are real, or HTTP servers that answer with what they received.
"""

import base64
import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import psycopg2
import yaml

from fabric_assets.security.secrets import write_secret
from fabric_assets.settings import Settings
from tests.support.services import PostgresServer, get_free_port
from tests.transform.conftest import copy_project

# Where a secret is kept, and what becomes of it.
CANARIES = {
    name: f"c4n4ry-{name}-{ending}"
    for name, ending in {
        "login_refused": "Kx7/+w=q",
        "cannot_connect": "Bn2&%41 Z",
        "unescaped_at": "Jq8-tV",
        "bearer": "Hh3/Lm+=",
        "query_key": "Cc4-lO",
        "signed_link": "Rt6.yU",
        "header": "Gf4~pO",
        "client_secret": "Ws9&=é/1",
        "issued_token": "Vb5-xC/",
        "url_userinfo": "Dd1-aS",
        "s3_secret": "Mn0/+kJ",
        "basic_password": "Ée6:ö'\"",
        "mysql_password": "Pl3-zX",
        "destination_password": "Tg2'qW\\e",
        "destination_refused": "Yh8-uI",
        "rejected_row": "Ol4-mN",
    }.items()
}


class Echo(BaseHTTPRequestHandler):
    """An answer with what the request held: its line, its headers, its body, and a Basic login in clear."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/rows":
            token = self.headers["Authorization"].removeprefix("Bearer ")
            return self._answer(200, json.dumps([{"id": 1, "note": "sound"}, {"id": None, "note": f"a row with {token} in it"}]))
        if path.startswith("/bucket"):
            # It knows the secret, as nobody else at the far end would.
            words = f"signed by {CANARIES['s3_secret']}"
            return self._answer(403, f"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>{words}</Message></Error>", kind="application/xml")
        if path == "/pages":
            key = quote(CANARIES["signed_link"], safe="")
            return self._answer(200, json.dumps({"rows": [{"id": 1}], "next": f"http://{self.headers['Host']}/400?access_token={key}"}))
        # Messages quote the beginning of an answer.
        said = {"login": self.headers.get("Authorization") or self.headers.get("X-Key"), "query": parse_qs(urlsplit(self.path).query)}
        if (said["login"] or "").startswith("Basic "):
            said["decoded"] = base64.b64decode(said["login"][6:]).decode()
        said |= {"line": self.requestline, "headers": dict(self.headers)}
        return self._answer({"/401": 401, "/503": 503}.get(path, 400), json.dumps(said, ensure_ascii=False))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/token":
            return self._answer(200, json.dumps({"access_token": CANARIES["issued_token"], "expires_in": 3600}))
        return self._answer(400, json.dumps({"refused": body, "plainly": parse_qs(body)}))

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass

    def _answer(self, status: int, body: str, *, kind: str = "application/json") -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextlib.contextmanager
def serve_echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Fleet:
    """A tenant per canary, each in a folder of its own, and the environment of a process that serves them.

    Args:
        server: asks `tenant_*` for their passwords.
    """

    def __init__(self, folder: Path, settings: Settings, server: PostgresServer, echo: str) -> None:
        self.settings, self._folder = settings, folder
        self.environ = {
            "FABRIC_TENANTS_DIR": str(settings.tenants_dir),
            "FABRIC_DATA_DIR": str(settings.data_dir),
            "FABRIC_DBT_PROJECT_DIR": str(_make_project(folder)),
            "FABRIC_SECRET_KEYS": ",".join(settings.secret_keys),
        }
        self.warehouse = server.get_url("canaries")
        closed, live = get_free_port(), f"127.0.0.1:{server.port}"
        self._add_database("login_refused", f"postgresql://tenant_a:{{}}@{live}/canaries", kept="env")
        self._add_database("cannot_connect", f"postgresql://tenant_a:{{}}@127.0.0.1:{closed}/canaries", kept="file")
        # A mistake of every day: the driver takes what follows the first @ for the host.
        self._add_database("unescaped_at", f"postgresql://tenant_a:half@{{}}@127.0.0.1:{closed}/canaries", kept="secret", escape=str)
        self._add_database("mysql_password", f"mysql://tenant_a:{{}}@127.0.0.1:{closed}/shop", kept="env")
        self._add_api("bearer", echo, {"path": "401"}, auth={"type": "bearer", "token": self._keep("bearer", "secret")})
        self._add_api("query_key", echo, {"path": "403", "params": {"api_key": CANARIES["query_key"]}})
        pages = {"paginator": {"type": "json_link", "next": "next"}, "data": "rows"}
        self._add_api("signed_link", echo, {"path": "pages", **pages})
        self._add_api("header", echo, {"path": "503"}, auth={"type": "api_key", "name": "X-Key", "key": self._keep("header", "env")})
        client = {"type": "oauth2_client_credentials", "client_id": "acme"}
        secret = self._keep("client_secret", "secret")
        self._add_api("client_secret", echo, {"path": "401"}, auth={**client, "client_secret": secret, "token_url": f"{echo}/refused"})
        known = self._keep("url_userinfo", "env", "known-c4n4ry")
        self._add_api("issued_token", echo, {"path": "401"}, auth={**client, "client_secret": known, "token_url": f"{echo}/token"})
        address = self._keep("url_userinfo", "secret", f"http://tenant_a:{CANARIES['url_userinfo']}@127.0.0.1:{closed}/v1")
        self._add_api("url_userinfo", address, {"path": "contacts"})
        self._add_api("basic_password", echo, {"path": "401"}, auth={"type": "basic", "username": "acme", "password": self._keep("basic_password", "file")})
        bucket = {"access_key_id": {"env": "KNOWN_ID"}, "secret_access_key": self._keep("s3_secret", "secret"), "endpoint_url": f"{echo}/bucket"}
        self.environ["KNOWN_ID"] = "AKIA-of-the-canary"
        files = {"type": "files", "path": "s3://drop/acme", "credentials": bucket, "streams": {"rows": {"glob": "*.csv", "format": "csv"}}}
        self._add("s3_secret", {"exports": files})
        rows = {"path": "rows", "primary_key": "id"}
        self._add_api("rejected_row", echo, rows, auth={"type": "bearer", "token": self._keep("rejected_row", "secret")})
        shop = f"sqlite:///{_make_shop(folder)}"
        self.environ["SHOP_URL"] = shop
        source = {"shop": {"type": "sql_database", "url": {"env": "SHOP_URL"}, "retries": {"max": 0}, "streams": {"orders": {"primary_key": "id"}}}}
        for name, kept in (("destination_password", "secret"), ("destination_refused", "env")):
            role = "tenant_b" if name == "destination_password" else "tenant_a"
            url = self._keep(name, kept, f"postgresql://{role}:{quote(CANARIES[name], safe='')}@{live}/canaries")
            self._add(name, source, destination={"type": "postgres", "url": url}, transform={"select": ["marts"]})

    @property
    def tenants(self) -> list[str]:
        return sorted(CANARIES)

    def _add_database(self, name: str, url: str, *, kept: str, escape: Callable[[str], str] = lambda value: quote(value, safe="")) -> None:
        ref = self._keep(name, kept, url.format(escape(CANARIES[name])))
        self._add(name, {"shop": {"type": "sql_database", "url": ref, "retries": {"max": 0}, "timeout": "20s", "streams": {"orders": {}}}})

    def _add_api(self, name: str, base_url: Any, stream: dict[str, Any], **options: Any) -> None:
        source = {"type": "rest_api", "base_url": base_url, "allow_private_network": True, "retries": {"max": 0}, "streams": {"rows": stream}, **options}
        self._add(name, {"crm": source})

    def _add(self, name: str, sources: dict[str, Any], **options: Any) -> None:
        tenant = {"version": 1, "tenant": name, "sources": sources, **options}
        (self.settings.tenants_dir / f"{name}.yaml").write_text(yaml.safe_dump(tenant, allow_unicode=True), encoding="utf-8")

    def _keep(self, name: str, kind: str, value: str | None = None) -> dict[str, str]:
        value = CANARIES[name] if value is None else value
        if kind == "env":
            self.environ[f"CANARY_{name.upper()}_{len(self.environ)}"] = value
            return {"env": list(self.environ)[-1]}
        if kind == "file":
            folder = self.settings.data_dir / "mounted"
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(value, encoding="utf-8")
            return {"file": f"mounted/{name}"}
        write_secret(name, "canary", value, settings=self.settings)
        return {"secret": "canary"}


def prepare_server(server: PostgresServer) -> None:
    """Roles that need passwords, and a database that knows one of them: so the destination itself can say it back to dbt."""
    with contextlib.closing(psycopg2.connect(server.get_url())) as admin:
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute("create role tenant_a login password 'another'")
            cursor.execute("create role tenant_b superuser login password %s", (CANARIES["destination_password"],))
            cursor.execute("create database canaries template template0 strategy file_copy")
            cursor.execute("alter database canaries set fabric.echo = %s", (CANARIES["destination_password"],))


def _make_project(folder: Path) -> Path:
    """Models that fail: at run time by what the database says, and when they are compiled."""
    project = copy_project(folder / "project")
    for model in (project / "models").rglob("*"):
        if model.suffix in {".sql", ".yml", ".py"}:
            model.unlink()
    marts = project / "models" / "marts"
    marts.mkdir(parents=True, exist_ok=True)
    (marts / "fails_at_run_time.sql").write_text("select cast(current_setting('fabric.echo') as integer) as n")
    ask = "run_query(\"select current_setting('fabric.echo')\").columns[0].values()[0]"
    (marts / "fails_to_compile.sql").write_text(f"{{% if execute %}}{{{{ exceptions.raise_compiler_error('echo: ' ~ {ask}) }}}}{{% endif %}} select 1 as n")
    return project


def _make_shop(folder: Path) -> Path:
    with contextlib.closing(sqlite3.connect(folder / "shop.db")) as database, database:
        database.execute("create table orders (id integer primary key, amount integer)")
        database.execute("insert into orders values (1, 10)")
    return folder / "shop.db"


# --- the search


def find(data: bytes) -> set[str]:
    """The canaries in some bytes: the beginning of one, which no escaping changes, or all of it in base64 behind any other text."""
    return {name for name, needles in _NEEDLES.items() if any(needle in data for needle in needles)}


def _spell(name: str, value: str) -> set[bytes]:
    assert value.startswith(f"c4n4ry-{name}-")
    found = {f"c4n4ry-{name}-".encode()}
    for shift in range(3):
        # Without the characters at its ends, which are shared with what stands beside it.
        inner = base64.b64encode(b"\0" * shift + value.encode())[4 if shift else 0 : -4]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


_NEEDLES = {name: _spell(name, value) for name, value in CANARIES.items()}


def search(*roots: Path, but: Path | None = None) -> dict[str, set[str]]:
    """File -> the canaries in it.

    Args:
        but: a folder that holds the secrets themselves.
    """
    hits = {}
    for root in roots:
        for path in [root] if root.is_file() else root.rglob("*"):
            if path.is_file() and not (but and path.is_relative_to(but)) and (found := find(path.read_bytes())):
                hits[str(path)] = found
    return hits


class ProcessWatch:
    """Reads the command lines of all processes, and the environments of dbt's, while it is on."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.dbt: dict[int, bytes] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "ProcessWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for folder in Path("/proc").iterdir():
                if folder.name.isdecimal():
                    with contextlib.suppress(OSError):
                        command = (folder / "cmdline").read_bytes()
                        self.seen.add(command)
                        if b"fabric_assets.transform.worker" in command:
                            self.dbt[int(folder.name)] = self.dbt.get(int(folder.name), b"") + (folder / "environ").read_bytes()
            time.sleep(0.1)


def read_tables(url: str, schemas: list[str]) -> Mapping[str, str]:
    """The platform's tables of tenants in Postgres, as text."""
    texts = {}
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("select table_schema, table_name from information_schema.tables where table_schema = any(%s)", (schemas,))
        for schema, table in cursor.fetchall():
            cursor.execute(f'select t::text from "{schema}"."{table}" as t')
            texts[f"{schema}.{table}"] = "\n".join(text for (text,) in cursor.fetchall())
    return texts
