"""Every exception of the platform, grouped by what it takes to recover.

    FabricError
    ├── ConfigurationError      somebody edits YAML, the environment or a dbt model; never retried
    │   └── SecretError         a SecretRef points at nothing, or at something unreadable
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

Messages name the tenant, the place and the cause; `remedy` says what to do next. No message holds a secret's value: each is masked as it is made,
whatever a driver or a server put into it. Characters that change what a terminal shows are spelt out.
"""

from fabric_assets.masking import mask
from fabric_assets.visible import show_text

_LONGEST_TRACEBACK = 20_000


class FabricError(Exception):
    """Root of the tree.

    Args:
        message: what is wrong, and where.
        remedy: what the reader does next; empty where the message already says it.

    Attributes:
        where: file and line of the YAML that declares what failed, as far as the caller knows it.
        at_destination: it was raised as the destination was opened, whatever its kind.
    """

    # Of a fault of ours: where it happened, the file with it as messages show it, and whether that or the log keeps it (`own_faults.py`).
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
    """Something declared is wrong: edit it, then try again."""


class SecretError(ConfigurationError):
    """A SecretRef could not be resolved.

    Attributes:
        reference: its key and name, such as `env` and `SHOP_URL`, as far as the caller knows them.
    """

    reference: tuple[str, str] | None = None


class PermanentError(FabricError):
    """A repeat gives the same answer."""


class SourceError(PermanentError):
    """The source answered and refused, or lacks what the stream names."""


class RefusedRequest(SourceError):
    """An HTTP API refuses a request.

    Args:
        status: of its answer.
    """

    def __init__(self, message: str, *, remedy: str = "", status: int = 0) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class DestinationError(PermanentError):
    """The destination answered and refused."""


class DataError(PermanentError):
    """The source's rows cannot be loaded as declared."""


class QuarantinedFile(DataError):
    """A dropped file cannot be loaded as a whole, and somebody must look at it.

    Args:
        reason: a stable code: lower-case words joined by underscores.
        message: what is wrong, without the file's name.
    """

    def __init__(self, reason: str, message: str, *, remedy: str = "correct the file and drop it again") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class TransformError(PermanentError):
    """dbt could not build what was asked for."""


class InternalError(PermanentError):
    """A fault of ETL Fabric itself, which nobody else can correct.

    Args:
        traceback: where it happened, for those who correct it; masked as the message is.
    """

    def __init__(self, message: str, *, remedy: str = "report it with this message and its traceback", traceback: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.set_traceback(traceback)


class RetriableError(FabricError):
    """A later try may well succeed."""


class SourceUnavailable(RetriableError):
    """The source could not be reached in time."""


class DestinationUnavailable(RetriableError):
    """The destination could not be reached in time."""


class LeaseHeld(RetriableError):
    """Another run holds the lease on this tenant's data."""
