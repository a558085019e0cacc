"""Settings that all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadlines: on a busy machine they fail what is right. The same examples each time, so that a
# change is judged by what it changed; `make fuzz-long` looks for new ones, and for many more.
settings.register_profile("quick", deadline=None, derandomize=True, database=None)
settings.register_profile("long", deadline=None, max_examples=20_000, print_blob=True)
settings.load_profile(os.environ.get("SKEP_FUZZ", "quick"))
