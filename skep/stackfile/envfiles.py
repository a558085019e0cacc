"""`env_file` and `label_file` of a service: names and values in files beside the stack file."""

from __future__ import annotations

import functools

from skep.stackfile import keys
from skep.stackfile.dotenv import read_dotenv
from skep.stackfile.errors import StackFileError
from skep.stackfile.mounts import path_of
from skep.stackfile.reader import Place

_RAW = "raw"


def read_env_files(place: Place) -> dict[str, str]:
    """What one or several files say; later ones win."""
    found: dict[str, str] = {}
    for item in place.items() if place.is_list else [place]:
        nothing: dict[str, str] = {}
        found |= item.attempt(functools.partial(_file, dict(found)), nothing)
    return found


def _file(before: dict[str, str], place: Place) -> dict[str, str]:
    if place.is_scalar:
        return _read(place, place.text(), before, is_raw=False)
    fields = place.fields(keys.ENV_FILE)
    if "path" not in fields:
        raise place.error("a file of variables needs 'path'")
    is_required = fields.read("required", Place.truth, True)
    form = fields.read("format", Place.text, "")
    if form not in ("", _RAW):
        raise fields["format"].error(f"format must be 'raw', but this is '{form[:40]}'")
    path = fields["path"]
    if not is_required and not path.has_file(path_of(path, path.text())):
        return {}
    return _read(path, path.text(), before, is_raw=form == _RAW)


def _read(place: Place, name: str, before: dict[str, str], *, is_raw: bool) -> dict[str, str]:
    path = path_of(place, name)
    try:
        text = place.file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise place.error(f"{path}: not UTF-8 text") from None
    if is_raw:
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        rows = (line.partition("=") for line in lines)
        return {name.strip(): value for name, sign, value in rows if sign}
    try:
        known = {**before, **place.source.environ}
        return read_dotenv(text, file=name, environ=known, warn=place.source.warn)
    except StackFileError as error:
        # The place in that file is in the text; this one's is where the reader looks first.
        raise place.error(str(error)) from None
