"""Whole stack files to a `StackSpec`."""

from __future__ import annotations

import codecs
import errno
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from skep.domain.spec import PROCESS, PortMode, Protocol, ServiceSpec, StackSpec
from skep.domain.storage import ConfigSpec, SecretSpec
from skep.domain.validate import NAME_LIMIT
from skep.stackfile import keys, nodes, values
from skep.stackfile.errors import Mark, Problems, error_at
from skep.stackfile.files import Origin, config_specs, read_configs, read_secrets, secret_specs
from skep.stackfile.merge import merged, settled
from skep.stackfile.networks import read_networks
from skep.stackfile.profiles import is_wanted
from skep.stackfile.reader import Place, Source
from skep.stackfile.service import Parts, ReadService, read_service, with_engine
from skep.stackfile.variables import Variables
from skep.stackfile.volumes import read_volumes
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


def _no_file(path: str) -> bytes:
    """There are no files but the stack's own."""
    raise FileNotFoundError(errno.ENOENT, "files beside the stack file can't be read here", path)


@dataclass(frozen=True)
class Reading:
    """How files are read.

    `name` is the stack's; empty means the files' own `name:`, and where they have none,
    `fallback_name`. `environ` holds the variables for `${...}`. `folder` is the absolute folder
    from which relative `working_dir`s count; empty leaves them as they are. `warn` is told what is
    odd, but no error. `open` gives the content of a file that the stack names, by its absolute
    path, or raises OSError. Services whose file names no engine are for `default_engine`.
    """

    environ: Mapping[str, str]
    name: str = ""
    fallback_name: str = ""
    folder: str = ""
    warn: Callable[[str], None] = _quiet
    open: Callable[[str], bytes] = _no_file
    default_engine: str = PROCESS


class ReadStack(NamedTuple):
    """A stack, and where each of its services and networks stands, as file:line:column by the full
    name; a default network that no file names stands nowhere.

    `configs` and `secrets` are those that the stack's files have the content of, which services
    refer to by their names: they must be there before the stack is deployed. `file_places` says
    where each of them stands, and `origins` where its content is from, by ("config", name) or
    ("secret", name).
    """

    spec: StackSpec
    places: Mapping[str, str]
    network_places: Mapping[str, str]
    configs: tuple[ConfigSpec, ...] = ()
    secrets: tuple[SecretSpec, ...] = ()
    file_places: Mapping[tuple[str, str], str] = MappingProxyType({})
    origins: Mapping[tuple[str, str], Origin] = MappingProxyType({})


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
    source = Source(reading.folder, reading.environ, reading.warn, problems, reading.open)
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
    source = Source(reading.folder, reading.environ, reading.warn, problems, reading.open)
    found = problems.attempt(
        lambda: _read(with_engine(Place(node, "", source, reading.default_engine)), reading), None
    )
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
    parts = Parts(
        stack_name,
        read_networks(fields.get("networks"), stack_name),
        read_volumes(fields.get("volumes"), stack_name),
        read_configs(fields.get("configs"), stack_name),
        read_secrets(fields.get("secrets"), stack_name),
    )
    services: list[ReadService] = []
    places: dict[str, str] = {}
    for key, place in fields["services"].entries():
        if not place.attempt(functools.partial(is_wanted, key.mark), True):
            continue
        found = place.attempt(functools.partial(_service, key, parts), None)
        if found:
            services.append(found)
            places[found.spec.name] = place.where(key.mark)
    _check_clashes(services)
    return _whole(tuple(service.spec for service in services), places, parts)


def _whole(services: tuple[ServiceSpec, ...], places: dict[str, str], parts: Parts) -> ReadStack:
    """The stack of these services, with what is to be made for them."""
    runs = [spec.task.run for spec in services]
    networks = parts.networks.made({at.network for spec in services for at in spec.task.networks})
    parts.volumes.warn_of_unused(mount.source for run in runs for mount in run.mounts)
    configs = parts.configs.made(use.name for run in runs for use in run.configs)
    secrets = parts.secrets.made(use.name for run in runs for use in run.secrets)
    files = {("config", at.name): at for at in configs} | {
        ("secret", at.name): at for at in secrets
    }
    return ReadStack(
        StackSpec(name=parts.stack_name, services=services, networks=networks),
        places,
        parts.networks.places(),
        config_specs(configs),
        secret_specs(secrets),
        {key: at.place.where() for key, at in files.items()},
        {key: at.origin for key, at in files.items() if at.origin},
    )


def _service(key: nodes.Scalar, parts: Parts, place: Place) -> ReadService:
    full_name = f"{parts.stack_name}_{key.text}"
    _check_name(place, "service", key.text, key.mark)
    if len(full_name) > NAME_LIMIT:
        raise place.error(
            f"service name '{full_name}' has {len(full_name)} characters, but {NAME_LIMIT} is "
            "the limit; shorten the stack's or the service's",
            key.mark,
        )
    if place.is_null:
        raise place.error(f"service '{key.text}' is empty; add 'command'", key.mark)
    return read_service(place, full_name, parts)


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
