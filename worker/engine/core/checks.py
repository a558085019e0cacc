"""What the process engine can't do, found before anything is started.

What no engine could do is refused by `skep.domain.validate` before the cluster takes a spec. What
needs this machine (users, folders, programs) is checked by the adapters when a task is prepared.
"""

from __future__ import annotations

from skep.domain.signals import parse_signal
from skep.domain.spec import PROCESS, RunSpec, ServiceSpec
from skep.domain.templates import check_templates
from skep.env import Rejected


def check_spec(spec: ServiceSpec) -> None:
    """Raise Rejected, with the field, for a spec that no process engine can run."""
    run = spec.task.run
    _check_command(run)
    _check_strings(run)
    parse_signal(run.stop_signal, "spec.task.run.stop_signal")
    if run.working_dir and not run.working_dir.startswith("/"):
        _refuse("spec.task.run.working_dir", f'"{run.working_dir}" must start with /')
    check_templates(run)


def _refuse(field: str, why: str) -> None:
    raise Rejected(f"{field}: {why}", field=field)


def _check_command(run: RunSpec) -> None:
    argv = run.command + run.args
    if not argv and run.image:
        raise Rejected(
            f'engine "{PROCESS}" runs programs of the node itself: image "{run.image}" alone needs '
            "a container engine; give `command`, or another `engine`",
            field="spec.task.run.image",
        )
    if not argv or not argv[0]:
        raise Rejected(
            f'engine "{PROCESS}" needs `command`: the program to run', field="spec.task.run.command"
        )


def _check_strings(run: RunSpec) -> None:
    for name, _ in run.env:
        if not name or "=" in name:
            _refuse("spec.task.run.env", f'"{name}" is no name of an environment variable')
    strings = {
        "spec.task.run.command": run.command,
        "spec.task.run.args": run.args,
        "spec.task.run.env": tuple(part for pair in run.env for part in pair),
        "spec.task.run.working_dir": (run.working_dir,),
        "spec.task.run.user": (run.user,),
        "spec.task.run.health.test": run.health.test if run.health else (),
    }
    for field, texts in strings.items():
        if any("\0" in text for text in texts):
            _refuse(field, "holds a zero byte, which no process can be given")
