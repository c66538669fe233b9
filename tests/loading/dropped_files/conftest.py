"""Fixtures of the dropped files' tests."""

from tests.support.folders import inbox, stable_at_once

__all__ = ["inbox", "stable_at_once"]
