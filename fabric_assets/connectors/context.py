"""What a connector needs to open a source: the declared config, and a way to resolve its secrets.

Every connector module offers `open_source(context) -> SourceReader`. Secrets are read by `resolve` alone, so a connector reads them
only while a load runs, and only those that its own config references.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fabric_assets.config.base import SecretRef
from fabric_assets.config.sources.models import SourceConfig
from fabric_assets.settings import Settings

# The config of the connector's own type, so that it need not check the type.
ConfigT_co = TypeVar("ConfigT_co", bound=SourceConfig, covariant=True)


@dataclass(frozen=True)
class SourceContext(Generic[ConfigT_co]):
    """The context of one load of one source.

    Args:
        tenant: the tenant's name.
        name: the source's name.
        streams: the chosen streams, all of them declared in `config`.
        full_refresh: forget cursors and remembered files of these streams.
        counted: streams of which a check asks how many rows the source holds.
        loaded_before: streams that an earlier try of the same run has loaded.
        report: is called with each line of progress and of notes for the reader of the run.
    """

    tenant: str
    name: str
    config: ConfigT_co
    streams: tuple[str, ...]
    settings: Settings
    full_refresh: bool = False
    counted: frozenset[str] = frozenset()
    loaded_before: tuple[str, ...] = ()
    report: Callable[[str], None] = lambda message: None

    def resolve(self, ref: SecretRef, *, hidden: bool = True) -> str:
        """Read a secret's value.

        Args:
            hidden: False for an address without credentials, which messages may show.

        Raises:
            SecretError: the secret does not exist.
        """
        from fabric_assets.security.secrets import resolve_secret

        return resolve_secret(ref, tenant=self.tenant, settings=self.settings, hidden=hidden)

    def describe(self, stream: str = "") -> str:
        """Name the tenant, source and stream for messages: `tenant acme, source shop, stream orders`."""
        where = f"tenant {self.tenant}, source {self.name}"
        return f"{where}, stream {stream}" if stream else where
