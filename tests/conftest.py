"""Fixtures of all tests, and an environment that holds nothing of the developer's.

The environment is cleaned while pytest loads this file: dlt, dbt and Dagster read theirs when they are imported.
"""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from cryptography.fernet import Fernet

ROOT = Path(__file__).resolve().parent.parent
_FOREIGN = (
    "FABRIC_",
    "DAGSTER_",
    "DLT_",
    "DBT_",
    "AWS_",
    "PG",
    "RUNTIME__",
    "CREDENTIALS__",
    "SOURCES__",
    "DESTINATION__",
    "LOAD__",
    "NORMALIZE__",
    "EXTRACT__",
)


def _clean_environment() -> None:
    for name in [name for name in os.environ if name.startswith(_FOREIGN) and not name.startswith("FABRIC_TEST_")]:
        del os.environ[name]
    nowhere = tempfile.mkdtemp(prefix="fabric-tests-")
    atexit.register(shutil.rmtree, nowhere, ignore_errors=True)
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        # dlt looks for .dlt folders in these, else in the current and the home folder.
        "DLT_PROJECT_DIR": nowhere,
        "DLT_DATA_DIR": nowhere,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PGPASSFILE": os.devnull,
        # Servers of tests have authorities of their own. PyMySQL reads the machine's for each connection, 28 ms, and checks none.
        "SSL_CERT_FILE": os.devnull,
        # Else a run in the repository's folder would publish there.
        "FABRIC_PUBLISH_DIR": f"{nowhere}/published",
        # Nothing here multiplies matrices: numpy's threads for it would spin in each of hundreds of processes.
        "OPENBLAS_NUM_THREADS": "1",
        # The package that brings Postgres warns where a login session has not set it, and warnings are errors here.
        "XDG_RUNTIME_DIR": nowhere,
    }


_clean_environment()

from fabric_assets import masking  # noqa: E402
from fabric_assets.config.tenant import TenantConfig  # noqa: E402
from fabric_assets.settings import Settings  # noqa: E402
from fabric_assets.transform.evaluation import evaluate_selections  # noqa: E402
from fabric_assets.transform.graph import load_graph  # noqa: E402
from fabric_assets.transform.project import prepare_project  # noqa: E402
from tests.support.folders import make_once  # noqa: E402
from tests.support.services import chromium, make_database, mariadb_url, postgres_database, postgres_server, postgres_url, redis_url, s3, s3_endpoint  # noqa: E402

# A busy machine is slow, and no test is about that.
hypothesis.settings.register_profile("fabric", deadline=None)
hypothesis.settings.load_profile("fabric")

# What Dagster and dbt import is no garbage: to look through it each 700 objects takes a tenth of the tests' time.
gc.set_threshold(50_000, 20, 20)

__all__ = ["chromium", "make_database", "mariadb_url", "postgres_database", "postgres_server", "postgres_url", "redis_url", "s3", "s3_endpoint"]


def pytest_collection_finish() -> None:
    """Keep imported and collected objects out of further garbage collections."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _forget_dagster_home() -> None:
    """Unset DAGSTER_HOME, which opening an instance sets: another test's runs would be recorded there."""
    os.environ.pop("DAGSTER_HOME", None)


_HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


@pytest.fixture(autouse=True)
def _keep_signals() -> None:
    """Restore the signal handlers. Dagster leaves SIGTERM with the handler of SIGINT, which background jobs ignore, and processes of later tests inherit it."""
    for number, handler in _HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _remember_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets of other tests, as if each test were a separate process: they are not masked in this test's texts."""
    monkeypatch.setattr(masking, "_KNOWN", masking._KnownValues())


# What most tests' tenants select of the repository's dbt project.
SELECTIONS = (["staging.shop", "marts.sales"], ["staging.shop"], ["+marts.marketing"], ["staging.shop", "marts.sales", "product_prices", "ad_channels"])


def _build_selecting(select: list[str]) -> TenantConfig:
    return TenantConfig.model_validate({"version": 1, "tenant": "anyone", "transform": {"select": select}})


@pytest.fixture(scope="session")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `dbt/prepared` folder of the repository's dbt project, parsed once for all of pytest's workers; to be copied, not changed. With `SELECTIONS`."""

    def make(folder: Path) -> None:
        settings = Settings(tenants_dir=folder, dbt_project_dir=ROOT / "dbt_project", data_dir=folder)
        for adapter in ("duckdb", "postgres"):
            prepare_project(settings, adapter)
        evaluate_selections(map(_build_selecting, SELECTIONS), load_graph(settings), settings)

    return make_once(tmp_path_factory, "prepared-project", make) / "dbt" / "prepared"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose tenants and data are the test's own, over the repository's dbt project."""
    tenants, data = tmp_path / "tenants", tmp_path / "data"
    tenants.mkdir()
    data.mkdir(mode=0o700)
    keys = (Fernet.generate_key().decode(),)
    return Settings(tenants_dir=tenants, dbt_project_dir=ROOT / "dbt_project", data_dir=data, secret_keys=keys, publish_dir=tmp_path / "published")


@pytest.fixture(scope="session")
def installed_tap(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The settings that name an installed Singer tap of the tests' own; see tests/support/taps.py."""
    from tests.support.taps import install_tap

    return install_tap(tmp_path_factory.mktemp("connectors"))


@pytest.fixture
def settings_environ(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Put the test's settings into the environment: for the CLI and for subprocesses."""
    values = {
        "FABRIC_TENANTS_DIR": str(settings.tenants_dir),
        "FABRIC_DBT_PROJECT_DIR": str(settings.dbt_project_dir),
        "FABRIC_DATA_DIR": str(settings.data_dir),
        "FABRIC_PUBLISH_DIR": str(settings.publish_dir),
        "FABRIC_SECRET_KEYS": ",".join(settings.secret_keys),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def write_tenant(settings: Settings) -> Callable[..., Path]:
    """`write_tenant("acme", {"sources": ...})` or `write_tenant("acme", "version: 1\\n...")` -> the file in `settings.tenants_dir`.

    A mapping gets `version` and `tenant` by itself; text is written as it stands. Names with a slash (`_templates/shop`) make their folder.
    """

    def write(name: str, body: Mapping[str, Any] | str) -> Path:
        file = settings.tenants_dir / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(body, str):
            own = {} if file.name.startswith("_") or file.parent != settings.tenants_dir else {"version": 1, "tenant": name}
            body = yaml.safe_dump({**own, **body}, sort_keys=False, allow_unicode=True)
        file.write_text(body, encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def installed_dlt(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The settings that name an installed dlt source of the tests' own, from PyPI; see tests/support/dlt_rows.py."""
    from tests.support.dlt_rows import get_settings, install_source

    return get_settings(make_once(tmp_path_factory, "dlt-connectors", install_source))


@pytest.fixture(scope="session")
def installed_airbyte(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The settings that name an installed Airbyte connector of the tests' own; see tests/support/airbyte_rows.py."""
    from tests.support.airbyte_rows import install_connector

    return install_connector(tmp_path_factory.mktemp("airbyte-connectors"))
