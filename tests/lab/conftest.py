"""Fixtures for the tests of the lab itself."""

from tests.lab.fixtures import lab

__all__ = ["lab"]
