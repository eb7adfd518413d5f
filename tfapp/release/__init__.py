"""Releases: exported files that were measured before anybody can use them."""

from tfapp.release.exporting import Release, export
from tfapp.release.gate import Budget
from tfapp.release.verifying import VerifyReport, verify

__all__ = ["Budget", "Release", "VerifyReport", "export", "verify"]
