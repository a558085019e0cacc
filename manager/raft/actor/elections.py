"""PreVote and the counting of votes.

Before a node stands for election it asks whether it would be elected. So one that was cut off for
a while doesn't raise the term and unseat a working leader when it comes back.
"""

from __future__ import annotations

from collections.abc import Callable

from skep.manager.raft.actor.context import Context
from skep.manager.raft.actor.engine import Engine
from skep.manager.raft.actor.journal import Journal
from skep.manager.raft.core import codec, guard

Send = Callable[[int, codec.AnyFrame], None]


class Elections:
    """One node's part in elections."""

    def __init__(self, context: Context, engine: Engine, journal: Journal, send: Send) -> None:
        self._env = context.env
        self._peers = context.peers
        self._settings = context.settings
        self._engine = engine
        self._journal = journal
        self._send = send
        self._votes = guard.Ballot()
        self._promises = guard.Ballot()
        self._has_promises = False
        self._leader_heard_at = float("-inf")

    def before_tick(self) -> None:
        """Ask first, where the engine would stand for election."""
        engine = self._engine
        if not self._peers or self._has_promises or not engine.election_is_due:
            return
        if engine.was_told_to_lead:
            return
        engine.postpone_election()
        self._promises.open(engine.term + 1)
        log = self._journal.log
        request = codec.VoteRequest(engine.term + 1, log.last_index, log.last_term, pre=True)
        for peer in self._peers:
            self._send(peer, request)

    def after_tick(self) -> None:
        """Promises are good for one election."""
        self._has_promises = False

    def stood(self, term: int) -> None:
        """The engine stands for election."""
        self._votes.open(term)

    def leader_heard(self) -> None:
        """A message of the present leader has come."""
        self._leader_heard_at = self._env.now()
        self._promises.open(0)

    def hear_request(self, peer: int, request: codec.VoteRequest) -> None:
        """Somebody asks for a vote, or whether there would be one."""
        engine = self._engine
        if request.pre:
            heard_at = self._env.now() if engine.is_leader else self._leader_heard_at
            if guard.may_promise_vote(
                self._journal.log,
                engine.term,
                request,
                leader_heard_s_ago=self._env.now() - heard_at,
                election_min_s=self._settings.election_min_s,
            ):
                self._send(peer, codec.VoteAnswer(request.term, pre=True))
                return
        if request.term < engine.term or (request.pre and request.term == engine.term):
            self._send(peer, codec.HigherTerm(engine.term))
        elif not request.pre:
            if request.term == engine.term and self._journal.voted_for == peer:
                # The answer may have been lost; a vote is given once, but may be said twice.
                self._send(peer, codec.VoteAnswer(request.term, pre=False))
            else:
                last = (request.last_index, request.last_term)
                self._engine.hear_vote_request(peer, request.term, last)

    def hear_vote(self, peer: int, answer: codec.VoteAnswer) -> None:
        """A vote, or the promise of one."""
        engine = self._engine
        if answer.pre:
            is_open = answer.term == engine.term + 1 and not engine.is_leader
            if not is_open or not self._promises.count(peer, answer.term):
                return
            if self._promises.is_won(len(self._peers)):
                self._has_promises = True
                engine.stand_for_election()
        elif guard.term_of(answer.term, engine.term) is guard.TermOf.FUTURE:
            engine.hear_term(peer, answer.term)
        elif self._votes.count(peer, answer.term) and answer.term == engine.term:
            engine.hear_vote(peer, answer.term)
