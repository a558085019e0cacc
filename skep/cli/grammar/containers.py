"""Options about containers, as `docker service create` has them; for the docker engine."""

from __future__ import annotations

from skep.cli.options import Parser
from skep.domain.spec import ENGINES

# An option that comes several times, what stands for its value, and what it means.
LISTS: tuple[tuple[str, str, str], ...] = (
    (
        "mount",
        "type=volume|bind|tmpfs,source=...,target=...",
        "a volume, a path of the node, memory",
    ),
    ("config", "NAME", "a config as a file; source=NAME,target=PATH,uid=,gid=,mode=0444"),
    ("secret", "NAME", "a secret as a file in /run/secrets; or as with --config"),
    ("cap-add", "CAPABILITY", "a capability of the kernel that it needs, such as NET_ADMIN"),
    ("cap-drop", "CAPABILITY", "a capability that it does without, or ALL"),
    ("group", "GROUP", "one more group of its user"),
    ("host", "NAME:ADDRESS", "a line of its /etc/hosts"),
    ("dns", "ADDRESS", "a name server beside that of its networks"),
    ("dns-search", "DOMAIN", "a domain in which names are looked up"),
    ("dns-option", "OPTION", "an option of its resolv.conf"),
    ("sysctl", "NAME=VALUE", "a setting of the kernel for it alone"),
    ("ulimit", "NAME=SOFT[:HARD]", "a limit of its processes, such as nofile=1024:4096"),
    ("container-label", "KEY=VALUE", "a label of the containers"),
)
# Of an existing service, these may be added and removed.
CHANGED = ("mount", "config", "secret")


def add_new(command: Parser) -> None:
    """Those of a new service."""
    command.add_argument(
        "--engine", choices=ENGINES, help="what runs it (default: the cluster's own)"
    )
    for flag, metavar, text in LISTS:
        command.add_argument(f"--{flag}", action="append", default=[], metavar=metavar, help=text)
    command.add_argument("--hostname", metavar="NAME", help="what it is called inside")
    command.add_argument("--log-driver", metavar="DRIVER", help="where its output goes")
    for flag, text in (
        ("init", "have an init that reaps processes"),
        ("read-only", "let it write nothing but to its mounts"),
        ("tty", "give it a terminal"),
    ):
        command.add_argument(f"--{flag}", action="store_true", help=text)


def add_changes(command: Parser) -> None:
    """Those of an existing service."""
    gone = {"mount": "TARGET", "config": "NAME", "secret": "NAME"}
    for flag, metavar, text in LISTS:
        if flag in CHANGED:
            command.add_argument(
                f"--{flag}-add", action="append", default=[], metavar=metavar, help=text
            )
            command.add_argument(
                f"--{flag}-rm",
                action="append",
                default=[],
                metavar=gone[flag],
                help=f"a {flag} to take away",
            )
