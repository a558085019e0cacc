"""Variables in a whole tree: in values, never in keys, and not in extension fields of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from skep.stackfile import keys, nodes
from skep.stackfile.errors import Mark, at, error_at
from skep.stackfile.interpolate import BadVariable, interpolate

# In these maps the keys are names that somebody chose, so that "x-" means nothing there.
_NAMED = frozenset(
    {
        *("services", "environment", "labels", "networks", "driver_opts", "volumes", "configs"),
        *("secrets", "annotations", "sysctls", "storage_opt", "extra_hosts", "options"),
    }
)


class Variables:
    """Puts variables into trees, and tells once of each that isn't set."""

    def __init__(self, environ: Mapping[str, str], warn: Callable[[str], None]) -> None:
        self._environ = environ
        self._warn = warn
        self._told: set[str] = set()
        # What aliases repeat is done once. The nodes are held so that no id is used again.
        self._done: dict[tuple[int, bool], tuple[nodes.Node, nodes.Node]] = {}

    def put_in(self, node: nodes.Node, *, is_named: bool = False) -> nodes.Node:
        """The tree with variables put in; a scalar where that can't be done holds the error."""
        if isinstance(node, nodes.Scalar):
            return self._scalar(node) if "$" in node.text else node
        key = (id(node), is_named)
        if key not in self._done:
            self._done[key] = (node, self._compound(node, is_named))
        return self._done[key][1]

    def _compound(self, node: nodes.Sequence | nodes.Mapping, is_named: bool) -> nodes.Node:
        if isinstance(node, nodes.Sequence):
            return replace(node, items=tuple(self.put_in(item) for item in node.items))
        entries = []
        for name, value in node.entries:
            if is_named or not name.text.startswith("x-") or name.text in keys.EXTENSIONS:
                is_map_of_names = not is_named and name.text in _NAMED
                value = self.put_in(value, is_named=is_map_of_names)
            entries.append((name, value))
        return replace(node, entries=tuple(entries))

    def _scalar(self, node: nodes.Scalar) -> nodes.Scalar:
        try:
            found = interpolate(node.text, self._environ)
        except BadVariable as error:
            return replace(node, error=error_at(_dollar(node, error.position), str(error)))
        for name, position in found.unset.items():
            if name not in self._told:
                self._told.add(name)
                where = at(_dollar(node, position))
                self._warn(f"{where}: variable '{name}' is not set; it becomes empty")
        return replace(node, text=found.text, is_plain=False, dollars=())


def _dollar(node: nodes.Scalar, position: int) -> Mark:
    if not node.dollars:
        return node.mark
    return node.dollars[node.text.count("$", 0, position)]
