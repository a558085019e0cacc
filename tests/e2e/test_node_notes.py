"""What nodes say of their networks, and what follows from it."""

from __future__ import annotations

import json

from tests.support.local_cluster import LocalCluster


def test_no_node_claims_to_encrypt_and_encrypted_networks_are_refused(
    cluster: LocalCluster,
) -> None:
    for name in ("w1", "w2", "w3"):
        [node] = json.loads(cluster.skep("node", "inspect", name))
        notes = node["description"]["notes"]
        assert notes["network.encryption"].startswith("none: ")
        assert "keeps no networks apart" in notes["network.plane"]
    refused = cluster.run("network", "create", "secret", "--encrypted")
    assert refused.returncode != 0
    assert "no node can encrypt" in refused.stderr


def test_a_node_that_is_in_use_is_not_cleaned_up(cluster: LocalCluster) -> None:
    refused = cluster.run("node", "clean", "w1", "--yes")
    assert refused.returncode == 5
    assert "w1.netproxy runs" in refused.stderr
    cluster.skep("local", "stop", "w1.netproxy")
    try:
        refused = cluster.run("node", "clean", "--all")
        assert "w2.netproxy w3.netproxy run" in refused.stderr
        refused = cluster.run("node", "clean", "w1", "--yes")
        assert refused.returncode == 5
        assert "tasks of this node run" in refused.stderr
    finally:
        cluster.start("w1.netproxy")
