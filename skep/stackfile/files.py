"""`configs:` and `secrets:`, at the top of a file and in its services.

Those that the file has the content of are made before the stack is deployed; they get the stack's
name before their own, as in Swarm. A service finds a config at /KEY and a secret at
/run/secrets/KEY, if it doesn't say otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from skep.domain.base import Pairs
from skep.domain.storage import (
    CONFIG_LIMIT_BYTES,
    FILE_MODE,
    SECRET_LIMIT_BYTES,
    ConfigSpec,
    FileUse,
    SecretSpec,
)
from skep.stackfile import keys, values
from skep.stackfile.mounts import path_of
from skep.stackfile.networks import read_external, refuse_beside_external
from skep.stackfile.reader import Fields, Place

NAME_LIMIT = 64
_SOURCES = ("file", "content", "environment")


class Origin(NamedTuple):
    """Where content comes from: a key such as "file", with its value, absolute if it is a path; and
    the labels it gets."""

    key: str
    value: str
    labels: Pairs = ()


class ReadFile(NamedTuple):
    """A config or a secret by its full name. Without `origin` it is external."""

    name: str
    place: Place
    data: bytes = b""
    labels: Pairs = ()
    origin: Origin | None = None


@dataclass(frozen=True)
class Files:
    """The configs, or the secrets, that services of a stack may use, by their keys in the file."""

    kind: str
    by_key: Mapping[str, ReadFile]

    def uses(self, place: Place) -> tuple[FileUse, ...]:
        """Those of one service."""
        found: list[FileUse] = []
        for item in place.items():
            found += item.several(self._use)
        return tuple(found)

    def _use(self, place: Place) -> list[FileUse]:
        if place.is_scalar:
            key = place.text().strip()
            return [FileUse(name=self._named(place, key).name, target=key)]
        fields = place.fields(keys.FILE_USE)
        if "source" not in fields:
            raise place.error(f"'source' is missing: the {self.kind}'s key under '{self.kind}s:'")
        key = fields["source"].text().strip()
        return [
            FileUse(
                name=self._named(fields["source"], key).name,
                target=fields.read("target", Place.text, key),
                uid=fields.read("uid", _number, "0"),
                gid=fields.read("gid", _number, "0"),
                mode=fields.read("mode", lambda at: at.parsed(values.file_mode), FILE_MODE),
            )
        ]

    def _named(self, place: Place, key: str) -> ReadFile:
        found = self.by_key.get(key)
        if found is None:
            hint = keys.did_you_mean(key, self.by_key) or "; add it there"
            raise place.error(
                f"{self.kind} '{key[:60]}' is not under '{self.kind}s:' of the file{hint}"
            )
        return found

    def made(self, used: Iterable[str]) -> list[ReadFile]:
        """Those that are to be made, by name: what the file has the content of, as far as services
        use it."""
        names = set(used)
        found = []
        for file in self.by_key.values():
            if file.origin is None:
                continue
            if file.name in names:
                found.append(file)
            else:
                file.place.warn(f"no service uses this {self.kind}, so it is not made")
        return sorted(found, key=lambda file: file.name)


def config_specs(files: Iterable[ReadFile]) -> tuple[ConfigSpec, ...]:
    """Configs to make."""
    return tuple(ConfigSpec(name=at.name, data=at.data, labels=at.labels) for at in files)


def secret_specs(files: Iterable[ReadFile]) -> tuple[SecretSpec, ...]:
    """Secrets to make."""
    return tuple(SecretSpec(name=at.name, data=at.data, labels=at.labels) for at in files)


def _number(place: Place) -> str:
    return str(place.integer(0, 2**32 - 1))


def read_configs(place: Place | None, stack_name: str) -> Files:
    """What the top of a file says of configs. What is wrong is added to the problems."""
    read = functools.partial(_file, keys.CONFIG, CONFIG_LIMIT_BYTES)
    return Files("config", _read(place, stack_name, read))


def read_secrets(place: Place | None, stack_name: str) -> Files:
    """What the top of a file says of secrets. What is wrong is added to the problems."""
    read = functools.partial(_file, keys.SECRET, SECRET_LIMIT_BYTES)
    return Files("secret", _read(place, stack_name, read))


def _read(
    place: Place | None, stack_name: str, read: Callable[[ReadFile, str, Place], ReadFile]
) -> dict[str, ReadFile]:
    found: dict[str, ReadFile] = {}
    for key, value in place.several(Place.entries) if place else []:
        at = Place(key, value.path, value.source, value.engine)
        plain = ReadFile(f"{stack_name}_{key.text}", at)
        file = value.attempt(functools.partial(read, plain, key.text), plain)
        at.attempt(functools.partial(_check_name, file.name), None)
        found[key.text] = file
    return found


def _file(section: keys.Section, limit: int, plain: ReadFile, key: str, place: Place) -> ReadFile:
    fields = place.fields(section)
    is_external, old_name = fields.read("external", read_external, (False, ""))
    name = fields.read("name", Place.text, old_name)
    if is_external:
        refuse_beside_external(fields, section.name.removeprefix("a "))
        return ReadFile(name or key, plain.place)
    said = [source for source in _SOURCES if source in fields]
    if len(said) != 1:
        what = "one of 'file', 'content' and 'environment', or 'external: true'"
        raise place.error(f"'{key[:60]}' needs {what}" + (", and only one" if said else ""))
    at = fields[said[0]]
    wrong: tuple[Origin | None, bytes] = (None, b"?")
    origin, data = at.attempt(functools.partial(_content, said[0]), wrong)
    if not data:
        raise at.error(f"'{key[:60]}' is empty")
    if len(data) > limit:
        raise at.error(
            f"'{key[:60]}' has {len(data)} bytes, but {section.name} may have no more than {limit}"
        )
    none: Pairs = ()
    labels = fields.read("labels", Place.labels, none)
    if origin is not None:
        origin = origin._replace(labels=labels)
    return ReadFile(name or plain.name, plain.place, data, labels, origin)


def _content(source: str, place: Place) -> tuple[Origin | None, bytes]:
    text = place.text()
    if source == "file":
        path = path_of(place, text.strip())
        return Origin(source, path), place.file(path)
    if source == "content":
        return Origin(source, text), text.encode()
    variable = text.strip()
    value = place.source.environ.get(variable)
    if value is None:
        raise place.error(f"variable '{variable[:60]}' is not set; set it in the environment")
    return Origin(source, variable), value.encode("utf-8", "surrogateescape")


def _check_name(name: str, place: Place) -> None:
    if len(name) > NAME_LIMIT or not values.FILE_NAME.fullmatch(name):
        raise place.error(
            f"'{name[:80]}' can't be a name; use up to {NAME_LIMIT} letters, digits, '-', '_' and "
            "'.', with a letter or digit at both ends"
        )


def uses_of(fields: Fields, key: str, files: Files) -> tuple[FileUse, ...]:
    """What one service says under 'configs' or 'secrets'."""
    none: tuple[FileUse, ...] = ()
    return fields.read(key, files.uses, none)
