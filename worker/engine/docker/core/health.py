"""The health check that a container gets of its image and of its service."""

from __future__ import annotations

from skep.domain.base import replace
from skep.domain.spec import HealthCheck

_DEFAULTS = HealthCheck()
_TIMINGS = ("interval_ns", "timeout_ns", "start_period_ns", "start_interval_ns", "retries")


def merged_health(spec: HealthCheck | None, image: HealthCheck | None) -> HealthCheck | None:
    """How a container is to be tested: as its spec says, else as its image does; None for not at
    all. A spec that gives no test changes the timings of the image's: those that it says, which are
    those that aren't the default."""
    found = image
    if spec is not None and spec.test:
        found = spec
    elif spec is not None and image is not None:
        said = {name: getattr(spec, name) for name in _TIMINGS}
        changes = {n: value for n, value in said.items() if value != getattr(_DEFAULTS, n)}
        found = replace(image, **changes)
    return None if found is None or found.test[:1] in ((), ("NONE",)) else found
