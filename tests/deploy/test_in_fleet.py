"""deploy/in-fleet: a command has the environment of its part's unit, and not the home folder of its caller."""

import getpass
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.deploy.units import DEPLOY
from tests.support.certificates import Authority
from tests.support.services import PostgresServer
from tests.support.tls_front import TlsFront

CONNECT = "import os, psycopg2; print(psycopg2.connect(os.environ['DAGSTER_POSTGRES_URL']).info.ssl_in_use)"


def test_dagsters_database_is_reached_over_tls_from_a_home_that_is_closed_to_the_fleets_user(postgres_server: PostgresServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    (home := tmp_path / "root").mkdir()
    # Nobody can look for a client's certificate there, as in root's home; the link also stops root.
    (home / ".postgresql").symlink_to(".postgresql")
    with TlsFront(postgres_server.port, authority.issue("server", "localhost")) as front:
        url = front.get_url("postgres", sslmode="verify-full", sslrootcert=authority.certificate)
        (etc := tmp_path / "etc").mkdir()
        (etc / "dagster.env").write_text(f"DAGSTER_POSTGRES_URL={url}\n")
        (etc / "fleet_a.env").touch()
        folders = {"ETL_FABRIC_ROOT": str(ROOT), "ETL_FABRIC_ETC": str(etc), "ETL_FABRIC_LIB": str(tmp_path), "ETL_FABRIC_USER": getpass.getuser()}
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(home), **folders}
        program = [sys.executable, "-c", CONNECT]
        alone = subprocess.run(program, env={**environ, "DAGSTER_POSTGRES_URL": url}, capture_output=True, text=True, check=False)
        assert f'could not open certificate file "{home}/.postgresql/postgresql.crt"' in alone.stderr
        done = subprocess.run([str(DEPLOY / "in-fleet"), "fleet_a", *program], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"True{os.linesep}", "")
