"""Preparing a task for the process engine: checks against this machine, and its folder."""

from __future__ import annotations

from pathlib import Path

from skep.domain.attach import AttachResponse
from skep.domain.base import Pairs, TaskId, lookup, pairs
from skep.domain.session import Assignment
from skep.domain.signals import parse_signal
from skep.domain.templates import expand_run
from skep.env import Retryable
from skep.worker.engine.adapters import files, host
from skep.worker.engine.adapters.cgroup import Cgroups
from skep.worker.engine.core.checks import check_spec
from skep.worker.engine.core.facts import values_of
from skep.worker.engine.core.launch import DEFAULT_PATH, Tools, script
from skep.worker.engine.core.records import RECORD_FORMAT, TaskRecord, UserIds
from skep.worker.engine.protocol import NodeFacts


class Prepare:
    """Turns assignments into folders that a shim can run. `node_name` is the node's own."""

    def __init__(self, tools: Tools, cgroups: Cgroups | None, node_name: str) -> None:
        self._tools = tools
        self._cgroups = cgroups
        self._node_name = node_name

    def write(
        self, folder: Path, assignment: Assignment, node: NodeFacts, joined: AttachResponse
    ) -> TaskRecord:
        """Check an assignment and write its folder. Blocks: it may ask the network for a user.
        Raises Rejected for what can never run here, Retryable for a disk in trouble."""
        check_spec(assignment.spec)
        record = self._record(assignment, node, joined)
        host.check_folder(record.working_dir)
        path = lookup(record.env, "PATH") or DEFAULT_PATH
        host.check_program(record.argv[0], path, record.working_dir)
        try:
            if record.has_own_names:
                files.write_names(folder, joined.resolv_conf, joined.hosts)
            files.write_task(folder, record, script(record, str(folder), self._tools))
        except OSError as error:
            raise Retryable(f"task {record.task_id} can't be prepared: {error}") from error
        return record

    def _record(
        self, assignment: Assignment, node: NodeFacts, joined: AttachResponse
    ) -> TaskRecord:
        task_id = TaskId(assignment.task.id)
        spec = assignment.spec.task
        values = values_of(assignment, node, joined)
        run = expand_run(spec.run, values)
        user = host.resolve_user(run.user)
        limits = spec.limits
        is_limited = (limits.memory_bytes, limits.cpu_nano, limits.pids) != (None, None, None)
        return TaskRecord(
            format=RECORD_FORMAT,
            task_id=task_id,
            argv=run.command + run.args,
            env=self._environment(assignment, user, run.env, joined),
            working_dir=run.working_dir or "/",
            stop_signal=parse_signal(run.stop_signal, "spec.task.run.stop_signal"),
            stop_grace_ns=run.stop_grace_ns,
            log=run.log,
            limits=limits,
            values=values,
            user=user,
            cgroups=self._cgroups.paths(task_id) if self._cgroups and is_limited else (),
            namespace=joined.namespace,
            network_cgroup=joined.cgroup,
            has_own_names=bool(joined.resolv_conf) and host.may_mount(),
        )

    def _environment(
        self, assignment: Assignment, user: UserIds | None, own: Pairs, joined: AttachResponse
    ) -> Pairs:
        """What a task finds in its environment: PATH and HOME, what Skep tells it of itself, and
        over all of that what its spec says. Nothing comes from the agent's own environment."""
        task = assignment.task
        basic = {
            "PATH": DEFAULT_PATH,
            "HOME": host.home_of(user),
            "SKEP_NODE_NAME": self._node_name,
            "SKEP_SERVICE_NAME": task.service_name,
            "SKEP_TASK_ADDRESS": joined.address or task.address,
            "SKEP_TASK_ID": task.id,
            "SKEP_TASK_SLOT": str(task.slot),
        }
        if joined.dns:
            basic["SKEP_DNS"] = joined.dns
        return pairs({**basic, **dict(own)})
