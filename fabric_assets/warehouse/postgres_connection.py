"""A tenant's Postgres destination -> ADBC connections for a load, each set up before its first transaction."""

from typing import Any

from adbc_driver_postgresql import dbapi

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers import postgres_adbc
from fabric_assets.drivers.postgres_destination import CONNECT_TIMEOUT_SECONDS, Postgres, get_postgres_error
from fabric_assets.security import postgres_login
from fabric_assets.security.postgres_login import complete_login
from fabric_assets.security.postgres_session import build_settings

# Both sides notice after half a minute that the other one is gone, while waiting as well as while writing.
_SESSION = {
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "work_mem": "64MB",
    # Counting keys with a hash is slower than sorting them if nearly all are different.
    "enable_hashagg": "off",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_NETWORK = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def build_conninfo(destination: Postgres, *, program: str) -> str:
    """Open a connection.

    Args:
        program: shown by pg_stat_activity.
    """
    url = dict(destination.login)
    own = {key: value for key, value in url.pop("query").items() if key not in {"options", "connect_timeout", "client_encoding"}}
    return postgres_login.build_conninfo(complete_login({**_NETWORK, **own, **url, "application_name": program, "client_encoding": "UTF8"}))


def connect(tenant: TenantConfig, conninfo: str) -> Any:
    try:
        connection = postgres_adbc.connect(conninfo)
        try:
            with connection.cursor() as cursor:
                cursor.adbc_statement.set_sql_query(build_settings(_SESSION))
                cursor.adbc_statement.execute_update()
            connection.commit()
        except BaseException:
            connection.close()
            raise
    except dbapi.Error as error:
        raise get_postgres_error(tenant, str(error)) from None
    return connection
