"""What the templates of one task stand for on one node."""

from __future__ import annotations

from skep.domain.attach import AttachResponse
from skep.domain.session import Assignment
from skep.domain.templates import TemplateValues
from skep.worker.engine.protocol import NodeFacts

NOT_JOINED = AttachResponse()


def values_of(
    assignment: Assignment, node: NodeFacts, joined: AttachResponse = NOT_JOINED
) -> TemplateValues:
    """What the templates of this task stand for on this node. A task's name is Docker Swarm's:
    service, slot and id."""
    task, spec = assignment.task, assignment.spec
    return TemplateValues(
        task_id=task.id,
        task_name=f"{task.name}.{task.id}",
        task_slot=str(task.slot),
        task_address=joined.address or task.address,
        node_id=node.node_id,
        node_hostname=node.hostname,
        node_address=node.address,
        node_os=node.os,
        node_arch=node.arch,
        service_id=task.service_id,
        service_name=task.service_name,
        service_labels=spec.labels,
        stack_name=assignment.stack,
        vips=joined.vips,
    )
