"""Which statuses are still to be saved, sent and acknowledged.

Of each task only the newest status counts. It goes three steps, never skipping one: changed, saved,
sent; and it is sent again in every new session. A status that changes while an older one is on its
way simply starts over. What the leader has acknowledged is told by counter.
"""

from __future__ import annotations

from dataclasses import dataclass

from skep.domain.base import SessionId, TaskId, replace
from skep.domain.objects import TaskStatus
from skep.domain.session import StatusBatch, TaskReport
from skep.domain.states import TaskState

# With 300 bytes each this stays far below what a frame may hold.
BATCH_LIMIT = 1000
# A leader that commits slowly gets newer statuses instead of more batches.
IN_FLIGHT_LIMIT = 4
# What a task is in while its worker is about to do something with it, that nobody else waits for.
PASSING = frozenset({TaskState.ACCEPTED, TaskState.PREPARING, TaskState.STARTING})


@dataclass(slots=True)
class _Entry:
    status: TaskStatus
    is_reported: bool = True
    saved: TaskStatus | None = None
    sent: int = 0
    acknowledged: int = 0


class Reports:
    """The statuses of one worker on their way to the leader."""

    def __init__(self) -> None:
        self._entries: dict[TaskId, _Entry] = {}
        self._unsaved: dict[TaskId, None] = {}  # a set that keeps its order
        self._unsent: dict[TaskId, None] = {}
        self._session_id: SessionId | None = None
        self._number = 0
        self._in_flight: dict[int, tuple[TaskReport, ...]] = {}

    @property
    def has_unsaved(self) -> bool:
        """Whether a save would have something to do."""
        return bool(self._unsaved)

    @property
    def has_unsaved_news(self) -> bool:
        """Whether any of that is more than a step on the way."""
        states = (self._entries[task_id].status.state for task_id in self._unsaved)
        return any(state not in PASSING for state in states)

    def taken_up(self, task_id: TaskId, status: TaskStatus, *, is_own: bool) -> None:
        """A task begins with this status: our own, found on disk, or as its managers gave it."""
        self._entries[task_id] = _Entry(status)
        if is_own:
            # What reads well need not be on the platter: a failed sync leaves such pages.
            self._unsaved[task_id] = None

    def newest(self, task_id: TaskId) -> TaskStatus:
        """The newest status that was told of a task."""
        return self._entries[task_id].status

    def changed(self, task_id: TaskId, status: TaskStatus) -> None:
        """This is a task's newest status now."""
        entry = self._entries[task_id]
        assert status.counter > entry.status.counter, (task_id, entry, status)
        entry.status = status
        self._unsaved[task_id] = None

    def set_reported(self, task_id: TaskId, *, is_reported: bool) -> None:
        """Whether any leader wants to hear of this task."""
        entry = self._entries[task_id]
        if entry.is_reported != is_reported:
            entry.is_reported = is_reported
            self._unsent[task_id] = None

    def forget(self, task_id: TaskId) -> None:
        """Nothing of this task is to be reported any more."""
        self._entries.pop(task_id, None)
        self._unsaved.pop(task_id, None)
        self._unsent.pop(task_id, None)

    def take_unsaved(self) -> tuple[TaskReport, ...]:
        """What the next save must hold. Follow up with `saved` or `not_saved`."""
        taken, self._unsaved = self._unsaved, {}
        return tuple(
            TaskReport(task_id=task_id, status=self._entries[task_id].status) for task_id in taken
        )

    def saved(self, reports: tuple[TaskReport, ...]) -> None:
        """These are durable, so they may be sent."""
        for report in reports:
            entry = self._entries.get(report.task_id)
            if entry is not None:
                entry.saved = report.status
                self._unsent[report.task_id] = None

    def not_saved(self, reports: tuple[TaskReport, ...]) -> None:
        """These, or what has replaced them, must be saved again."""
        for report in reports:
            if report.task_id in self._entries:
                self._unsaved[report.task_id] = None

    def session_opened(self, session_id: SessionId) -> None:
        """A new session hears everything that is known, and nothing is on its way any more."""
        self.session_closed()
        self._session_id = session_id
        for task_id, entry in self._entries.items():
            entry.sent = 0
            self._unsent[task_id] = None

    def session_closed(self) -> None:
        """Statuses wait."""
        self._session_id = None
        self._in_flight.clear()

    def next_batches(self) -> list[StatusBatch]:
        """What may be sent now."""
        batches: list[StatusBatch] = []
        while self._session_id and self._unsent and len(self._in_flight) < IN_FLIGHT_LIMIT:
            reports = self._take_unsent(self._session_id)
            if reports:
                self._number += 1
                self._in_flight[self._number] = reports
                batches.append(StatusBatch(number=self._number, reports=reports))
        return batches

    def stored(self, number: int) -> tuple[TaskId, ...]:
        """The tasks of which the leader has now committed a newer status than before."""
        tasks: dict[TaskId, None] = {}
        for done in [known for known in self._in_flight if known <= number]:
            for report in self._in_flight.pop(done):
                entry = self._entries.get(report.task_id)
                if entry is not None and report.status.counter > entry.acknowledged:
                    entry.acknowledged = report.status.counter
                    tasks[report.task_id] = None
        return tuple(tasks)

    def acknowledged(self, task_id: TaskId) -> int:
        """The counter of the newest status that the leader has committed; 0 for none."""
        return self._entries[task_id].acknowledged if task_id in self._entries else 0

    def _take_unsent(self, session_id: SessionId) -> tuple[TaskReport, ...]:
        reports: list[TaskReport] = []
        while self._unsent and len(reports) < BATCH_LIMIT:
            task_id = next(iter(self._unsent))
            del self._unsent[task_id]
            entry = self._entries[task_id]
            status = entry.saved
            if status is None or not entry.is_reported or status.counter <= entry.sent:
                continue
            entry.sent = status.counter
            reports.append(
                TaskReport(task_id=task_id, status=replace(status, session_id=session_id))
            )
        return tuple(reports)

    def check_invariants(self) -> None:
        """Nothing unsaved is ever sent, and no more is on its way than may be."""
        assert len(self._in_flight) <= IN_FLIGHT_LIMIT
        assert self._unsaved.keys() <= self._entries.keys()
        assert self._unsent.keys() <= self._entries.keys()
        for task_id, entry in self._entries.items():
            saved = entry.saved.counter if entry.saved else 0
            assert entry.sent <= saved <= entry.status.counter, (task_id, entry)
            assert entry.acknowledged <= saved, (task_id, entry)
