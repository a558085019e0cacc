"""Typed reading of nodes: each `Place` knows where it stands, so that its errors can say so."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from skep.domain.base import Pairs, pairs
from skep.domain.control import LABEL_LIMIT
from skep.domain.spec import DOCKER, PROCESS
from skep.domain.validate import LONGEST_NS
from skep.stackfile import keys, nodes, values
from skep.stackfile.errors import Mark, Problems, StackFileError, at, error_at

T = TypeVar("T")

SAY_DOCKER = "write 'x-engine: docker'"

# What no program can take as an argument: NUL, and bytes of the environment that are not UTF-8.
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Source:
    """What one parse reads from, and where it says what is odd but no error."""

    folder: str
    environ: Mapping[str, str]
    warn: Callable[[str], None]
    problems: Problems
    open: Callable[[str], bytes]


@dataclass(frozen=True)
class Place:
    """A node, the path that led to it ("services.web.ports[0]") and the engine it is for."""

    node: nodes.Node
    path: str
    source: Source
    engine: str = PROCESS

    # ------------------------------------------------------------------------------- errors

    def error(self, text: str, mark: Mark | None = None) -> StackFileError:
        """An error at this place, or at `mark`."""
        return error_at(mark or self.node.mark, text, field=self.path)

    def warn(self, text: str) -> None:
        """Tell what is odd here, but no error."""
        self.source.warn(f"{self.where()}: {text}")

    def attempt(self, how: Callable[[Place], T], default: T) -> T:
        """What `how` reads here; `default` where something is wrong, which is remembered."""
        return self.source.problems.attempt(lambda: how(self), default)

    def several(self, how: Callable[[Place], list[T]]) -> list[T]:
        """What `how` reads here; nothing where something is wrong, which is remembered."""
        none: list[T] = []
        return self.attempt(how, none)

    def where(self, mark: Mark | None = None) -> str:
        """This place, or that of `mark`, as file:line:column."""
        return at(mark or self.node.mark)

    def needs_container(self, what: str, advice: str, mark: Mark | None = None) -> StackFileError:
        """An error for what this engine can't do."""
        mark = mark or self.node.mark
        return StackFileError(
            f"engine '{self.engine}' can't do '{what}' ({at(mark)}): it needs a container engine; "
            f"{advice}",
            mark=mark,
            field=self.path,
        )

    def _expected(self, what: str) -> StackFileError:
        name = self.path.rpartition(".")[2] or "the file"
        found = {nodes.Mapping: "a map", nodes.Sequence: "a list"}.get(type(self.node))
        return self.error(f"{name} must be {what}, but this is {found or self._quoted()}")

    def _quoted(self) -> str:
        assert isinstance(self.node, nodes.Scalar)
        text = self.node.text
        return "nothing" if self.is_null else f"'{text[:40]}{'…' if len(text) > 40 else ''}'"

    # ------------------------------------------------------------------------------- files

    def file(self, path: str) -> bytes:
        """What a file holds that is named here."""
        try:
            return self.source.open(path)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise self.error(f"{path}: {why}") from None

    def has_file(self, path: str) -> bool:
        """Whether there is such a file, be it readable or not."""
        try:
            self.source.open(path)
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return True
        return True

    # ------------------------------------------------------------------------------ shapes

    @property
    def is_null(self) -> bool:
        """Whether nothing stands here."""
        node = self.node
        return isinstance(node, nodes.Scalar) and node.is_null

    @property
    def is_scalar(self) -> bool:
        """Whether this is text, a number or a truth."""
        return isinstance(self.node, nodes.Scalar)

    @property
    def is_list(self) -> bool:
        """Whether this is a list."""
        return isinstance(self.node, nodes.Sequence)

    def items(self) -> list[Place]:
        """The places in a list."""
        if not isinstance(self.node, nodes.Sequence):
            raise self._expected("a list")
        return [
            Place(node, f"{self.path}[{number}]", self.source, self.engine)
            for number, node in enumerate(self.node.items)
        ]

    def entries(self) -> list[tuple[nodes.Scalar, Place]]:
        """The keys of a map with the places of their values."""
        if not isinstance(self.node, nodes.Mapping):
            raise self._expected("a map")
        prefix = f"{self.path}." if self.path else ""
        return [
            (key, Place(value, f"{prefix}{key.text}", self.source, self.engine))
            for key, value in self.node.entries
        ]

    def fields(self, section: keys.Section, but: frozenset[str] = frozenset()) -> Fields:
        """The fields of a section that say something. Every key that it doesn't support is a
        problem, but for those that the caller has looked at."""
        found = {}
        for key, value in self.entries():
            if self._is_read(key.text, section):
                if not value.is_null:
                    found[key.text] = value
            elif key.text in section.ignored:
                if not value.is_null:
                    why = section.ignored[key.text]
                    self.source.warn(f"{at(key.mark)}: '{key.text}' changes nothing here: {why}")
            elif key.text not in but and not self._is_ignored(key, section):
                self.source.problems.add(value._refused(key, section))
        return Fields(found)

    def _is_read(self, key: str, section: keys.Section) -> bool:
        return (
            key in section.supported
            or key in section.extensions
            or (self.engine == DOCKER and key in section.container)
        )

    def _is_ignored(self, key: nodes.Scalar, section: keys.Section) -> bool:
        # Extension fields are for other programs and for anchors; but a near miss of one of ours
        # is surely meant for us.
        return key.text.startswith("x-") and not keys.did_you_mean(key.text, section.extensions)

    def _refused(self, key: nodes.Scalar, section: keys.Section) -> StackFileError:
        word = key.text
        if word in section.container:
            return self.needs_container(word, f"remove the key, or {SAY_DOCKER}", key.mark)
        if word in section.later:
            advice = section.later[word] or "remove the key"
            return self.error(f"'{word}' is not supported yet; {advice}", key.mark)
        hint = keys.did_you_mean(word, section.known()) or "; remove it"
        return self.error(f"unknown key '{word[:60]}' in {section.name}{hint}", key.mark)

    # ----------------------------------------------------------------------------- scalars

    def text(self) -> str:
        """A scalar's text."""
        if not isinstance(self.node, nodes.Scalar) or self.is_null:
            raise self._expected("text")
        if self.node.error:
            raise self.node.error
        return self._usable(self.node.text)

    def _usable(self, text: str) -> str:
        found = _UNUSABLE.search(text)
        if found:
            what = "a NUL character" if found.group() == "\0" else "bytes that are not UTF-8"
            raise self.error(f"holds {what}, which no program can take; remove it")
        return text

    def parsed(self, parse: Callable[[str], T]) -> T:
        """A scalar read by one of `skep.stackfile.values`."""
        text = self.text().strip()
        try:
            return parse(text)
        except values.BadValue as error:
            name = self.path.rpartition(".")[2]
            raise self.error(f"{name}: {error}") from None

    def duration(self, minimum_ns: int = 0) -> int:
        """Nanoseconds, `minimum_ns` at least."""
        found = self.parsed(values.duration_ns)
        name = self.path.rpartition(".")[2]
        if found < minimum_ns:
            raise self.error(f"{name} must be {values.duration_text(minimum_ns)} or longer")
        if found > LONGEST_NS:
            raise self.error(f"{name} must not be longer than ten years")
        return found

    def integer(self, minimum: int, maximum: int) -> int:
        """A whole number within bounds that belong to it."""
        return self.parsed(lambda text: values.integer(text, minimum, maximum))

    def truth(self) -> bool:
        """True or false."""
        return self.choice(_TRUTHS, shown="true or false")

    def choice(self, of: Mapping[str, T], *, shown: str = "") -> T:
        """One of a few words."""
        word = self.text().strip()
        if word.lower() not in of:
            name = self.path.rpartition(".")[2]
            listed = shown or _listed(tuple(of))
            raise self.error(f"{name} must be {listed}, but this is '{word[:40]}'")
        return of[word.lower()]

    # --------------------------------------------------------------------------- compounds

    def words(self) -> tuple[str, ...]:
        """A command: a list taken as it is, or a line that is split as a shell would."""
        if self.is_scalar:
            return self.parsed(values.words)
        return self.texts()

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(item.attempt(Place.text, "") for item in self.items())

    def variables(self, fallback: Mapping[str, str]) -> Pairs:
        """Names and values, as a map or as a list of "name=value". A name alone takes its value
        from `fallback`, and is left out where that has none."""
        found: dict[str, str] = {}
        for name, value in self._named_values():
            if value is not None:
                found[name] = value
            elif name in fallback:
                found[name] = self._usable(fallback[name])
        return pairs(found)

    def labels(self) -> Pairs:
        """Names and values, as a map or as a list of "name=value"; a name alone has no value."""
        found = pairs({name: value or "" for name, value in self._named_values()})
        if len(found) > LABEL_LIMIT:
            what = self.path.rpartition(".")[2]
            raise self.error(f"{len(found)} {what}, but {LABEL_LIMIT} is the limit; use fewer")
        return found

    def _named_values(self) -> list[tuple[str, str | None]]:
        rows: list[tuple[str, str | None] | None] = []
        if self.is_list:
            rows += [item.attempt(Place._named_text, None) for item in self.items()]
        else:
            for key, place in self.entries():
                rows.append(place.attempt(functools.partial(_named_entry, key.text), None))
        return [row for row in rows if row is not None]

    def _named_text(self) -> tuple[str, str | None]:
        name, sign, value = self.text().partition("=")
        return self._checked_name(name), value if sign else None

    def _checked_name(self, name: str) -> str:
        if not name or "=" in name:
            raise self.error("a name must stand before '='; write NAME=value")
        return self._usable(name)


def _named_entry(name: str, place: Place) -> tuple[str, str | None]:
    return place._checked_name(name), None if place.is_null else place.text()


def _listed(choices: tuple[str, ...]) -> str:
    return " or ".join(f"'{choice}'" for choice in choices)


@dataclass(frozen=True)
class Fields:
    """The fields of a section that say something."""

    found: Mapping[str, Place]

    def __contains__(self, key: str) -> bool:
        return key in self.found

    def __getitem__(self, key: str) -> Place:
        return self.found[key]

    def get(self, key: str) -> Place | None:
        """The field, if it is there."""
        return self.found.get(key)

    def read(self, key: str, how: Callable[[Place], T], default: T) -> T:
        """What the field says; `default` where it is absent or wrong, and then that is a problem
        of the file."""
        place = self.found.get(key)
        return default if place is None else place.attempt(how, default)

    def section(self, key: str, section: keys.Section) -> Fields:
        """The fields of a section within this one; none where it is absent."""
        return self.read(key, lambda place: place.fields(section), Fields({}))
