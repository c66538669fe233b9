"""Every exception of the platform, grouped by how one recovers.

    FabricError
    ├── ConfigurationError      somebody edits YAML, the environment or a dbt model; never retried
    │   ├── SecretError         a SecretRef points at nothing, or at something unreadable
    │   └── UnresolvedPackages  the dbt project's packages are not installed as its packages.yml says
    ├── PermanentError          the same call gives the same answer; never retried
    │   ├── SourceError         the source answered, and refuses: wrong table, column, cursor, login
    │   │   └── RefusedRequest  an HTTP API refuses a request
    │   ├── DestinationError    the destination answered, and refuses
    │   ├── DataError           rows that cannot be loaded as declared
    │   │   └── QuarantinedFile a dropped file of which no row may be loaded
    │   ├── TransformError      a dbt model or its project failed
    │   └── InternalError       a fault of ETL Fabric itself
    └── RetriableError          worth another try later; the step's retry policy decides how often
        ├── SourceUnavailable   no connection, a time-out, HTTP 429 or 5xx
        ├── DestinationUnavailable
        └── LeaseHeld           another run works on the same tenant and source

Messages name the tenant, what failed and the cause; `remedy` says what to do next. No message holds a secret's value: each is masked when it is created,
also the parts that come from a driver or a server. Characters that change what a terminal shows are spelt out.
"""

from fabric_assets.masking import mask
from fabric_assets.visible import show_text

_LONGEST_TRACEBACK = 20_000


class FabricError(Exception):
    """The base of all exceptions.

    Args:
        message: what is wrong, and where.
        remedy: what the reader does next; empty where the message already says it.

    Attributes:
        where: file and line of the YAML that declares what failed, if the caller knows it.
        at_destination: whether it was raised while the destination was opened.
    """

    # For a fault of ours: its traceback, the file of it as messages show it, and whether that file or the log has it (`own_faults.py`).
    traceback = ""
    traceback_file = ""
    is_kept = False

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = show_text(mask(message))
        self.remedy = show_text(mask(remedy))
        self.where = ""
        self.at_destination = False
        super().__init__(self.message)

    def set_traceback(self, traceback: str) -> None:
        # Masked before it is cut, which could leave half of a secret.
        self.traceback = mask(traceback)[-_LONGEST_TRACEBACK:]

    def add_to_message(self, text: str) -> None:
        self.message += show_text(mask(text))
        self.args = (self.message,)

    def __str__(self) -> str:
        lines = [self.message, *([f"  remedy: {self.remedy}"] if self.remedy else []), *([f"  declared in: {self.where}"] if self.where else [])]
        return "\n".join(lines)


class ConfigurationError(FabricError):
    """A wrong declaration or setting: edit it, then try again."""


class SecretError(ConfigurationError):
    """A SecretRef that cannot be resolved.

    Attributes:
        reference: its key and name, such as `env` and `SHOP_URL`, if the caller knows them.
    """

    reference: tuple[str, str] | None = None


class UnresolvedPackages(ConfigurationError):
    """The dbt project's packages are not installed as its packages.yml says."""


class PermanentError(FabricError):
    """A failure that another try would only repeat."""


class SourceError(PermanentError):
    """A refusal by the source, or a source that lacks what the stream names."""


class RefusedRequest(SourceError):
    """A refusal of a request by an HTTP API.

    Args:
        status: the status of its answer.
    """

    def __init__(self, message: str, *, remedy: str = "", status: int = 0) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class DestinationError(PermanentError):
    """A refusal by the destination."""


class DataError(PermanentError):
    """Rows of the source that cannot be loaded as declared."""


class QuarantinedFile(DataError):
    """A dropped file that cannot be loaded, and that somebody must look at.

    Args:
        reason: a stable code: lower-case words joined by underscores.
        message: what is wrong, without the file's name.
    """

    def __init__(self, reason: str, message: str, *, remedy: str = "correct the file and drop it again") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class TransformError(PermanentError):
    """A build that dbt could not complete."""


class InternalError(PermanentError):
    """A fault of ETL Fabric itself, which nobody else can correct.

    Args:
        traceback: for those who correct the fault; masked like the message.
    """

    def __init__(self, message: str, *, remedy: str = "report it with this message and its traceback", traceback: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.set_traceback(traceback)


class RetriableError(FabricError):
    """A failure that a later try may not have."""


class SourceUnavailable(RetriableError):
    """A source that could not be reached in time."""


class DestinationUnavailable(RetriableError):
    """A destination that could not be reached in time."""


class LeaseHeld(RetriableError):
    """A lease on the tenant's data that another run holds."""
