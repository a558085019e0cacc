"""`skep context ...` and `skep completion`."""

from __future__ import annotations

from skep.cli.options import Subparsers, command, group, reaches, shows


def add(commands: Subparsers) -> None:
    """Add them."""
    context = group(commands, "context", "names for the clusters one works with")
    shows(command(context, "ls", "context.ls", "list contexts"))
    create = command(context, "create", "context.create", "give a cluster's managers a name")
    create.add_argument("name", metavar="CONTEXT")
    create.add_argument("--managers-address", required=True, metavar="HOST:PORT,...")
    use = command(context, "use", "context.use", "make commands mean this cluster from now on")
    use.add_argument("name", metavar="CONTEXT", help="'default' is the local cluster")
    show = reaches(command(context, "show", "context.show", "say which cluster is meant, and why"))
    show.add_argument("--format", choices=("table", "json", "yaml"), default="table")
    rm = command(context, "rm", "context.rm", "forget contexts")
    rm.add_argument("names", nargs="+", metavar="CONTEXT")

    completion = command(
        commands, "completion", "completion.script", "print a shell's completion script"
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
