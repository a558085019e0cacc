"""What is read of an image, and where it runs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from skep.domain.base import SECOND_NS
from skep.domain.imagename import parse_image
from skep.domain.spec import HealthCheck
from skep.worker.engine.docker.core.image import ImageFacts, facts_of, runs_on

WEB = parse_image("web:1")
ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def read(wanted: str = "web:1", **inspected: Any) -> ImageFacts:
    return facts_of(json.dumps({"Id": ONE, **inspected}).encode(), parse_image(wanted))


def test_an_image_that_says_next_to_nothing() -> None:
    bare = ImageFacts(id=ONE, reference="web:1")
    assert read() == bare
    assert read(Config=None, RepoDigests=None, RepoTags=["web:1"]) == bare
    empty = {"Cmd": None, "Entrypoint": None, "ExposedPorts": None, "Labels": None, "Env": None}
    assert read(Config=empty) == bare


def test_an_image_that_is_none() -> None:
    with pytest.raises(msgspec.DecodeError):
        facts_of(b'{"message": "no"}', WEB)


def test_the_digest_is_that_of_the_repository_that_was_asked_for() -> None:
    digests = [f"other@{TWO}", "<none>@<none>", f"web@{ONE}", f"web@{TWO}"]
    assert read(RepoDigests=digests).digest == ONE
    assert read(f"web@{TWO}", RepoDigests=digests).digest == TWO
    # As Podman has it.
    assert read(RepoDigests=[f"docker.io/library/web@{TWO}"]).digest == TWO
    assert read(RepoDigests=[f"other@{TWO}"]).digest == ""


@pytest.mark.parametrize(
    ("said", "health"),
    [
        (None, None),
        ({}, None),
        ({"Test": []}, None),
        ({"Test": [""]}, None),
        ({"Test": ["NONE"]}, HealthCheck(test=("NONE",))),
        ({"Test": ["CMD-SHELL", "x"]}, HealthCheck(test=("CMD-SHELL", "x"))),
        (
            {
                "Test": ["CMD", "x"],
                "Interval": SECOND_NS,
                "Timeout": 2 * SECOND_NS,
                "StartPeriod": 3 * SECOND_NS,
                "StartInterval": 4 * SECOND_NS,
                "Retries": 5,
            },
            HealthCheck(
                test=("CMD", "x"),
                interval_ns=SECOND_NS,
                timeout_ns=2 * SECOND_NS,
                start_period_ns=3 * SECOND_NS,
                start_interval_ns=4 * SECOND_NS,
                retries=5,
            ),
        ),
    ],
)
def test_the_health_test_of_an_image(said: object, health: HealthCheck | None) -> None:
    assert read(Config={"Healthcheck": said}).health == health


@pytest.mark.parametrize(
    ("image", "node", "handlers", "runs"),
    [
        ("amd64", "amd64", (), True),
        ("amd64", "x86_64", (), True),
        ("arm64", "amd64", (), False),
        ("arm64", "amd64", ("status", "qemu-aarch64"), True),
        ("arm64", "amd64", ("qemu-s390x", "python3.11"), False),
        ("386", "amd64", (), True),
        ("arm", "arm64", (), True),
        ("arm64", "arm", (), False),
        ("", "amd64", (), True),
        ("amd64", "", (), True),
    ],
)
def test_where_an_image_runs(
    image: str, node: str, handlers: tuple[str, ...], *, runs: bool
) -> None:
    assert runs_on(image, node, handlers) is runs
