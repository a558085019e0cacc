"""The whole cluster under every fault, and the proof that its safeguards are needed.

Two hundred seeds are always the same; a hundred are new in each run. They are spread over two
processes. A failure prints the line that shows it again. `make sim-long` runs many more.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.sim import ablations
from tests.sim.ablations import ABLATIONS
from tests.sim.long import fresh_seed, scenario
from tests.sim.world import simulate

pytestmark = pytest.mark.sim

ROOT = Path(__file__).parent.parent.parent
FRESH = fresh_seed()
PROCESSES = 2
Job = tuple[str, Any]


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest) -> Iterator[dict[Job, Future[Any]]]:
    """All that was asked for of this module's worlds, each under its scenario and seed; begun in
    the order in which the tests ask for it."""
    wanted: dict[Job, None] = {}
    for item in request.session.items:
        callspec = getattr(item, "callspec", None)
        if item.path == request.path and callspec is not None and "job" in callspec.params:
            wanted[callspec.params["job"]] = None
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_quiet) as pool:
        yield {job: pool.submit(_run, job) for job in wanted}
        pool.shutdown(wait=True, cancel_futures=True)


def _quiet() -> None:
    logging.basicConfig(level=logging.CRITICAL)


def _run(job: Job) -> int | None:
    name, what = job
    if name == "ablation":
        return ablations.found_by(what)
    return simulate(name, scenario(name), what).seed


def _name(job: Job) -> str:
    return str(job[1])


def _of(name: str, *seeds: int) -> list[Job]:
    return [(name, seed) for seed in seeds]


@pytest.mark.parametrize("job", _of("cluster", *range(200)), ids=_name)
def test_a_storm_is_survived(jobs: dict[Job, Future[Any]], job: Job) -> None:
    jobs[job].result()


@pytest.mark.parametrize("job", _of("cluster", *range(FRESH, FRESH + 100)), ids=_name)
def test_a_new_storm_is_survived(jobs: dict[Job, Future[Any]], job: Job) -> None:
    jobs[job].result()


@pytest.mark.parametrize("job", _of("calm", *range(4), *range(FRESH, FRESH + 4)), ids=_name)
def test_on_calm_days_nothing_ever_goes_wrong(jobs: dict[Job, Future[Any]], job: Job) -> None:
    jobs[job].result()


@pytest.mark.parametrize("job", [("ablation", name) for name in ABLATIONS], ids=_name)
def test_no_safeguard_is_needless(jobs: dict[Job, Future[Any]], job: Job) -> None:
    found = jobs[job].result()
    assert found is not None, f"nobody misses this safeguard: {job[1]}"


def test_one_seed_is_one_life_under_any_hash_seed() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-m", "tests.sim.long", "--scenario", "cluster", "--seed", "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120.0,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1, outputs
