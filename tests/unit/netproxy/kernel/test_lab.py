"""The lab itself: its nodes reach one another, and it leaves nothing."""

from __future__ import annotations

import socket

from tests.support.netns import FOLDER, lab, needs_namespaces

pytestmark = needs_namespaces()


def test_nodes_reach_one_another_and_nothing_is_left() -> None:
    with lab(2) as made:
        server = made.run("n2", socket.create_server, (made.address("n2"), 0))
        with server:
            port = server.getsockname()[1]
            client = made.run("n1", socket.create_connection, (made.address("n2"), port), 5.0)
            with client, server.accept()[0] as accepted:
                assert accepted.getpeername()[0] == made.address("n1")
        sleeper = made.start(made.path("n1"), "sleep", "100")
        assert sleeper.poll() is None
    assert sleeper.poll() is not None
    assert not list(FOLDER.glob(f"{made.name}-*"))
