"""`skep node setup-docker`: making this machine's Docker ready for Skep's containers."""

from __future__ import annotations

import argparse
from pathlib import Path

from skep.cli.errors import Exit, Failure
from skep.worker.engine.docker.adapters import setup as docker


def setup(options: argparse.Namespace) -> None:
    """Install the runtime, name it in dockerd's configuration, and have that read again."""
    folder = Path(options.folder or docker.FOLDER).absolute()
    daemon_file = Path(options.daemon_file or docker.DAEMON_FILE).absolute()
    pid_file = Path(options.pid_file or docker.PID_FILE)
    try:
        written = docker.install(folder)
        for path in written:
            print(f"wrote {path}")
        if not written:
            print(f"{folder} has the runtime already")
        program = folder / docker.PROGRAM
        is_changed = docker.configure(daemon_file, program)
        if is_changed:
            print(f'{daemon_file}: runtime "{docker.RUNTIME}" is {program} now')
        else:
            print(f'{daemon_file} has runtime "{docker.RUNTIME}" already')
        _reload(pid_file, is_wanted=not options.no_reload)
    except PermissionError as error:
        raise Failure(f"{error.filename}: {error.strerror}; run it as root", Exit.REFUSED) from None


def _reload(pid_file: Path, *, is_wanted: bool) -> None:
    """Also where nothing was changed: an earlier run may have ended before this."""
    pid = docker.running_dockerd(pid_file)
    if pid is None:
        print("dockerd doesn't run here; it finds the runtime when it starts")
    elif is_wanted:
        docker.reload_dockerd(pid)
        print(f"dockerd (pid {pid}) reads its configuration again; containers go on")
    else:
        print(f"to have dockerd read it: kill -HUP {pid}")
