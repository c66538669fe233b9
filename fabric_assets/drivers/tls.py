"""A database's URL, or its driver's error -> a remedy for failed TLS, or an error for TLS parameters that would have no effect.

An untrusted connection is a permanent error: another try would only offer the login again to an unknown server.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from fabric_assets.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

# SQLAlchemy passes these to PyMySQL together. Any other TLS parameter of PyMySQL would replace them, and turn off their checks.
_MYSQL_PARAMETERS = ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_cipher", "ssl_check_hostname")
_MYSQL_FILES = ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key")

_REMEDIES = {
    ("does not match host name", "hostname mismatch", "ip address mismatch"): "write the host as the server's certificate names it",
    ("does not support ssl", "ssl is required but the server"): "let the server speak TLS, or ask for none in the url",
    ("no encryption", "ssl off", "insecure transport", "ssl connection is required", "requires a valid client certificate", "certificate required"): (
        "ask for TLS in the url, with the client's certificate where the server wants one"
    ),
    ("root certificate file", "could not read certificate file", "could not load private key", "private key file", "certificate present, but not"): (
        "correct the path in the url, and let the file be readable by its owner alone"
    ),
    ("certificate verify failed", "certificate_verify_failed", "unknown ca", "bad certificate"): (
        "name the authority that signed the certificate in the url (sslrootcert, ssl_ca)"
    ),
}


def get_tls_remedy(reason: str) -> str | None:
    """Find the remedy if a connection failed because of TLS; None if it failed for another reason."""
    low = reason.lower()
    return next((remedy for words, remedy in _REMEDIES.items() if any(word in low for word in words)), None)


def check_mysql_parameters(url: "URL", *, where: str) -> None:
    """Raise an error for TLS parameters of a MySQL URL that would have no effect.

    Raises:
        ConfigurationError: a word that is not heeded, by itself or for want of another, or a file that is not there.
    """
    asked = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items() if name.startswith("ssl")}
    if unknown := sorted(set(asked) - set(_MYSQL_PARAMETERS)):
        known = ", ".join(_MYSQL_PARAMETERS)
        raise ConfigurationError(f"{where}: the url's {unknown[0]} would have no effect", remedy=f"ssl_ca checks certificate and host; known: {known}")
    if asked.get("ssl_check_hostname", "true").lower() not in {"true", "false"}:
        raise ConfigurationError(f"{where}: the url's ssl_check_hostname is neither true nor false", remedy="write true or false")
    if asked.get("ssl_check_hostname", "false").lower() == "true" and not {"ssl_ca", "ssl_capath"} & set(asked):
        raise ConfigurationError(
            f"{where}: the url's ssl_check_hostname checks nothing without ssl_ca or ssl_capath",
            remedy="name the authority that signed the certificate in ssl_ca; or write false: encrypted, and nobody checked",
        )
    for name in _MYSQL_FILES:
        if name in asked and not Path(asked[name]).exists():
            raise ConfigurationError(f"{where}: the url's {name} names {asked[name]!r}, which does not exist", remedy="correct the path in the url")
