"""How a worker finds the leader and keeps its session.

One connection at a time. A manager that does not lead says who does; else the next address is
tried, after a growing and jittered pause. Nothing of a connection that was given up counts any
more: every event names the connection it belongs to. A session whose heartbeats stay unanswered
for two periods is given up, before the leader's successor judges who is lost. Periods are counted
by our own ticks, so that a worker that was stopped for a while (a debugger, a snapshot of its
machine) doesn't blame the leader for it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from skep.domain.base import SECOND_NS, SessionId, replace
from skep.domain.objects import NodeDescription
from skep.domain.session import (
    SESSION_FORMAT,
    Heartbeat,
    LeaderMessage,
    SessionWelcome,
    WorkerHello,
    WorkerMessage,
)
from skep.env import Random

FIRST_BACKOFF_S = 0.1
# An election takes about one second; a worker should not sleep through the next one.
LONGEST_BACKOFF_S = 2.0
# The leader writes the node to the store before it welcomes it; this allows for a slow disk.
WELCOME_DEADLINE_S = 5.0
# A leader that is stuck is replaced within a second or two, and its successor judges who has not
# registered 8 s later: by then, at most 6 s after the last answer, a worker is on its way.
MISSED_LIMIT = 2
# Two managers that each call the other the leader must not keep us busy.
REDIRECT_LIMIT = 3


class Phase(enum.Enum):
    """Where a link stands."""

    IDLE = "idle"  # not told to begin yet
    RESTING = "resting"  # between two attempts
    CONNECTING = "connecting"
    GREETING = "greeting"  # the hello is sent
    IN_SESSION = "in session"


# Events. `connection` numbers the attempts.


@dataclass(frozen=True, slots=True)
class Begun:
    """Drop what there is and register anew, refusing leaders below `highest_term`."""

    now: float
    highest_term: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The stream is open."""

    now: float
    connection: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """It could not be opened, or it ended. `leader` is the address the other side named."""

    now: float
    connection: int
    why: str
    leader: str = ""


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """One frame of the leader."""

    now: float
    connection: int
    message: LeaderMessage


@dataclass(frozen=True, slots=True)
class Ticked:
    """The timer that was set last has run out."""

    now: float


@dataclass(frozen=True, slots=True)
class SessionRefused:
    """The agent wants out of this session."""

    now: float
    session_id: SessionId
    why: str


@dataclass(frozen=True, slots=True)
class TermRaised:
    """The agent has obeyed a leader of this term."""

    now: float
    term: int


@dataclass(frozen=True, slots=True)
class Described:
    """What the node says of itself has changed."""

    now: float
    description: NodeDescription


LinkEvent = (
    Begun
    | Connected
    | Disconnected
    | MessageReceived
    | Ticked
    | SessionRefused
    | TermRaised
    | Described
)


# Effects.


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a stream to `address`; ends in Connected or Disconnected."""

    connection: int
    address: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send one frame on the present connection."""

    message: WorkerMessage


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the present connection, if it is not closed already."""

    why: str


@dataclass(frozen=True, slots=True)
class SetTick:
    """Say Ticked at monotonic time `due`, instead of what was set before."""

    due: float


@dataclass(frozen=True, slots=True)
class TellWelcome:
    """Tell the agent that it is in a session."""

    session_id: SessionId
    term: int


@dataclass(frozen=True, slots=True)
class TellMessage:
    """Hand a leader's message to the agent."""

    session_id: SessionId
    message: LeaderMessage


@dataclass(frozen=True, slots=True)
class TellClosed:
    """Tell the agent that there is no session any more."""

    why: str


LinkEffect = Connect | Send | HangUp | SetTick | TellWelcome | TellMessage | TellClosed


class LinkCore:
    """The rules of one worker's link. `hello` is complete but for the highest term."""

    def __init__(self, hello: WorkerHello, managers: tuple[str, ...], dice: Random) -> None:
        assert managers
        self._hello = hello
        self._managers = managers
        self._dice = dice
        self._next_manager = dice.randrange(len(managers))
        self.phase = Phase.IDLE
        self.session_id: SessionId | None = None
        self.connection = 0
        self.address = ""
        self._leader = ""  # where to go next, if somebody has said so
        self._silent = ""  # who was given up for saying nothing: the next attempt goes elsewhere
        self._redirects = 0
        self._failures = 0
        self._due = 0.0
        self._period_s = 0.0
        self._beat = 0
        self._missed = 0

    def step(self, event: LinkEvent) -> list[LinkEffect]:
        """What follows from one event."""
        match event:
            case Begun(now, highest_term):
                self._raise_term(highest_term)
                if self.phase is Phase.CONNECTING:
                    return []  # Nothing was said yet that would have to be said anew.
                effects = self._give_up("begun anew")
                return [*effects, *self._connect(now)]
            case Connected(now, connection):
                return self._connected(now) if connection == self.connection else []
            case Disconnected(_, connection):
                return self._disconnected(event) if connection == self.connection else []
            case MessageReceived(_, connection):
                return self._received(event) if connection == self.connection else []
            case Ticked(now):
                return self._ticked(now)
            case SessionRefused(now, session_id, why):
                return self._retry(now, why) if session_id == self.session_id else []
            case TermRaised(_, term):
                self._raise_term(term)
                return []
            case Described(now, description):
                return self._described(now, description)

    def _raise_term(self, term: int) -> None:
        self._hello = replace(self._hello, highest_term=max(term, self._hello.highest_term))

    def _described(self, now: float, description: NodeDescription) -> list[LinkEffect]:
        self._hello = replace(self._hello, description=description)
        if self.phase not in (Phase.GREETING, Phase.IN_SESSION):
            return []  # Nothing of it was said yet.
        # Managers hear it in a hello alone, and of the one that leads: back there at once.
        self._leader = self.address
        return [*self._give_up("there is news of the node"), *self._connect(now)]

    # -------------------------------------------------------------------------- connecting

    def _connect(self, now: float) -> list[LinkEffect]:
        self.connection += 1
        self.phase = Phase.CONNECTING
        if self._leader:
            self.address, self._leader = self._leader, ""
        else:
            self.address = self._next_in_turn()
            if self.address == self._silent:
                # A stuck process is still connected to, and would keep us until the deadline.
                self.address = self._next_in_turn()
        self._silent = ""
        return [
            Connect(self.connection, self.address),
            *self._set_tick(now + WELCOME_DEADLINE_S),
        ]

    def _next_in_turn(self) -> str:
        address = self._managers[self._next_manager]
        self._next_manager = (self._next_manager + 1) % len(self._managers)
        return address

    def _connected(self, now: float) -> list[LinkEffect]:
        self.phase = Phase.GREETING
        return [
            Send(WorkerMessage(hello=self._hello)),
            *self._set_tick(now + WELCOME_DEADLINE_S),
        ]

    def _disconnected(self, event: Disconnected) -> list[LinkEffect]:
        if event.leader and event.leader != self.address and self._redirects < REDIRECT_LIMIT:
            self._redirects += 1
            self._leader = event.leader
            return [*self._give_up(event.why), *self._connect(event.now)]
        return self._retry(event.now, event.why)

    def _retry(self, now: float, why: str) -> list[LinkEffect]:
        """Give up this connection and try another after a pause."""
        effects = self._give_up(why)
        self.phase = Phase.RESTING
        self._redirects = 0
        pause_s = min(FIRST_BACKOFF_S * 2.0 ** min(self._failures, 10), LONGEST_BACKOFF_S)
        self._failures += 1
        # Half of it is jitter: a thousand workers that lost one leader must not come as one.
        return [*effects, *self._set_tick(now + pause_s * self._dice.uniform(0.5, 1.0))]

    def _give_up(self, why: str) -> list[LinkEffect]:
        effects: list[LinkEffect] = []
        if self.phase in (Phase.CONNECTING, Phase.GREETING, Phase.IN_SESSION):
            effects.append(HangUp(why))
        if self.session_id is not None:
            effects.append(TellClosed(why))
        self.session_id = None
        self.connection += 1  # What this connection still says no longer counts.
        return effects

    # ----------------------------------------------------------------------------- session

    def _received(self, event: MessageReceived) -> list[LinkEffect]:
        message = event.message
        if self.phase is Phase.GREETING:
            if message.welcome is None:
                return self._retry(event.now, f"{self.address} did not welcome us first")
            return self._welcomed(event.now, message.welcome)
        if self.phase is not Phase.IN_SESSION or message.welcome is not None:
            return self._retry(event.now, f"{self.address} sent a welcome out of turn")
        assert self.session_id is not None
        if message.heartbeat is not None:
            self._missed = 0
            return []
        return [TellMessage(self.session_id, message)]

    def _welcomed(self, now: float, welcome: SessionWelcome) -> list[LinkEffect]:
        highest = self._hello.highest_term
        if welcome.format != SESSION_FORMAT:
            return self._retry(
                now,
                f"{self.address} speaks format {welcome.format}, this is {SESSION_FORMAT}",
            )
        if welcome.term < highest:
            return self._retry(now, f"term {welcome.term} is over: {highest} was obeyed")
        if welcome.heartbeat_period_ns <= 0:
            return self._retry(now, f"{self.address} wants a heartbeat every 0 s")
        self.phase = Phase.IN_SESSION
        self.session_id = welcome.session_id
        self._failures = self._redirects = self._missed = 0
        self._period_s = welcome.heartbeat_period_ns / SECOND_NS
        return [TellWelcome(welcome.session_id, welcome.term), *self._set_tick(now)]

    def _ticked(self, now: float) -> list[LinkEffect]:
        if now < self._due:
            return []  # It was set anew meanwhile.
        match self.phase:
            case Phase.RESTING:
                return self._connect(now)
            case Phase.CONNECTING | Phase.GREETING:
                self._silent = self.address
                return self._retry(now, f"{self.address} did not welcome us in time")
            case Phase.IN_SESSION if self._missed >= MISSED_LIMIT:
                self._silent = self.address
                return self._retry(now, f"{self.address} missed {self._missed} heartbeats")
            case Phase.IN_SESSION:
                self._missed += 1
                self._beat += 1
                beat = Send(WorkerMessage(heartbeat=Heartbeat(number=self._beat)))
                return [beat, *self._set_tick(now + self._period_s)]
            case _:
                return []

    def _set_tick(self, due: float) -> list[LinkEffect]:
        self._due = due
        return [SetTick(due)]

    def check_invariants(self) -> None:
        """Called by tests and the simulator after every step."""
        assert (self.session_id is not None) == (self.phase is Phase.IN_SESSION)
        assert self._missed <= MISSED_LIMIT
        assert self._redirects <= REDIRECT_LIMIT
