"""Stack files as text, and what comes of them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pytest

from skep.domain.spec import ServiceSpec, StackSpec
from skep.stackfile import Reading, StackFileError, StackText, read


@dataclass(frozen=True)
class Told:
    """A stack, and what was odd about its files."""

    spec: StackSpec
    warnings: tuple[str, ...]

    @property
    def only(self) -> ServiceSpec:
        """Its one service."""
        (service,) = self.spec.services
        return service


def texts(*files: str) -> list[StackText]:
    """The files, called a.yml, b.yml and so on."""
    return [
        StackText(f"{'abcdefgh'[number]}.yml", textwrap.dedent(text))
        for number, text in enumerate(files)
    ]


def told(*files: str, **environ: str) -> Told:
    """What the files say together."""
    warnings: list[str] = []
    reading = Reading(environ, name="shop", folder="/srv", warn=warnings.append)
    return Told(read(texts(*files), reading).spec, tuple(warnings))


def refused(*files: str, **environ: str) -> list[str]:
    """All that is wrong with the files."""
    with pytest.raises(StackFileError) as caught:
        told(*files, **environ)
    lines = [str(caught.value), *caught.value.others]
    assert not any("\n" in line for line in lines)
    return lines


def service(*lines: str, name: str = "a", command: str = "command: x") -> str:
    """A file with one service; its lines begin in line 4, column 5."""
    return "\n".join(["services:", f"  {name}:", *(f"    {line}" for line in (command, *lines))])
