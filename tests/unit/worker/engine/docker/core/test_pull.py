"""When images are pulled, how far a pull is, and what failures mean."""

from __future__ import annotations

import json

import pytest

from skep.domain.container import PullPolicy
from skep.domain.imagename import parse_image
from skep.domain.session import GivenLogin
from skep.env import Rejected, Retryable
from skep.worker.engine.docker.core.pull import (
    WHY_LIMIT,
    Choice,
    Progress,
    choose,
    failure,
    read_line,
)

USE, PULL, REFUSE = Choice.USE, Choice.PULL, Choice.REFUSE
LOGIN = GivenLogin(server="r.example.com", username="keeper", password="honey")


@pytest.mark.parametrize(
    ("policy", "here", "here_pinned", "missing"),
    [
        (PullPolicy.MISSING, USE, USE, PULL),
        (PullPolicy.ALWAYS, PULL, USE, PULL),
        (PullPolicy.NEVER, USE, USE, REFUSE),
    ],
)
def test_what_is_done_for_an_image(
    policy: PullPolicy, here: Choice, here_pinned: Choice, missing: Choice
) -> None:
    assert choose(policy, is_here=True, is_pinned=False) is here
    assert choose(policy, is_here=True, is_pinned=True) is here_pinned
    for is_pinned in (True, False):
        assert choose(policy, is_here=False, is_pinned=is_pinned) is missing


def line(status: str, layer: str = "", current: int = 0, total: int = 0) -> bytes:
    detail = {"current": current, "total": total} if total else {}
    return json.dumps({"status": status, "id": layer, "progressDetail": detail}).encode()


def words_after(*lines: bytes) -> list[str]:
    progress = Progress("web:1")
    found = [progress.words]
    for each in lines:
        progress.take(read_line(each))
        if progress.words != found[-1]:
            found.append(progress.words)
    return found


def test_a_pull_in_words() -> None:
    assert words_after(
        line("Pulling from web", "1"),
        line("Already exists", "a"),
        line("Pulling fs layer", "b"),
        line("Pulling fs layer", "c"),
        line("Pulling fs layer", "d"),
        line("Downloading", "b", 5_000_000, 20_000_000),
        line("Downloading", "c", 0, 100_000_000),
        line("Downloading", "c", 50_000_000, 100_000_000),
        line("Verifying Checksum", "b"),
        line("Download complete", "b"),
        line("Extracting", "b", 1_000_000, 20_000_000),
        line("Downloading", "d", 1_000_000, 2_000_000),
        line("Download complete", "d"),
        line("Download complete", "c"),
        line("Extracting", "c", 10, 100_000_000),
        line("Pull complete", "c"),
        line("Digest: sha256:12"),
    ) == [
        "pulling web:1",
        "pulling web:1: 25 % of 20 MB and 2 more layers",
        "pulling web:1: 4 % of 120 MB and 1 more layer",
        "pulling web:1: 45 % of 120 MB and 1 more layer",
        "pulling web:1: 58 % of 120 MB and 1 more layer",
        "pulling web:1: 58 % of 122 MB",
        "pulling web:1: 59 % of 122 MB",
        "pulling web:1: unpacking 122 MB",
    ]


def test_a_small_layer_may_be_there_before_anybody_knows_its_size() -> None:
    assert words_after(
        line("Pulling fs layer", "a"),
        line("Download complete", "a"),
    ) == ["pulling web:1", "pulling web:1: unpacking"]


def test_a_failure_stands_in_its_line() -> None:
    failed = read_line(b'{"errorDetail":{"message":"no"},"error":"no"}\r\n')
    assert failed.error == "no"


NOT_THERE = "manifest for r.example.com/web:1 not found: manifest unknown: manifest unknown"
GET = 'Get "https://r.example.com/v2/": '


@pytest.mark.parametrize(
    ("said", "kind", "part"),
    [
        (NOT_THERE, Rejected, "registry r.example.com has no such image"),
        ("name unknown: repository name not known to registry", Rejected, "has no such image"),
        (
            "no matching manifest for linux/amd64 in the manifest list entries",
            Rejected,
            "is not made for this node's architecture",
        ),
        (
            "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
            Retryable,
            "no space left on this node's disk",
        ),
        (f"{GET}dial tcp: lookup r.example.com: no such host", Retryable, "can't be reached"),
        (f"{GET}dial tcp 10.0.0.1:443: i/o timeout", Retryable, "can't be reached"),
        (f"{GET}context deadline exceeded", Retryable, "can't be reached"),
        (f"{GET}EOF", Retryable, "can't be reached"),
        ("received unexpected HTTP status: 502 Bad Gateway", Retryable, "can't be reached"),
        ("toomanyrequests: You have reached your pull rate limit", Retryable, "fewer requests"),
        (f"{GET}x509: certificate has expired", Retryable, "can't be trusted"),
        (f"{GET}http: server gave HTTP response to HTTPS client", Retryable, "can't be trusted"),
        ("something else", Retryable, 'image "r.example.com/web:1": something else'),
    ],
)
def test_what_failures_mean(said: str, kind: type[Exception], part: str) -> None:
    error = failure(said, parse_image("r.example.com/web:1"), None)
    assert isinstance(error, kind)
    assert part in str(error)


DENIALS = (
    f"{GET}unauthorized: authentication required",
    f"{GET}no basic auth credentials",
    "pull access denied for r.example.com/web, repository does not exist or may require "
    "'docker login': denied: requested access to the resource is denied",
    "Head https://r.example.com/v2/web/manifests/1: denied: access forbidden",
    "unauthorized: incorrect username or password",
)


@pytest.mark.parametrize("said", DENIALS)
def test_denied_access_says_which_registry_and_what_to_do(said: str) -> None:
    image = parse_image("r.example.com/web:1")
    without = failure(said, image, None)
    assert isinstance(without, Retryable)
    assert str(without) == (
        'image "r.example.com/web:1": it needs a login: skep registry login r.example.com'
    )
    refused = failure(said, image, LOGIN)
    assert isinstance(refused, Rejected)
    assert "registry r.example.com refuses the login of 'keeper'" in str(refused)
    assert "honey" not in str(refused)


def test_on_docker_hub_a_name_that_is_wrong_looks_like_one_that_is_private() -> None:
    error = failure(DENIALS[2], parse_image("nosuchimage"), None)
    assert str(error) == (
        'image "nosuchimage:latest": there is no such image, or it needs a login: '
        "skep registry login docker.io"
    )


def test_what_an_image_is_called_is_no_reason() -> None:
    said = 'Get "https://r.example.com/v2/x509/unauthorized/manifests/denied:": EOF'
    error = failure(said, parse_image("r.example.com/x509/unauthorized:denied"), None)
    assert "can't be reached" in str(error)


def test_what_an_engine_says_is_kept_short() -> None:
    assert len(str(failure("x" * 5000, parse_image("web"), None))) < WHY_LIMIT + 50
