"""`create` of Skep's OCI runtime; started with the arguments that runc is to get.

The agent makes a link, named by the container's id, to the file that holds the task's network
namespace, between creating the container and starting it. Where there is none the container is
refused: it must never run in a network other than its own. Docker's own hook, which would give the
container's namespace to Docker's network code, has nothing to do here and is dropped; all other
hooks stay.

This file is copied to where dockerd finds it and runs without Skep: it imports nothing but the
standard library, and little of that, since every start of a container waits for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LINKS = "/run/skep/containers"
DOCKER_HOOK = "libnetwork-setkey"
NS_GET_NSTYPE = 0xB703
CLONE_NEWNET = 0x40000000
# Options of runc and of `runc create` that are followed by their value, where that matters here.
WITH_VALUE = ("--bundle", "-b", "--log", "--console-socket", "--pid-file", "--preserve-fds")


class Refused(Exception):
    """The container must not be created; the text is for a person."""


def main(arguments: list[str]) -> None:
    """Change the bundle, then become runc."""
    options, container_id = parse(arguments)
    try:
        change(options.get("--bundle", "."), container_id)
    except (OSError, ValueError, Refused) as error:
        text = "skep: " + " ".join(str(error).split())
        tell(options.get("--log"), text)
        print(text, file=sys.stderr)
        sys.exit(1)
    os.execvp("runc", ["runc", *arguments])


def parse(arguments: list[str]) -> tuple[dict[str, str], str]:
    """The options that have a value, and the container's id, which is the last word."""
    found = {}
    words = iter(arguments)
    for word in words:
        name, is_joined, value = word.partition("=")
        if name in WITH_VALUE:
            found["--bundle" if name == "-b" else name] = value if is_joined else next(words, "")
    return found, arguments[-1] if arguments else ""


def change(bundle: str, container_id: str) -> None:
    """Write the namespace into the bundle's config.json."""
    path = os.path.join(bundle, "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    put_into(config, namespace_of(container_id))
    temporary = path + ".skep"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(config, file)
    os.rename(temporary, path)


def namespace_of(container_id: str) -> str:
    """The file that holds the container's network namespace."""
    link, short = os.path.join(LINKS, container_id), container_id[:12]
    try:
        target = os.readlink(link)
    except OSError:
        raise Refused(
            f"there is no network for container {short}: this runtime is for containers that "
            "Skep's agent starts, and no others"
        ) from None
    try:
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"the network of container {short} is gone: {error}") from None
    try:
        kind = fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        kind = 0
    finally:
        os.close(fd)
    if kind != CLONE_NEWNET:
        raise Refused(f"the network of container {short} is gone: {target} is no namespace")
    return target


def put_into(config: dict[str, Any], namespace: str) -> None:
    """Have the container's network namespace be this one, and leave Docker's hook out."""
    linux = config.setdefault("linux", {})
    others = [each for each in linux.get("namespaces", []) if each.get("type") != "network"]
    linux["namespaces"] = [*others, {"type": "network", "path": namespace}]
    hooks = config.get("hooks") or {}
    for name, entries in hooks.items():
        hooks[name] = [each for each in entries or [] if DOCKER_HOOK not in each.get("args", [])]


def tell(log: str | None, text: str) -> None:
    """Say it where runc would: dockerd shows the last line of that file."""
    if log:
        line = json.dumps({"level": "error", "msg": text})
        with open(log, "a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
