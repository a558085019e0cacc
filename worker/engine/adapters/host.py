"""What only this machine can say: its users, folders, programs, and the tools a shim needs."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import stat
from pathlib import Path

from skep.domain.base import Pairs, pairs
from skep.env import Fatal, Rejected
from skep.worker.engine.core.launch import DEFAULT_PATH, Tools
from skep.worker.engine.core.records import UserIds

USER_FIELD = "spec.task.run.user"


def find_tools() -> Tools:
    """The programs that shims are made of. All are in Debian's essential packages."""
    found = {name: shutil.which(name, path=DEFAULT_PATH) for name in ("setsid", "setpriv", "env")}
    for name in ("sync", "nsenter", "unshare", "mount"):
        found[name] = shutil.which(name, path=DEFAULT_PATH)
    missing = sorted(name for name, path in found.items() if path is None)
    if missing:
        raise Fatal(
            f"the process engine needs {', '.join(missing)} (packages coreutils and util-linux)"
        )
    # Python itself ignores SIGPIPE and SIGXFSZ, and its subprocess module undoes that.
    candidates = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD)
    ignored = [s for s in candidates if signal.getsignal(s) is signal.SIG_IGN]
    return Tools(
        setsid=found["setsid"] or "",
        setpriv=found["setpriv"] or "",
        env=found["env"] or "",
        sync=found["sync"] or "",
        nsenter=found["nsenter"] or "",
        unshare=found["unshare"] or "",
        mount=found["mount"] or "",
        reset_signals=tuple(s.name.removeprefix("SIG") for s in ignored),
    )


def resolve_user(user: str) -> UserIds | None:
    """Whom "name", "name:group", "uid" or "uid:gid" stands for; None if that is who we are.

    As with Docker, a named user has all its groups, unless one group is named. Raises Rejected.
    """
    if not user:
        return None
    name, _, group = user.partition(":")
    entry = _find_user(name)
    if entry is None and not name.isdecimal():
        raise Rejected(f'user "{name}" is unknown on this node', field=USER_FIELD)
    uid = entry.pw_uid if entry else int(name)
    gid = _find_group(group) if group else (entry.pw_gid if entry else 0)
    groups: tuple[int, ...] = ()
    if entry is not None and not group:
        groups = tuple(sorted(os.getgrouplist(entry.pw_name, gid)))
    if os.geteuid() == 0:
        return UserIds(uid=uid, gid=gid, groups=groups)
    if uid != os.geteuid() or (group and gid != os.getegid()):
        raise Rejected(
            f'user "{user}": this node\'s agent is not root and runs tasks as itself only '
            f"(uid {os.geteuid()})",
            field=USER_FIELD,
        )
    return None


def _find_user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        return None


def _find_group(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise Rejected(f'group "{name}" is unknown on this node', field=USER_FIELD) from None


def home_of(user: UserIds | None) -> str:
    """The home folder of whoever a task runs as; "/" for one that has none, as with Docker."""
    entry = _find_user(str(os.geteuid() if user is None else user.uid))
    return entry.pw_dir if entry else "/"


def check_folder(folder: str) -> None:
    """Raise Rejected unless a task can have this as its working folder."""
    if not Path(folder).is_dir():
        raise Rejected(
            f'working folder "{folder}" does not exist on this node',
            field="spec.task.run.working_dir",
        )


def check_program(program: str, path: str, working_dir: str) -> None:
    """Raise Rejected unless `program` can be executed, found as execvp(3) finds it."""
    field = "spec.task.run.command"
    if "/" in program:
        found = _is_program(Path(working_dir) / program)
    else:
        found = any(_is_program(Path(working_dir) / folder / program) for folder in path.split(":"))
    if not found:
        where = "" if "/" in program else f" in PATH ({path})"
        raise Rejected(f'"{program}" is no program on this node{where}', field=field)


def _is_program(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def may_mount() -> bool:
    """Whether tasks can be given mounts of their own."""
    return os.geteuid() == 0


def notes(limits: str) -> Pairs:
    """What the engine can hold tasks to on this node, `limits` by control groups; and whether
    their own names can be answered where programs look for them."""
    users = "any" if os.geteuid() == 0 else f"uid {os.geteuid()} only"
    own = "tasks have a resolv.conf of their own" if may_mount() else "SKEP_DNS in the environment"
    by_default = "memory by RLIMIT_DATA, as best effort; cpu and pids are not enforced"
    return pairs(
        {"process.limits": limits or by_default, "process.names": own, "process.users": users}
    )
