"""A dropped file that cannot be loaded as a whole: no row of it is, and somebody must look at it."""

from fabric_assets.errors import DataError


class QuarantinedFile(DataError):
    """A whole file is refused.

    Args:
        reason: a stable code: lower-case words joined by underscores.
        message: what is wrong, without the file's name.
    """

    def __init__(self, reason: str, message: str, *, remedy: str = "correct the file and drop it again") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason
