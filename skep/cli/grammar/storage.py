"""`skep config ...`, `skep secret ...`, `skep registry ...` and `skep volume ...`."""

from __future__ import annotations

from skep.cli.options import (
    Subparsers,
    command,
    group,
    inspects,
    may_be_stale,
    narrowed,
    reaches,
    shows,
)


def add(commands: Subparsers) -> None:
    """Add them."""
    for name, text in (
        ("config", "files for tasks, that everybody may read"),
        ("secret", "files for tasks, that nobody else is shown"),
    ):
        _files(group(commands, name, text), name)
    _registry(group(commands, "registry", "how nodes log in to registries of images"))
    _volume(group(commands, "volume", "named volumes, and the nodes that have them"))


def _files(files: Subparsers, name: str) -> None:
    create = reaches(command(files, "create", f"files.create_{name}", f"create a {name}"))
    create.add_argument("name", metavar="NAME")
    create.add_argument("file", metavar="FILE", help="what it holds; '-' is stdin")
    create.add_argument("-l", "--label", action="append", default=[], metavar="KEY=VALUE")
    ls = shows(command(files, "ls", f"files.ls_{name}s", f"list {name}s"))
    narrowed(ls, "name=, id=, label= or stack=; several of a key: any, but all labels")
    may_be_stale(reaches(ls))
    what = "configs, with what they hold" if name == "config" else "secrets, but what they hold"
    inspect = command(files, "inspect", f"files.inspect_{name}s", f"show all about {what}")
    reaches(inspect).add_argument(
        "refs", nargs="+", metavar="REF", help="a name, an id, or its beginning"
    )
    inspect.add_argument("--pretty", action="store_true", help="what people look for, as text")
    inspect.add_argument(
        "-f",
        "--format",
        default="json",
        metavar="FORMAT",
        help="json, yaml, or fields such as '{{.Spec.Name}}'",
    )
    rm = reaches(command(files, "rm", f"files.rm_{name}s", f"remove {name}s nobody uses"))
    rm.add_argument("refs", nargs="+", metavar=name.upper())


def _registry(registry: Subparsers) -> None:
    login = reaches(command(registry, "login", "registry.login", "have nodes log in to a registry"))
    server = "such as registry.example.com:5000; default: Docker Hub"
    login.add_argument("server", nargs="?", default="docker.io", metavar="REGISTRY", help=server)
    login.add_argument("-u", "--username", default="", metavar="NAME")
    login.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
    login.add_argument(
        "-p", "--password", metavar="PASSWORD", help="seen by others on this machine: better not"
    )
    ls = shows(command(registry, "ls", "registry.ls", "list the registries nodes log in to"))
    may_be_stale(reaches(ls))
    logout = reaches(
        command(registry, "logout", "registry.logout", "forget a login", aliases=("rm", "remove"))
    )
    logout.add_argument("server", nargs="?", default="docker.io", metavar="REGISTRY", help=server)


def _volume(volume: Subparsers) -> None:
    ls = shows(command(volume, "ls", "volume.ls", "list volumes, and where they are"))
    narrowed(ls, "name=, node= or dangling=true|false; several of a key: any of them")
    may_be_stale(reaches(ls))
    inspect = reaches(command(volume, "inspect", "volume.inspect", "show all about volumes"))
    inspects(inspect)
    rm = reaches(
        command(
            volume,
            "rm",
            "volume.rm",
            "forget where volumes are that nobody uses; what is in them stays",
        )
    )
    rm.add_argument("refs", nargs="+", metavar="VOLUME")
