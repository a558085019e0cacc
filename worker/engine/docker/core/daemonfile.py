"""dockerd's own configuration file, with Skep's runtime in it and everything else as it was."""

from __future__ import annotations

import json
from typing import Any

from skep.env import Rejected

RUNTIME = "skep"


def with_runtime(text: str, program: str) -> str | None:
    """The text of a daemon.json in which the runtime is `program`; None where that is so already.
    Raises Rejected for a file that isn't what dockerd takes: it is not ours to mend."""
    try:
        config = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise Rejected(f"it is no JSON: {error}") from None
    runtimes = config.get("runtimes", {}) if isinstance(config, dict) else None
    if not isinstance(runtimes, dict):
        raise Rejected("it is not an object with an object of runtimes in it")
    wanted: dict[str, Any] = {"path": program}
    if runtimes.get(RUNTIME) == wanted:
        return None
    config["runtimes"] = {**runtimes, RUNTIME: wanted}
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"
