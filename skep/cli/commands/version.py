"""`skep version`."""

from __future__ import annotations

import argparse
from importlib import metadata


def show(options: argparse.Namespace) -> None:
    """Print the release of this command."""
    print(f"skep {metadata.version('skep')}")
