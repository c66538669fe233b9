"""Errors of Dagster's database, as its drivers raise them: which are told with a remedy, and which are passed on."""

import sqlite3

import psycopg2.errors
import pytest
import sqlalchemy.exc

from fabric_assets.errors import DestinationError, FabricError, RetriableError
from fabric_assets.factories.instance.storage_errors import explaining_storage

CANNOT, SILENT = "Dagster's database cannot be written: ", "Dagster's database does not answer: "


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (sqlite3.OperationalError("database or disk is full"), CANNOT),
        (sqlite3.OperationalError("database is locked"), SILENT),
        (psycopg2.errors.DiskFull("could not extend file: No space left on device"), CANNOT),
        (psycopg2.errors.AdminShutdown("terminating connection due to administrator command"), SILENT),
        (psycopg2.errors.TooManyConnections("sorry, too many clients already"), SILENT),
        (psycopg2.InterfaceError("connection already closed"), SILENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_state_of_the_database_is_told_with_a_remedy(cause: Exception, message: str) -> None:
    with pytest.raises(RetriableError) as caught, explaining_storage():
        raise sqlalchemy.exc.OperationalError("insert into runs", {"password": "hunter2"}, cause) from cause
    assert caught.value.message == f"{message}{cause}"
    assert caught.value.remedy
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("x"), psycopg2.errors.UndefinedTable("runs"), OSError("x")], ids=lambda error: type(error).__name__)
def test_any_other_error_is_passed_on(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explaining_storage():
        raise error
    assert caught.value is error


def test_an_error_of_a_tenants_own_database_is_passed_on() -> None:
    ours = DestinationError("the destination is full")
    with pytest.raises(FabricError) as caught, explaining_storage():
        raise ours from psycopg2.errors.DiskFull("No space left on device")
    assert caught.value is ours
