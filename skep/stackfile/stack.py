"""Whole stack files to a `StackSpec`."""

from __future__ import annotations

import codecs
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from skep.domain.spec import PortMode, Protocol, StackSpec
from skep.domain.storage import ConfigSpec, SecretSpec
from skep.domain.validate import NAME_LIMIT
from skep.stackfile import keys, nodes, values
from skep.stackfile.errors import Mark, Problems, error_at
from skep.stackfile.merge import merged, settled
from skep.stackfile.networks import Networks, read_networks
from skep.stackfile.reader import Place, Source
from skep.stackfile.service import ReadService, read_service
from skep.stackfile.variables import Variables
from skep.stackfile.writer import tree_values

# More than anybody keeps apart; each may be of the largest size.
FILE_LIMIT = 32

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class StackText(NamedTuple):
    """One file; `file` is its name in messages."""

    file: str
    text: str


def _quiet(text: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Reading:
    """How files are read.

    `name` is the stack's; empty means the files' own `name:`, and where they have none,
    `fallback_name`. `environ` holds the variables for `${...}`. `folder` is the absolute folder
    from which relative `working_dir`s count; empty leaves them as they are. `warn` is told what is
    odd, but no error.
    """

    environ: Mapping[str, str]
    name: str = ""
    fallback_name: str = ""
    folder: str = ""
    warn: Callable[[str], None] = _quiet


class ReadStack(NamedTuple):
    """A stack, and where each of its services and networks stands, as file:line:column by the full
    name; a default network that no file names stands nowhere.

    `configs` and `secrets` are those that the files hold the contents of. They are to be made
    before the stack is deployed, and services use them by the names that they have here."""

    spec: StackSpec
    places: Mapping[str, str]
    network_places: Mapping[str, str]
    configs: tuple[ConfigSpec, ...] = ()
    secrets: tuple[SecretSpec, ...] = ()


def decode(data: bytes, *, file: str) -> str:
    """The text of a file: UTF-8, or UTF-16 with a byte order mark, as PowerShell's `>` writes."""
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise error_at(
            Mark(line, column, file), f"not {encoding} text; save the file as UTF-8"
        ) from None


def raw_values(files: Sequence[StackText], reading: Reading) -> dict[str, Any]:
    """The files as the plain values of one, with their variables as they stand. Raises
    StackFileError for what can't be merged; keys and values are not looked at."""
    problems = Problems()
    node = _tree(files, reading, problems, is_interpolated=False)
    problems.check([file.file for file in files])
    source = Source(reading.folder, reading.environ, reading.warn, problems)
    found = {key.text: tree_values(at.node) for key, at in Place(node, "", source).entries()}
    name = reading.name or found.pop("name", None) or reading.fallback_name
    return {"name": name, **found} if name else found


def _tree(
    files: Sequence[StackText], reading: Reading, problems: Problems, is_interpolated: bool
) -> nodes.Node:
    assert files, "a stack needs a file"
    if len(files) > FILE_LIMIT:
        mark = Mark(1, 1, files[FILE_LIMIT].file)
        raise error_at(mark, f"more than {FILE_LIMIT} files for one stack; merge some")
    variables = Variables(reading.environ, reading.warn)
    found: nodes.Node | None = None
    for file in files:
        node = nodes.compose(file.text, file.file)
        if is_interpolated:
            node = variables.put_in(node)
        found = settled(node) if found is None else merged(found, node, problems)
    assert found is not None
    return found


def read(files: Sequence[StackText], reading: Reading) -> ReadStack:
    """The stack in the files, later ones merged over earlier ones. Raises StackFileError and
    nothing else."""
    problems = Problems()
    node = _tree(files, reading, problems, is_interpolated=True)
    source = Source(reading.folder, reading.environ, reading.warn, problems)
    found = problems.attempt(lambda: _read(Place(node, "", source), reading), None)
    problems.check([file.file for file in files])
    assert found is not None
    return found


def _read(top: Place, reading: Reading) -> ReadStack:
    fields = top.fields(keys.TOP)
    stack_name = reading.name or fields.read("name", Place.text, reading.fallback_name)
    named_at = fields["name"] if not reading.name and "name" in fields else top
    if not stack_name:
        raise top.error("the stack has no name; give one, or write 'name:' in the file")
    before = top.source.problems.count
    named_at.attempt(lambda at: _check_name(at, "stack", stack_name), None)
    if top.source.problems.count > before:
        # The names of services would be as wrong, which is one mistake and not many.
        stack_name = "stack"
    if "services" not in fields or not fields["services"].entries():
        raise top.error("the stack has no services; add at least one under 'services:'")
    networks = read_networks(fields.get("networks"), stack_name)
    services: list[ReadService] = []
    places: dict[str, str] = {}
    for key, place in fields["services"].entries():
        found = place.attempt(functools.partial(_service, key, networks), None)
        if found:
            services.append(found)
            places[found.spec.name] = place.where(key.mark)
    _check_clashes(services)
    specs = tuple(service.spec for service in services)
    made = networks.made({use.network for spec in specs for use in spec.task.networks})
    spec = StackSpec(name=stack_name, services=specs, networks=made)
    return ReadStack(spec, places, networks.places())


def _service(key: nodes.Scalar, networks: Networks, place: Place) -> ReadService:
    full_name = f"{networks.stack_name}_{key.text}"
    _check_name(place, "service", key.text, key.mark)
    if len(full_name) > NAME_LIMIT:
        raise place.error(
            f"service name '{full_name}' has {len(full_name)} characters, but {NAME_LIMIT} is "
            "the limit; shorten the stack's or the service's",
            key.mark,
        )
    if place.is_null:
        raise place.error(f"service '{key.text}' is empty; add 'command'", key.mark)
    return read_service(place, full_name, networks)


def _check_name(place: Place, kind: str, name: str, mark: Mark | None = None) -> None:
    if len(name) > NAME_LIMIT or not values.NAME.fullmatch(name):
        raise place.error(
            f"'{name[:80]}' can't be a {kind}'s name; use up to {NAME_LIMIT} letters, digits, '-' "
            "and '_', with a letter or digit at both ends",
            mark,
        )


def _check_clashes(services: list[ReadService]) -> None:
    """Refuse a port that is published twice; but two services may share one of mode `host`, since
    their tasks are kept on different nodes."""
    taken: dict[tuple[int, Protocol], tuple[ReadService, PortMode, Place]] = {}
    for service in services:
        for port, place in service.ports:
            if port.published is None:
                continue
            key = (port.published, port.protocol)
            if key not in taken:
                taken[key] = (service, port.mode, place)
                continue
            first, mode, first_place = taken[key]
            if first is service or PortMode.INGRESS in (mode, port.mode):
                place.source.problems.add(
                    place.error(
                        f"port {port.published} is already published at {first_place.where()}; "
                        "publish one of them elsewhere"
                    )
                )


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
    """The stack in one file. Raises StackFileError and nothing else."""
    reading = Reading(environ, name, fallback_name, folder, warn or _quiet)
    return read([StackText(file, text)], reading).spec
