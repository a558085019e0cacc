"""Signals by name, as Linux numbers them: cores may not ask the `signal` module.

The numbers are those of x86 and ARM; a task's exit code is 128 + one of them.
"""

from __future__ import annotations

from skep.env import Rejected

NUMBERS = {
    "SIGHUP": 1,
    "SIGINT": 2,
    "SIGQUIT": 3,
    "SIGILL": 4,
    "SIGTRAP": 5,
    "SIGABRT": 6,
    "SIGBUS": 7,
    "SIGFPE": 8,
    "SIGKILL": 9,
    "SIGUSR1": 10,
    "SIGSEGV": 11,
    "SIGUSR2": 12,
    "SIGPIPE": 13,
    "SIGALRM": 14,
    "SIGTERM": 15,
    "SIGSTKFLT": 16,
    "SIGCHLD": 17,
    "SIGCONT": 18,
    "SIGSTOP": 19,
    "SIGTSTP": 20,
    "SIGTTIN": 21,
    "SIGTTOU": 22,
    "SIGURG": 23,
    "SIGXCPU": 24,
    "SIGXFSZ": 25,
    "SIGVTALRM": 26,
    "SIGPROF": 27,
    "SIGWINCH": 28,
    "SIGIO": 29,
    "SIGPWR": 30,
    "SIGSYS": 31,
}
NAMES = {number: name for name, number in NUMBERS.items()}

FIRST_REALTIME = 34
LAST_REALTIME = 64


def parse_signal(text: str, field: str) -> int:
    """The number of "SIGTERM", "term", "15" or "SIGRTMIN+3"; raises Rejected."""
    name = text.upper()
    if name.isdecimal():
        number = int(name)
    else:
        name = name if name.startswith("SIG") else "SIG" + name
        base, _, offset = name.partition("+")
        if base == "SIGRTMIN" and (offset.isdecimal() or not offset):
            number = FIRST_REALTIME + int(offset or 0)
        else:
            number = NUMBERS.get(name, 0)
    if number not in NAMES and not FIRST_REALTIME <= number <= LAST_REALTIME:
        raise Rejected(f'{field}: unknown signal "{text}"; SIGTERM is one', field=field)
    return number


def signal_name(number: int) -> str:
    """ "SIGTERM" for 15; the number itself for one without a name."""
    if number in NAMES:
        return NAMES[number]
    if FIRST_REALTIME <= number <= LAST_REALTIME:
        return f"SIGRTMIN+{number - FIRST_REALTIME}"
    return str(number)
