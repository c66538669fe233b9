"""The packages that packages.yml or dependencies.yml of the dbt project names -> installed in the project by `dbt deps`.

Only `fabric prepare` calls this. A run takes the packages as they are installed, and never downloads one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fabric_assets.bound_commands import bind
from fabric_assets.errors import ConfigurationError, UnresolvedPackages
from fabric_assets.masking import remember
from fabric_assets.private_files import FileLock
from fabric_assets.settings import Settings
from fabric_assets.transform.fingerprint import LOCK_FILE, digest_packages_files, get_lock_file, get_packages_folder, get_packages_record
from fabric_assets.transform.process import build_environment
from fabric_assets.transform.project import prepare_project

# What git, ssh and requests read, beside what each worker has. Packages of packages are rendered as Jinja: they see this environment and nothing else.
_PASSED = (
    *("HOME", "NETRC", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "DBT_PACKAGE_HUB_URL"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
_SECRETS = "DBT_ENV_SECRET_"
_PASSED_PREFIXES = (_SECRETS, "GIT_")
_TIMEOUT_SECONDS = 900
# The folder of what was installed before, while an installation runs; and in it the packages, or a file that says that there were none.
_ASIDE, _PACKAGES, _NOTHING = ".packages-before", "packages", "nothing"
_MOST_LINES = 20
_REMEDY = (
    "let this machine reach hub.getdbt.com and the addresses in packages.yml, or take packages from a folder with `local:`; then run `fabric prepare` again."
    " The packages that were installed before are still there"
)


def prepare_with_packages(settings: Settings, adapter: str) -> bool:
    """Prepare the project, and resolve its packages first where they have to be. Give whether they were.

    Raises:
        ConfigurationError: a package cannot be installed, or the project cannot be parsed.
    """
    try:
        prepare_project(settings, adapter)
    except UnresolvedPackages:
        _install(settings)
        prepare_project(settings, adapter)
        return True
    return False


def _install(settings: Settings) -> None:
    project = settings.dbt_project_dir.resolve()
    try:
        with FileLock(get_lock_file(settings)), _kept_on_failure(project), tempfile.TemporaryDirectory() as folder:
            _run_deps(project, folder)
            record = get_packages_record(project)
            record.parent.mkdir(exist_ok=True)
            record.write_text(digest_packages_files(project))
    except OSError as error:
        reason = f"{error.filename or project}: {error.strerror}"
        raise ConfigurationError(
            f"the packages of the dbt project {project} cannot be installed: {reason}", remedy="run `fabric prepare` as a user who may write there"
        ) from None


def _run_deps(project: Path, folder: str) -> None:
    """Run `dbt deps`.

    Args:
        folder: for dbt's log, and a profile, which is not there: dbt needs none for this.
    """
    command = bind([sys.executable, "-P", "-c", "from dbt.cli.main import cli; cli()", "deps", "--project-dir", str(project), "--profiles-dir", folder])
    command += ["--log-path", folder, "--no-use-colors", "--log-level-file", "none", "--no-send-anonymous-usage-stats"]
    try:
        done = subprocess.run(
            command, env=_build_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"`dbt deps` took more than {_TIMEOUT_SECONDS} s for {project}", remedy=_REMEDY) from None
    if done.returncode:
        said = "\n".join(_leave_out_tracebacks([line for line in (done.stdout + done.stderr).splitlines() if line.strip()])[-_MOST_LINES:])
        raise ConfigurationError(f"the packages of the dbt project {project} cannot be installed. `dbt deps` says:\n{said}", remedy=_REMEDY)


def _leave_out_tracebacks(lines: list[str]) -> list[str]:
    """What stands before the first traceback, and the error in which the last one ends."""
    begins = [number for number, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    if not begins:
        return lines
    return lines[: begins[0]] + [line for line in lines[begins[-1] + 1 :] if not line.startswith(" ")]


def _build_environment() -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    for name, value in passed.items():
        if name.startswith(_SECRETS) and value:
            remember(value)
    # Without a terminal git waits for a password for ever.
    return build_environment() | {"GIT_TERMINAL_PROMPT": "0"} | passed


@contextmanager
def _kept_on_failure(project: Path) -> Iterator[None]:
    """Put back what was installed, and its lock file, if the block fails: `dbt deps` removes it before it downloads anything.

    A block that was killed is put back by the next one.
    """
    folder, lock, aside = get_packages_folder(project), project / LOCK_FILE, project / _ASIDE
    _put_back(project)
    copy = Path(tempfile.mkdtemp(dir=project, prefix=f"{_ASIDE}-"))
    if folder.is_dir():
        shutil.copytree(folder, copy / _PACKAGES, symlinks=True)
    else:
        (copy / _NOTHING).touch()
    if lock.is_file():
        shutil.copyfile(lock, copy / LOCK_FILE)
    copy.rename(aside)
    try:
        yield
    except BaseException:
        _put_back(project)
        raise
    shutil.rmtree(aside)


def _put_back(project: Path) -> None:
    """Put back what an installation that did not end has set aside. Killed in between, it is repeated."""
    folder, lock, aside = get_packages_folder(project), project / LOCK_FILE, project / _ASIDE
    for unfinished in project.glob(".packages-*"):
        if unfinished != aside:
            shutil.rmtree(unfinished)
    if not aside.is_dir():
        return
    if (aside / _PACKAGES).is_dir() or (aside / _NOTHING).exists():
        shutil.rmtree(folder, ignore_errors=True)
    if (aside / _PACKAGES).is_dir():
        (aside / _PACKAGES).rename(folder)
    lock.unlink(missing_ok=True)
    if (aside / LOCK_FILE).is_file():
        shutil.copyfile(aside / LOCK_FILE, lock)
    shutil.rmtree(aside)
