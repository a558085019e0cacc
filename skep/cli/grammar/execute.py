"""`skep exec`."""

from __future__ import annotations

from skep.cli.options import Subparsers, command, reaches


def add(commands: Subparsers) -> None:
    """Add it."""
    run = reaches(
        command(commands, "exec", "execute.execute", "run a program inside a running task")
    )
    run.add_argument(
        "-i", "--interactive", action="store_true", help="what is typed or piped in is its input"
    )
    run.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    run.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help="run it as this user")
    run.add_argument("-w", "--workdir", default="", metavar="FOLDER", help="run it in this folder")
    run.add_argument(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one more variable, or one of the same name as here",
    )
    run.add_argument("task", metavar="TASK", help="a name such as web.1, an id, or its beginning")
    run.add_argument("command", nargs="*", metavar="COMMAND", help="what to run")
    run.set_defaults(needs_command=True, is_rest_command=True)
