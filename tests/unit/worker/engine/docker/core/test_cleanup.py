"""Which images and containers go."""

from __future__ import annotations

import pytest

from skep.domain.base import SECOND_NS
from skep.worker.engine.docker.core.cleanup import (
    LEAST_UNUSED_S,
    ORPHAN_AGE_S,
    RECORD_LIMIT,
    CleanupPolicy,
    ImageRecord,
    LocalContainer,
    LocalImage,
    Plan,
    PulledImage,
    Removal,
    is_full,
    orphans,
    plan,
    read_record,
    with_pulled,
    with_used,
    without,
    write_record,
)

HOUR_NS = 3600 * SECOND_NS
NOW_NS = 1000 * HOUR_NS
DAY = CleanupPolicy()
DIGEST = f"sha256:{'d' * 64}"


def pulled(id_: str, *names: str, unused_h: float = 0.0) -> PulledImage:
    used_ns = NOW_NS - int(unused_h * HOUR_NS)
    return PulledImage(id=id_, names=names or (f"{id_}:1",), used_ns=used_ns)


def local(id_: str, *tags: str, digests: tuple[str, ...] = ()) -> LocalImage:
    return LocalImage(id=id_, repo_tags=list(tags or (f"{id_}:1",)), repo_digests=list(digests))


def container(image: str, state: str = "running") -> LocalContainer:
    return LocalContainer(id=f"of-{image}", image_i_d=image, state=state)


def decide(
    *images: PulledImage,
    policy: CleanupPolicy = DAY,
    there: tuple[LocalImage, ...] | None = None,
    containers: tuple[LocalContainer, ...] = (),
) -> Plan:
    record = ImageRecord(images=images)
    if there is None:
        there = tuple(local(image.id) for image in images)
    return plan(record, policy, NOW_NS, there, containers)


def names(removals: tuple[Removal, ...]) -> list[str]:
    return [removal.image.id for removal in removals]


# -------------------------------------------------------------------------------------- images


def test_images_that_were_unused_for_long_go_the_oldest_first() -> None:
    plan_ = decide(
        pulled("young", unused_h=23.9), pulled("old", unused_h=24), pulled("older", unused_h=99)
    )
    assert plan_.removals == (
        Removal(pulled("older", unused_h=99), ("older:1",), "unused for 99 h"),
        Removal(pulled("old", unused_h=24), ("old:1",), "unused for 24 h"),
    )
    assert names(plan_.spare) == ["young"]


def test_while_the_disk_is_full_those_go_that_were_used_least_recently() -> None:
    images = [pulled(f"i{hours}", unused_h=hours) for hours in (3, 1, 2)]
    plan_ = decide(*images)
    assert plan_.removals == ()
    assert names(plan_.spare) == ["i3", "i2", "i1"]
    assert plan_.spare[0].why == "unused for 3 h, and the disk is full"


def test_an_image_that_a_task_may_be_about_to_use_stays_even_then() -> None:
    assert decide(pulled("new", unused_h=(LEAST_UNUSED_S - 1) / 3600)).spare == ()
    assert names(decide(pulled("new", unused_h=LEAST_UNUSED_S / 3600)).spare) == ["new"]


@pytest.mark.parametrize("state", ["running", "exited", "created", "paused"])
def test_an_image_of_anybodys_container_stays_and_counts_as_used(state: str) -> None:
    plan_ = decide(pulled("a", unused_h=99), containers=(container("a", state),))
    assert plan_ == Plan(ImageRecord(images=(pulled("a"),)), (), ())


def test_images_that_others_brought_stay() -> None:
    there = (local("mine"), local("theirs"))
    plan_ = decide(pulled("mine", unused_h=99), there=there)
    assert names(plan_.removals) == ["mine"]


def test_what_others_removed_is_forgotten() -> None:
    assert decide(pulled("a"), pulled("b"), there=(local("b"),)).record.images == (pulled("b"),)


def test_an_image_goes_by_the_names_of_our_pulls_alone() -> None:
    image = pulled("a", "web:1", "web:2", unused_h=99)
    there = local(
        "a",
        "web:1",
        "mine:1",
        "web:stable",
        digests=(f"web@{DIGEST}", f"mine@{DIGEST}", "<none>@<none>"),
    )
    plan_ = decide(image, there=(there,))
    assert plan_.removals[0].names == ("web:1", f"web@{DIGEST}")


def test_an_image_without_a_name_goes_by_its_id() -> None:
    # A tag that moved on leaves it so.
    there = LocalImage(id="a", repo_tags=["<none>:<none>"], repo_digests=None)
    plan_ = decide(pulled("a", "web:1", unused_h=99), there=(there,))
    assert plan_.removals[0].names == ()


def test_an_image_that_has_only_other_peoples_names_is_theirs() -> None:
    plan_ = decide(pulled("a", "web:1", unused_h=99), there=(local("a", "mine:1"),))
    assert (plan_.removals, plan_.spare) == ((), ())


def test_nothing_goes_where_nothing_is_to_go() -> None:
    policy = CleanupPolicy(unused_s=0, disk_percent=0)
    plan_ = decide(pulled("a", unused_h=9999), policy=policy)
    assert (plan_.removals, plan_.spare) == ((), ())
    only_full = decide(pulled("a", unused_h=9999), policy=CleanupPolicy(unused_s=0))
    assert (only_full.removals, names(only_full.spare)) == ((), ["a"])


@pytest.mark.parametrize(
    ("used", "percent", "full"),
    [(85, 85, False), (86, 85, True), (100, 0, False), (0, 85, False)],
)
def test_when_a_disk_is_full(used: int, percent: int, *, full: bool) -> None:
    assert is_full(used, 100, CleanupPolicy(disk_percent=percent)) is full


# -------------------------------------------------------------------------------------- record


def test_a_record_comes_back_from_disk() -> None:
    record = ImageRecord(images=(pulled("a"), pulled("b")))
    assert read_record(write_record(record)) == record


@pytest.mark.parametrize("data", [None, b"", b"{", b"[]", b'{"format": 99, "images": []}'])
def test_a_record_that_can_not_be_read_says_nothing(data: bytes | None) -> None:
    assert read_record(data) == ImageRecord()


def test_an_image_that_is_pulled_by_another_name_has_both() -> None:
    record = with_pulled(ImageRecord(), pulled("a", "web:1"))
    record = with_pulled(record, pulled("a", "web:2", unused_h=1))
    assert record.images == (pulled("a", "web:1", "web:2"),)


def test_a_record_has_a_bound() -> None:
    images = tuple(pulled(f"i{n:05}", unused_h=RECORD_LIMIT - n) for n in range(RECORD_LIMIT))
    record = with_pulled(ImageRecord(images=images), pulled("newest"))
    assert len(record.images) == RECORD_LIMIT
    assert record.images[0].id == "i00001"
    assert record.images[-1].id == "newest"


def test_uses_and_removals_are_noted() -> None:
    record = ImageRecord(images=(pulled("a", unused_h=5), pulled("b", unused_h=5)))
    used = with_used(record, {"a", "x"}, NOW_NS)
    assert used.images == (pulled("a"), pulled("b", unused_h=5))
    assert without(used, {"b", "x"}).images == (pulled("a"),)


# ---------------------------------------------------------------------------------- containers

OLD = NOW_NS // SECOND_NS - int(ORPHAN_AGE_S) - 1


def made(id_: str, state: str = "exited", created: int = OLD, **labels: str) -> LocalContainer:
    return LocalContainer(id=id_, state=state, created=created, labels=labels)


def test_ended_containers_of_this_node_that_belong_to_no_task_go() -> None:
    containers = [
        made("gone", node="n1", task="t1"),
        made("unborn", "created", node="n1", task="t1"),
        made("known", node="n1", task="t2"),
        made("running", "running", node="n1", task="t1"),
        made("other-node", node="n2", task="t1"),
        made("somebodys", task="t1"),
        made("no-task", node="n1"),
        made("young", created=OLD + 2, node="n1", task="t1"),
        LocalContainer(id="bare", state="exited", created=OLD),
    ]
    assert orphans(containers, ("node", "n1"), {"t2"}, "task", NOW_NS) == ["gone", "unborn"]
