"""A whole stack file to a `StackSpec`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping

from skep.domain.spec import Protocol, ServiceSpec, StackSpec
from skep.domain.validate import NAME_LIMIT
from skep.stackfile import keys, nodes
from skep.stackfile.errors import Mark, error_at
from skep.stackfile.ports import PlacedPort
from skep.stackfile.reader import Place, Source
from skep.stackfile.service import read_service

# One way only to match a name, so that a long bad one costs no time.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(data: bytes, *, file: str) -> str:
    """The text of a file: UTF-8, or UTF-16 with a byte order mark, as PowerShell's `>` writes."""
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise error_at(
            file, Mark(line, column), f"not {encoding} text; save the file as UTF-8"
        ) from None


def parse(  # noqa: PLR0913 - one thing, from one caller
    text: str,
    *,
    file: str,
    name: str,
    environ: Mapping[str, str],
    fallback_name: str = "",
    folder: str = "",
    warn: Callable[[str], None] | None = None,
) -> StackSpec:
    """The stack in `text`. Raises StackFileError and nothing else.

    `file` is only for messages. `name` is the stack's; empty means the file's own `name:`, and
    where it has none, `fallback_name`.
    `environ` holds the variables for `${...}`. `folder` is the absolute folder from which relative
    `working_dir`s count; empty leaves them as they are. `warn` is told what is odd, but no error.
    """
    source = Source(file, folder, environ, warn or (lambda text: None))
    top = Place(nodes.compose(text, file), "", source)
    fields = top.fields(keys.TOP)
    stack_name = name or (fields["name"].text() if "name" in fields else fallback_name)
    named_at = fields["name"] if not name and "name" in fields else top
    if not stack_name:
        raise top.error("the stack has no name; give one, or write 'name:' in the file")
    _check_name(named_at, "stack", stack_name)
    if "services" not in fields or not fields["services"].entries():
        raise top.error("the stack has no services; add at least one under 'services:'")
    services: list[ServiceSpec] = []
    ports: list[PlacedPort] = []
    for key, place in fields["services"].entries():
        full_name = f"{stack_name}_{key.text}"
        _check_name(place, "service", key.text, key.mark)
        if len(full_name) > NAME_LIMIT:
            raise place.error(
                f"service name '{full_name}' has {len(full_name)} characters, but {NAME_LIMIT} is "
                "the limit; shorten the stack's or the service's",
                key.mark,
            )
        if place.is_null:
            raise place.error(f"service '{key.text}' is empty; add 'command'", key.mark)
        found = read_service(place, full_name)
        services.append(found.spec)
        ports += found.ports
    _check_clashes(ports)
    return StackSpec(name=stack_name, services=tuple(services))


def _check_name(place: Place, kind: str, name: str, mark: Mark | None = None) -> None:
    if len(name) > NAME_LIMIT or not _NAME.fullmatch(name):
        raise place.error(
            f"'{name[:80]}' can't be a {kind}'s name; use up to {NAME_LIMIT} letters, digits, '-' "
            "and '_', with a letter or digit at both ends",
            mark,
        )


def _check_clashes(ports: list[PlacedPort]) -> None:
    taken: dict[tuple[int, Protocol], Place] = {}
    for port, place in ports:
        if port.published is None:
            continue
        first = taken.setdefault((port.published, port.protocol), place)
        if first is not place:
            raise place.error(
                f"port {port.published} is already published at {first.where()}; "
                "publish one of them elsewhere"
            )
