"""The attempts to leave one tenant's own data, and their outcomes. They name objects, never their contents."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

# exposed: another role that an operator granted rights to lets the tenant reach other tenants' data.
Outcome = Literal["denied", "succeeded", "untried", "exposed"]


@dataclass(frozen=True)
class Attempt:
    """One try.

    Args:
        action: a verb whose subject is the tenant: `read`, `become`.
        target: the object of that verb.
        reason: why it could not be tried.
    """

    action: str
    target: str
    outcome: Outcome
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.target}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class IsolationReport:
    """The result of one tenant's check.

    Args:
        walls_are_ours: whether the platform made the tenant's login. Otherwise the operator made it, and decides what it may do.
        notes: facts that limit what the check could try.
    """

    tenant: str
    attempts: tuple[Attempt, ...]
    walls_are_ours: bool = True
    notes: tuple[str, ...] = field(default=())

    def list(self, outcome: Outcome) -> tuple[Attempt, ...]:
        return tuple(attempt for attempt in self.attempts if attempt.outcome == outcome)

    @property
    def passed(self) -> bool:
        """Whether everything was tried, and all of it denied."""
        return all(attempt.outcome == "denied" for attempt in self.attempts)

    @property
    def severity(self) -> Literal["error", "warn"]:
        """Give `error` if a tenant with the platform's login could leave its data. What could not be tried, or is the operator's decision, is a warning."""
        unproven = (self.list("untried") or self.list("exposed")) and not self.list("succeeded")
        return "error" if self.walls_are_ours and not unproven else "warn"

    @property
    def message(self) -> str:
        return "; ".join(self._describe())

    def _describe(self) -> Iterator[str]:
        if self.passed:
            yield f"all of {len(self.attempts):,} attempts to leave the tenant's own data were denied"
        if leaks := self.list("succeeded"):
            yield f"the tenant could {_join(leaks)}"
            if not self.walls_are_ours:
                yield "its login is not the platform's: give the destination `managed: true`, and the platform makes one that can do none of this"
        if exposed := self.list("exposed"):
            yield f"by grants that an operator has made, the tenant could {_join(exposed)}"
        if untried := self.list("untried"):
            yield f"not proven, because these could not be tried: {_join(untried)}"
        yield from self.notes


def _join(attempts: tuple[Attempt, ...], most: int = 10) -> str:
    words = [str(attempt) for attempt in attempts[:most]]
    return ", ".join(words) + (f" and {len(attempts) - most:,} more" if len(attempts) > most else "")
