"""Stack files as text, and what comes of them."""

from __future__ import annotations

import errno
import textwrap
from dataclasses import dataclass

import pytest

from skep.domain.spec import ServiceSpec, StackSpec
from skep.stackfile import Reading, ReadStack, StackFileError, StackText, read


class Beside(dict[str, bytes]):
    """Files beside the stack file, by their paths."""

    def __missing__(self, path: str) -> bytes:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)


BESIDE = Beside(
    {
        "/srv/site.conf": b"listen 80;\n",
        "/srv/web.env": b"A=1\nB=$A-2 # two\n",
        "/srv/more.env": b"B='3'\nexport C=${HOME}\n",
        "/srv/raw.env": b"# no comment\nD=$A 'x'\n",
        "/srv/labels": b"com.example.a=b\n",
        "/srv/seccomp.json": b'{"defaultAction": "SCMP_ACT_ALLOW"}',
        "/srv/empty": b"",
        "/srv/latin1": b"\xff",
        "/srv/large": b"x" * (1000 * 1024 + 1),
    }
)


@dataclass(frozen=True)
class Told:
    """A stack, and what was odd about its files."""

    spec: StackSpec
    warnings: tuple[str, ...]
    read: ReadStack

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
    reading = Reading(
        environ, name="shop", folder="/srv", warn=warnings.append, open=BESIDE.__getitem__
    )
    found = read(texts(*files), reading)
    return Told(found.spec, tuple(warnings), found)


def refused(*files: str, **environ: str) -> list[str]:
    """All that is wrong with the files."""
    with pytest.raises(StackFileError) as caught:
        told(*files, **environ)
    lines = [str(caught.value), *caught.value.others]
    assert not any("\n" in line for line in lines)
    return lines


def container(*lines: str, top: str = "") -> str:
    """A file with one service in a container; its lines begin in line 5, column 5."""
    return (
        "x-engine: docker\n"
        + service(*lines, command="image: nginx:1")
        + ("\n" + textwrap.dedent(top) if top else "")
    )


def service(*lines: str, name: str = "a", command: str = "command: x") -> str:
    """A file with one service; its lines begin in line 4, column 5."""
    return "\n".join(["services:", f"  {name}:", *(f"    {line}" for line in (command, *lines))])
