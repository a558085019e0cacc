"""What this worker's tasks were given beside their specs: configs, secrets, logins of registries.

All of it comes from the leader and is in memory alone. The agent puts it here before it asks an
engine for anything that needs it; engines look things up when they prepare a task. After an agent's
death nothing is here until a leader has spoken again.
"""

from __future__ import annotations

from collections.abc import Iterable

from skep.domain.session import GivenFile, GivenLogin


class Supplies:
    """The files by the ids of their configs and secrets, the logins by registry."""

    def __init__(self) -> None:
        self._files: dict[str, GivenFile] = {}
        self._logins: dict[str, GivenLogin] = {}

    def file(self, id_: str) -> GivenFile | None:
        """The config or secret with this id; None where it was never given, or is no longer."""
        return self._files.get(id_)

    def login(self, server: str) -> GivenLogin | None:
        """How to log in to a registry ("docker.io", "registry.example.com:5000"), if needed."""
        return self._logins.get(server)

    def give(self, files: Iterable[GivenFile], removed: Iterable[str]) -> None:
        """Take these files in, and forget those that are removed."""
        for id_ in removed:
            self._files.pop(id_, None)
        for file in files:
            self._files[file.id] = file

    def set_logins(self, logins: Iterable[GivenLogin]) -> None:
        """These logins are all that there are."""
        self._logins = {login.server: login for login in logins}

    def give_all(self, files: Iterable[GivenFile], logins: Iterable[GivenLogin]) -> None:
        """These files and logins are all that there are: a complete set names every one."""
        self._files = {file.id: file for file in files}
        self.set_logins(logins)

    def file_ids(self) -> frozenset[str]:
        """The ids of all files that are here."""
        return frozenset(self._files)

    def logins(self) -> tuple[GivenLogin, ...]:
        """All logins that are here."""
        return tuple(self._logins.values())
