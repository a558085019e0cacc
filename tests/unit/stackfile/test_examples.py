"""What is shown to users works, and is all that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skep.stackfile import Reading, StackText, keys, read

ROOT = Path(__file__).parents[3]
EXAMPLES = [
    ("timecheck.yaml",),
    ("rolling.yaml",),
    ("rolling.yaml", "rolling-prod.yaml"),
]


@pytest.mark.parametrize("names", EXAMPLES, ids="+".join)
def test_an_example_is_read_without_a_warning(names: tuple[str, ...]) -> None:
    warnings: list[str] = []
    files = [StackText(name, (ROOT / "examples" / name).read_text("utf-8")) for name in names]
    read(files, Reading({}, folder="/examples", warn=warnings.append))
    assert warnings == []


def test_every_example_is_tried() -> None:
    tried = {name for names in EXAMPLES for name in names}
    assert tried == {path.name for path in (ROOT / "examples").glob("*.y*ml")}


def test_every_key_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "stack-files.md").read_text("utf-8")
    named = set(re.findall(r"[\w-]+", " ".join(re.findall(r"`([^`]+)`", text))))
    # Those within a section that has a line of its own nowhere: what they mean is Compose's.
    inner = {
        section.name
        for section in (
            keys.HEALTHCHECK,
            keys.RESOURCES,
            keys.LIMITS,
            keys.RESERVATIONS,
            keys.RESTART_POLICY,
            keys.LOGGING,
        )
    }
    for section in vars(keys).values():
        if isinstance(section, keys.Section) and section.name not in inner:
            assert section.supported | section.extensions <= named, section.name
