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
    # Other tests take nodes away: not every one has a task at all times.
    used = str(cluster.running()[0]["node"])
    others = " ".join(f"{name}.netproxy" for name in ("w1", "w2", "w3") if name != used)
    refused = cluster.run("node", "clean", used, "--yes")
    assert refused.returncode == 5
    assert f"{used}.netproxy runs" in refused.stderr
    cluster.skep("local", "stop", f"{used}.netproxy")
    try:
        refused = cluster.run("node", "clean", "--all")
        assert f"{others} run" in refused.stderr
        refused = cluster.run("node", "clean", used, "--yes")
        assert refused.returncode == 5
        assert "tasks of this node run" in refused.stderr
    finally:
        cluster.start(f"{used}.netproxy")
