"""A terminal whose cluster is a control API in memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from skep.cli.main import main
from tests.unit.client import fake

STACK = """\
services:
  web: {command: serve, ports: ["8080:80"], deploy: {replicas: 3}}
  clock: {command: tick}
"""


class Shell:
    """A terminal in a folder."""

    def __init__(
        self, world: fake.FakeSeams, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.world = world
        self.control = world.transport.control
        self.control.output = {}
        self.folder = folder
        self.capsys = capsys
        self.out = self.err = ""

    def skep(self, line: str, *more: str) -> int:
        """Run a command; its exit code."""
        try:
            code = main([*line.split(), *more])
        except SystemExit as error:
            code = int(error.code or 0)
        self.out, self.err = self.capsys.readouterr()
        assert "Traceback" not in self.err
        return code

    def rows(self, line: str) -> list[dict[str, object]]:
        """The JSON that a command prints."""
        assert self.skep(f"{line} --format json") == 0, self.err
        found: list[dict[str, object]] = json.loads(self.out)
        return found

    def file(self, text: str, name: str = "shop.yml") -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)


def columns(line: str) -> list[str]:
    return re.split(r" {3,}", line.strip())
