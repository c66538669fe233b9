"""A process that was given a secret shows it nowhere: in no log line, no traceback, and nothing that Dagster keeps of a failed step."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from fabric_assets.config.base import SecretRef
from fabric_assets.errors import SourceError
from fabric_assets.factories.failures import raised_to_dagster
from fabric_assets.rows.column_names import compose
from fabric_assets.security.secrets import resolve_secret
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.support.tracebacks import read_traceback

CANARY = "c4n4ry/of+redaction"
BEGIN = """
import logging, os, sys, threading
from pathlib import Path
from fabric_assets.config.base import SecretRef
from fabric_assets.security.secrets import resolve_secret
from fabric_assets.settings import Settings
os.environ["TENANT_TOKEN"] = "c4n4ry/of+redaction"
secret = resolve_secret(SecretRef(env="TENANT_TOKEN"), tenant="acme", settings=Settings(Path(), Path(), Path()))
def fail():
    raise RuntimeError(f"driver said {secret}")
"""


def run(program: str) -> tuple[int, str]:
    process = subprocess.run([sys.executable, "-c", BEGIN + program], check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    shown = process.stdout + process.stderr
    assert "c4n4ry" not in shown
    return process.returncode, shown


@pytest.mark.parametrize("name", ["", "acme", "sqlalchemy.engine.Engine", "dlt", "dagster.builtin", "urllib3.connectionpool", "botocore.auth"])
def test_no_logger_writes_it_in_its_text_its_arguments_its_traceback_or_its_stack(name: str) -> None:
    code, shown = run(f"""
logging.basicConfig(level=logging.DEBUG)
logger = logging.getLogger({name!r})
logger.info("plain " + secret)
logger.info("argument %s and %r", secret, dict(key=secret))
logger.error("does not fit %d", secret)
try:
    fail()
except RuntimeError:
    logger.exception("failed")
def inner(argument):
    logger.warning("with its stack", stack_info=True)
inner("x")
import urllib.parse, base64
logger.info(urllib.parse.quote(secret, safe="") + base64.b64encode(b"user:" + secret.encode()).decode())
""")
    assert code == 0
    for words in ("plain ***", "argument *** and {'key': '***'}", "does not fit %d ('***',)", "RuntimeError: driver said ***", "with its stack"):
        assert words in shown


def test_a_handler_that_was_there_before_the_first_secret_gets_masked_records_too() -> None:
    program = f"""
import logging
logging.basicConfig(level=logging.INFO, format="EARLY %(message)s")
early = logging.getLogger("early")
{BEGIN}
early.info("told %s", secret)
"""
    process = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert process.stderr == "EARLY told ***\n"


@pytest.mark.parametrize(
    "program",
    ["fail()", "thread = threading.Thread(target=fail); thread.start(); thread.join()", "from fabric_assets.cli import app, main; app.app = fail; main.main()"],
)
def test_an_exception_that_nobody_catches_is_printed_without_it(program: str) -> None:
    shown = run(program)[1]
    assert "RuntimeError: driver said ***" in shown
    assert "Traceback (most recent call last)" in shown


def test_an_exception_without_a_secret_is_printed_as_ever() -> None:
    code, shown = run("1 / 0")
    assert code == 1
    assert shown.endswith("ZeroDivisionError: division by zero\n")


@pytest.fixture
def token(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TENANT_TOKEN", CANARY)
    return resolve_secret(SecretRef(env="TENANT_TOKEN"), tenant="acme", settings=settings)


def test_every_error_of_ours_masks_itself_as_it_is_made(token: str) -> None:
    error = SourceError(f"the server said {token} and https://u:p@host/?api_key=x", remedy=f"ask for another than {token}")
    assert str(error) == "the server said *** and https://***@host/?api_key=***\n  remedy: ask for another than ***"
    assert error.args == ("the server said *** and https://***@host/?api_key=***",)


@pytest.mark.parametrize("kind", ["unforeseen", "chained", "ours", "logged"])
def test_dagster_keeps_nothing_of_it_when_a_step_fails(kind: str, token: str, settings: Settings, tmp_path: Path) -> None:
    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        with raised_to_dagster(settings, "acme"):
            context.log.info(f"about to use {token}")
            if kind == "logged":
                try:
                    raise ValueError(f"dsn: host=x password='{token}'")
                except ValueError:
                    context.log.exception("went wrong")
                raise RuntimeError("clean")
            if kind == "ours":
                raise SourceError(f"refused: {token}")
            try:
                raise ValueError(f"dsn: host=x password='{token}'")
            except ValueError as error:
                if kind == "chained":
                    raise RuntimeError("the outer says nothing") from error
                raise

    @dg.job
    def job() -> None:
        step()

    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        assert not result.success
        (failure,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
        texts = [str(entry) for entry in instance.all_logs(result.run_id)]
    assert "c4n4ry" not in "\n".join(texts)
    assert "about to use ***" in "\n".join(texts)
    held = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"about to use ***" in held
    assert b"c4n4ry" not in held
    data = failure.step_failure_data
    if kind in ("unforeseen", "chained"):
        assert data.user_failure_data.metadata["traceback"].value.count("ValueError: dsn: host=x password=***") == 1
    if kind == "logged":
        assert data.error.cause.cls_name == "RuntimeError"


def test_a_fault_of_ours_in_a_step_is_a_failure_that_names_its_file(token: str, settings: Settings) -> None:
    with pytest.raises(dg.Failure) as caught, raised_to_dagster(settings, "acme"):
        compose(5)  # type: ignore[arg-type] - our own line fails at it
    message = str(caught.value.description)
    assert message.startswith("tenant acme: this step: a fault of ETL Fabric (AttributeError at fabric_assets/rows/column_names.py:")
    assert "compose(5)" in read_traceback(settings, "acme", message)
    assert not caught.value.allow_retries


def test_an_unforeseen_exception_without_a_secret_reaches_dagster_as_it_is(token: str, settings: Settings) -> None:
    with pytest.raises(KeyError, match="nothing secret"), raised_to_dagster(settings, "acme"):
        raise KeyError("nothing secret")


def test_definitions_are_built_without_reading_a_secret(settings: Settings, settings_environ: Mapping[str, str], tmp_path: Path) -> None:
    """Every kind of reference, in every field that accepts one; none of them exists."""
    (settings.tenants_dir / "acme.yaml").write_text(ALL_REFERENCES)
    program = """
import os, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
class Watched(type(os.environ)):
    def __getitem__(self, key):
        if key.startswith("SECRET_"): raise AssertionError(key)
        return super().__getitem__(key)
os.environ.__class__ = Watched
from fabric_assets import definitions, masking
defs = definitions.defs()
assert len(list(defs.resolve_asset_graph().get_all_asset_keys())) == 7, defs
assert masking.count_remembered() == 0
touched = [path for path in opened if "/data/secrets" in path or "/data/mounted" in path]
assert not touched, touched
"""
    process = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert process.returncode == 0, process.stderr


ALL_REFERENCES = """
version: 1
tenant: acme
destination: {type: postgres, url: {env: SECRET_WAREHOUSE}}
sources:
  shop: {type: sql_database, url: {secret: shop_url}, streams: {orders: {}}}
  crm: {type: rest_api, base_url: {env: SECRET_URL}, auth: {type: bearer, token: {file: mounted/token}}, streams: {contacts: {path: contacts}}}
  erp:
    type: rest_api
    base_url: "https://erp.example"
    auth: {type: basic, username: {env: SECRET_USER}, password: {env: SECRET_PW}}
    streams: {bills: {path: bills}}
  web:
    type: rest_api
    base_url: "https://web.example"
    auth: {type: oauth2_client_credentials, client_id: {env: SECRET_ID}, client_secret: {secret: client}, token_url: {env: SECRET_TOKEN_URL}}
    streams: {visits: {path: visits}}
  exports:
    type: files
    path: s3://bucket/exports
    credentials: {access_key_id: {env: SECRET_KEY_ID}, secret_access_key: {secret: bucket}, endpoint_url: {env: SECRET_ENDPOINT}}
    streams: {tickets: {glob: "*.csv", format: csv}}
  ads:
    type: csv_import
    path: s3://bucket/ads
    credentials: {access_key_id: {env: SECRET_KEY_ID}, secret_access_key: {file: mounted/bucket}}
    streams: {campaigns: {glob: "*.csv", mapping: {Date: date}, columns: {date: {type: date}}}}
"""
