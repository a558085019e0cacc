"""Names of images, by Docker's rules."""

from __future__ import annotations

import pytest

from skep.domain.imagename import ImageName, parse_image, registry_of
from skep.env import Rejected

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "server", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io", "library/nginx", "latest", ""),
        ("nginx:1.25", "docker.io", "library/nginx", "1.25", ""),
        ("team/app:2", "docker.io", "team/app", "2", ""),
        ("docker.io/nginx", "docker.io", "library/nginx", "latest", ""),
        ("index.docker.io/nginx", "docker.io", "library/nginx", "latest", ""),
        ("docker.io/team/app", "docker.io", "team/app", "latest", ""),
        ("localhost/app", "localhost", "app", "latest", ""),
        ("localhost:5000/app:x", "localhost:5000", "app", "x", ""),
        ("reg:5000/a/b/c:1.0_rc-1", "reg:5000", "a/b/c", "1.0_rc-1", ""),
        ("reg.example.com/a", "reg.example.com", "a", "latest", ""),
        ("Registry/a", "Registry", "a", "latest", ""),
        ("[2001:db8::1]:5000/a:b", "[2001:db8::1]:5000", "a", "b", ""),
        ("127.0.0.1/a__b/c--d.e", "127.0.0.1", "a__b/c--d.e", "latest", ""),
        (f"nginx@{DIGEST}", "docker.io", "library/nginx", "", DIGEST),
        (f"reg.io:1/a:t@{DIGEST}", "reg.io:1", "a", "t", DIGEST),
        # Without a slash it is no server, whatever is in it.
        ("localhost", "docker.io", "library/localhost", "latest", ""),
        ("localhost:5000", "docker.io", "library/localhost", "5000", ""),
    ],
)
def test_a_name_has_a_server_a_repository_and_a_tag_or_digest(
    text: str, server: str, repository: str, tag: str, digest: str
) -> None:
    name = parse_image(text)
    assert name == ImageName(server=server, repository=repository, tag=tag, digest=digest)
    assert parse_image(name.text) == name
    assert parse_image(name.familiar) == name
    assert registry_of(text) == server


@pytest.mark.parametrize(
    ("text", "familiar", "whole"),
    [
        ("nginx", "nginx:latest", "docker.io/library/nginx:latest"),
        ("team/app:2", "team/app:2", "docker.io/team/app:2"),
        ("r.io/a", "r.io/a:latest", "r.io/a:latest"),
        (f"a:1@{DIGEST}", f"a:1@{DIGEST}", f"docker.io/library/a:1@{DIGEST}"),
    ],
)
def test_a_name_is_written_in_full_and_as_people_do(text: str, familiar: str, whole: str) -> None:
    assert parse_image(text).familiar == familiar
    assert parse_image(text).text == whole


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "lower-case"),
        ("Nginx", "lower-case"),
        ("a/B", "lower-case"),
        ("a//b", "lower-case"),
        ("a...b", "lower-case"),
        ("r.io/", "lower-case"),
        ("nginx:", "no tag"),
        ("nginx:a b", "no tag"),
        ("nginx:" + "t" * 129, "no tag"),
        ("nginx@sha256:12", "no digest"),
        ("nginx@", "no digest"),
        ("-bad-.io/a", "no address"),
        ("reg:port/a", "no address"),
        ("r.io/" + "a" * 251, "longer than 255"),
    ],
)
def test_what_is_no_name_is_refused(text: str, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        parse_image(text)
    assert registry_of(text) == ""
