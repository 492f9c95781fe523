"""The ``rlaas`` command."""

from rlaas.cli.main import app, main

__all__ = ["app", "main"]
