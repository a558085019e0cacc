"""`profiles:` of a service: those that are only there when somebody asks for them."""

from __future__ import annotations

from skep.stackfile.errors import Mark
from skep.stackfile.reader import Place

# As Compose has it: the names of profiles, with commas between them; "*" is all of them.
VARIABLE = "COMPOSE_PROFILES"
_ALL = "*"


def is_wanted(mark: Mark, place: Place) -> bool:
    """Whether a service is part of the stack, by its profiles; `mark` is where its name stands."""
    if place.is_scalar or place.is_list:
        return True
    profiles = next((at for key, at in place.entries() if key.text == "profiles"), None)
    if profiles is None or profiles.is_null:
        return True
    wanted = {word.strip() for word in place.source.environ.get(VARIABLE, "").split(",")}
    names = profiles.texts()
    if not names or _ALL in wanted or wanted.intersection(names):
        return True
    place.source.warn(
        f"{place.where(mark)}: left out, since none of its profiles is in {VARIABLE}: "
        f"{', '.join(names)}"
    )
    return False
