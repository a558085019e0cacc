"""What to say of an option that a command doesn't have. Pure, and loaded only when there is one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

# Of two names, how much must be the same for one to be the other misspelt.
CLOSENESS = 0.75
LISTED_LIMIT = 3

_CREATE = (
    "--credential-spec --env-file --generic-resource --isolation --max-concurrent --memory-swap "
    "--memory-swappiness --mode --no-resolve-image --oom-score-adj --with-registry-auth"
)
_UPDATE = (
    "--cap-add --cap-drop --container-label-add --container-label-rm "
    "--credential-spec --dns-add --dns-rm --dns-option-add --dns-option-rm --dns-search-add "
    "--dns-search-rm --generic-resource-add --generic-resource-rm --group-add "
    "--group-rm --host-add --host-rm --hostname --init --isolation --log-driver --max-concurrent "
    "--memory-swap --memory-swappiness "
    "--no-resolve-image --oom-score-adj --read-only --sysctl-add "
    "--sysctl-rm --tty -t --ulimit-add --ulimit-rm --with-registry-auth"
)
# Docker's options that whoever comes from there will try, and that aren't here yet.
_NOT_YET: Mapping[str, frozenset[str]] = {
    command: frozenset(names.split())
    for command, names in (
        ("service create", _CREATE),
        ("service update", _UPDATE),
        ("service ps", "--no-resolve"),
        ("service logs", "--details"),
        ("node ls", "--filter -f"),
        ("node ps", "--no-resolve"),
        ("node update", "--role"),
        ("node rm", "--force -f"),
        (
            "network create",
            "--aux-address --config-from --config-only --ingress --ip-range --ipam-driver "
            "--ipam-opt --ipv4 --ipv6 --scope",
        ),
        ("network inspect", "--verbose -v"),
        ("network rm", "--force -f"),
        ("config create", "--template-driver"),
        ("secret create", "--driver -d --template-driver"),
        ("stack deploy", "--resolve-image --with-registry-auth"),
        ("stack ps", "--no-resolve"),
    )
}


def problem(command: str, name: str, known: Sequence[str], *, runs: bool) -> str:
    """What is wrong with the option `name` of "service create" or another command. Where the
    command `runs` another one, the option may have been meant for that."""
    not_yet = _NOT_YET.get(command, frozenset())
    if name in not_yet or f"{name}-add" in not_yet:
        return f"'{name}' is not supported yet"
    found = _meant(name, known)
    if found:
        return f"unrecognized arguments: {name}; did you mean {found}"
    hint = "; options of the command to run come after '--'" if runs else ""
    return f"unrecognized arguments: {name}{hint}"


def _meant(name: str, known: Sequence[str]) -> str:
    """The option that is meant, if that is plain enough."""
    if not name.startswith("--"):
        return ""
    longer = [each for each in known if each.startswith(f"{name}-")]
    if f"{name}-add" in longer:
        return f"{name}-add"
    if longer:
        return f"one of {name}-..." if len(longer) > LISTED_LIMIT else " or ".join(longer)
    plain = {each[2:]: each for each in known if each.startswith("--")}
    close = difflib.get_close_matches(name[2:], plain, 1, CLOSENESS)
    shorter = [each for each in plain.values() if name.startswith(f"{each}-")]
    return plain[close[0]] if close else max(shorter, key=len, default="")
