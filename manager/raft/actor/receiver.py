"""What a node does with a frame: the guard judges it, and the engine hears what is left of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skep.manager.raft.actor.elections import Elections
from skep.manager.raft.actor.engine import Engine
from skep.manager.raft.actor.journal import Journal
from skep.manager.raft.actor.reads import Reads
from skep.manager.raft.actor.snapshots import Snapshots
from skep.manager.raft.core import codec, guard
from skep.manager.raft.core.guard import TermOf, term_of


class Receiver:
    """Judges frames of peers."""

    @dataclass(frozen=True, slots=True)
    class Others:
        """The parts that frames are passed on to."""

        elections: Elections
        reads: Reads
        snapshots: Snapshots

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        others: Others,
        send: Callable[[int, codec.AnyFrame], None],
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._elections = others.elections
        self._reads = others.reads
        self._snapshots = others.snapshots
        self._send = send
        self._backtrack = guard.Backtrack()
        self.is_resend_due = False
        """A follower wants other entries than it was sent, or is back; replicate at once."""

    def receive(self, peer: int, frame: codec.AnyFrame) -> None:
        """Act on one frame. Raises LogBroken."""
        match frame:
            case codec.VoteRequest():
                self._elections.hear_request(peer, frame)
            case codec.VoteAnswer():
                self._elections.hear_vote(peer, frame)
            case codec.HigherTerm():
                if frame.term > self._engine.term:
                    self._engine.hear_term(peer, frame.term)
            case codec.Append() | codec.Heartbeat() | codec.SnapshotChunk() | codec.ReadProbe():
                self._from_leader(peer, frame)
            case codec.TimeoutNow():
                if frame.term == self._engine.term:
                    self._engine.hear_timeout_now(peer, frame.term)
            case codec.AppendAnswer() | codec.SnapshotAnswer() | codec.ReadAnswer():
                self._to_leader(peer, frame)
            case codec.Hello() | codec.Refused() | codec.Ping():
                """Of the link, not of the log."""

    def _from_leader(
        self,
        peer: int,
        frame: codec.Append | codec.Heartbeat | codec.SnapshotChunk | codec.ReadProbe,
    ) -> None:
        match term_of(frame.term, self._engine.term):
            case TermOf.PAST:
                self._send(peer, codec.HigherTerm(self._engine.term))
                return
            case TermOf.PRESENT if self._engine.is_leader:
                raise guard.LogBroken(f"node {peer} leads term {frame.term}, and so does this one")
            case _:
                self._elections.leader_heard()
        match frame:
            case codec.Append():
                self._append(peer, frame)
            case codec.Heartbeat():
                self._engine.hear_heartbeat(peer, frame.term, 0)
                answer = codec.AppendAnswer(self._engine.term, 0, matched=False, reset=False)
                self._send(peer, answer)
            case codec.SnapshotChunk():
                self._engine.hear_heartbeat(peer, frame.term, 0)
                self._snapshots.hear_chunk(peer, frame)
            case codec.ReadProbe():
                self._send(peer, codec.ReadAnswer(frame.term, frame.round))

    def _append(self, peer: int, frame: codec.Append) -> None:
        engine = self._engine
        match guard.judge_append(self._journal.log, engine.commit_index, frame):
            case guard.Take(prev_index, prev_term, entries, commit):
                self._backtrack.match()
                engine.hear_append(peer, frame.term, commit, (prev_index, prev_term), entries)
            case guard.Present(matched, commit):
                self._backtrack.match()
                engine.hear_heartbeat(peer, frame.term, commit)
                answer = codec.AppendAnswer(engine.term, matched + 1, matched=True, reset=False)
                self._send(peer, answer)
            case guard.Mismatch(next_index):
                next_index = self._backtrack.mismatch(frame.term, next_index)
                engine.hear_heartbeat(peer, frame.term, 0)
                answer = codec.AppendAnswer(engine.term, next_index, matched=False, reset=True)
                self._send(peer, answer)

        if not frame.entries and self._journal.durable < self._journal.sequence:
            # The answer waits for the disk. A leader that hears nothing meanwhile would step down,
            # and with disks that are slow everywhere so would the next.
            self._send(peer, codec.AppendAnswer(engine.term, 0, matched=False, reset=False))

    def _to_leader(
        self, peer: int, frame: codec.AppendAnswer | codec.SnapshotAnswer | codec.ReadAnswer
    ) -> None:
        term = term_of(frame.term, self._engine.term)
        if term is TermOf.FUTURE:
            self._engine.hear_term(peer, frame.term)
        if term is not TermOf.PRESENT or not self._engine.is_leader:
            return
        match frame:
            case codec.AppendAnswer():
                self._append_answered(peer, frame)
            case codec.SnapshotAnswer():
                self._snapshots.hear_answer(peer, frame)
            case codec.ReadAnswer():
                self._reads.hear_answer(peer, frame)

    def _append_answered(self, peer: int, answer: codec.AppendAnswer) -> None:
        believed = guard.judge_append_answer(self._journal.log.last_index, answer)
        if believed is None:
            self._engine.hear_append_answer(peer, 0, matched=False, reset=False)
            return
        self._engine.hear_append_answer(
            peer, believed.next_index, matched=believed.matched, reset=believed.reset
        )
        self.is_resend_due |= believed.reset
