"""`skep network ...`, and where else networks are shown."""

from __future__ import annotations

import json

import pytest

from skep.cli import netpretty
from skep.cli.changes import Sight
from skep.cli.commands import network as commands
from skep.cli.stackfiles import placed
from skep.domain import control as c
from skep.domain.base import NodeId, TaskId, replace
from skep.domain.endpoints import Diagnosis, NameAnswer, Probe
from skep.domain.objects import Network, Task, Vip
from skep.domain.spec import NetworkSpec
from skep.stackfile import Reading, StackText, read
from tests.unit.cli.shell import Shell, columns

MS = 1_000_000
SHOP = """\
networks:
  front:
  back: {internal: true, labels: {team: shop}}
services:
  web: {command: serve, networks: {front: {aliases: [www]}, back: }, deploy: {replicas: 2}}
  db: {command: keep, networks: [back]}
"""


def deploy(shell: Shell) -> dict[str, Network]:
    """The stack above, and its networks by name."""
    assert shell.skep(f"stack deploy -c {shell.file(SHOP)}") == 0, shell.err
    assert shell.err.startswith("created network shop_back\ncreated network shop_front\ncreated")
    return {row.name: row for row in shell.control.networks.values()}


def task(shell: Shell, name: str) -> Task:
    return next(each for each in shell.control.tasks.values() if each.name == name)


def planes(shell: Shell, **by_node: str) -> None:
    for name, plane in by_node.items():
        row = shell.control.nodes[f"{name}-id"]
        told = replace(row.description, plane=plane)
        shell.control.nodes[row.id] = replace(row, description=told)


# ----------------------------------------------------------------------- birth to death


def test_a_network_from_birth_to_death(shell: Shell) -> None:
    line = (
        "network create --driver overlay --subnet 10.9.0.0/24 --gateway 10.9.0.9 --internal "
        "--attachable --opt encrypted --opt mtu=1400 --label team=shop iotd-net"
    )
    assert shell.skep(line) == 0, shell.err
    (row,) = shell.control.networks.values()
    assert shell.out == f"{row.id}\n"
    assert (row.spec.subnet, row.spec.gateway) == ("10.9.0.0/24", "10.9.0.9")
    assert row.spec.is_internal
    assert row.spec.is_attachable
    assert row.spec.is_encrypted
    assert (row.spec.options, row.spec.labels) == ((("mtu", "1400"),), (("team", "shop"),))
    assert shell.skep("network create iotd-net") == 5
    assert "exists; choose another name" in shell.err
    assert shell.skep("network ls") == 0
    head, found = shell.out.splitlines()
    assert columns(head) == ["ID", "NAME", "DRIVER", "SUBNET", "SERVICES", "TASKS", "STATUS"]
    assert columns(found)[1:] == [
        "iotd-net",
        "overlay",
        "10.9.0.0/24",
        "0",
        "0",
        "Ready (internal)",
    ]
    assert shell.skep("network ls -q") == 0
    assert shell.out == f"{row.id}\n"
    assert shell.skep("network rm iotd-net") == 0
    assert shell.out == "iotd-net\n"
    assert shell.rows("network ls") == []
    assert shell.skep("network rm iotd-net") == 1
    assert "no network 'iotd-net'" in shell.err


@pytest.mark.parametrize(
    ("words", "is_encrypted"),
    [
        ("--encrypted", True),
        ("--opt encrypted=true", True),
        ("-o encrypted=", True),
        ("-o encrypted=false", False),
        ("", False),
    ],
)
def test_encryption_is_asked_for_in_either_way(
    shell: Shell, words: str, is_encrypted: bool
) -> None:
    assert shell.skep(f"network create {words} x") == 0
    (row,) = shell.control.networks.values()
    assert (row.spec.is_encrypted, row.spec.options) == (is_encrypted, ())
    assert shell.skep("network create --opt encrypted=so y") == 2


def test_lists_are_narrowed(shell: Shell) -> None:
    deploy(shell)
    shell.skep("network create other")
    shell.skep("network create shop_more")

    def names(line: str) -> list[object]:
        return [row["name"] for row in shell.rows(f"network ls {line}")]

    assert names("") == ["other", "shop_back", "shop_front", "shop_more"]
    assert names("--filter stack=shop") == ["shop_back", "shop_front"]
    assert names("-f name=shop -f label=team") == ["shop_back"]
    assert names("-f label=team=other") == []
    assert names("-f driver=overlay -f name=o") == ["other"]
    assert names("-f driver=bridge") == []
    assert shell.skep("network ls --filter stack=nope") == 1
    assert shell.skep("network ls --filter scope=swarm") == 2
    assert "write one of name=, id=, label=, driver=, stack=" in shell.err


def test_a_network_that_waits_says_for_what(shell: Shell) -> None:
    row = shell.control.add_network(NetworkSpec(name="late"))
    shell.control.networks[row.id] = replace(row, vni=None, subnet="", message="no range is free")
    shell.skep("network ls -f name=late")
    assert shell.out.splitlines()[1].endswith("   Waiting: no range is free")
    shell.skep("network inspect --pretty late")
    assert "Message:                 no range is free" in shell.out
    shell.control.networks[row.id] = replace(row, is_removing=True)
    shell.skep("network ls -f name=late")
    assert shell.out.splitlines()[1].endswith("   Removing")


def test_one_that_is_used_stays(shell: Shell) -> None:
    deploy(shell)
    assert shell.skep("network rm shop_back") == 5
    assert "is used by service shop_db" in shell.err


def test_removing_waits_until_it_is_gone(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.skep("network create x")
    (row,) = shell.control.networks.values()
    looks = iter([1, 2])

    def remove(q: c.RemoveRequest) -> c.RemoveResponse:
        return c.RemoveResponse(id=row.id, name=row.name)

    def listed(q: c.ListNetworksRequest) -> c.ListNetworksResponse:
        is_there = next(looks, None) is not None
        views = (c.NetworkView(network=replace(row, is_removing=True)),) if is_there else ()
        return c.ListNetworksResponse(networks=views)

    monkeypatch.setattr(shell.control, "on_RemoveNetwork", remove)
    monkeypatch.setattr(shell.control, "on_ListNetworks", listed)
    assert shell.skep("network rm x") == 0
    assert (shell.out, shell.err) == ("x\n", "removing x\n")
    assert next(looks, None) is None
    looks = iter(range(1000))
    assert shell.skep("network rm x --timeout 300ms") == 3
    assert "not removed after 0.3 s: x; tasks on it have yet to end" in shell.err
    assert shell.skep("network rm -d x") == 0


# ------------------------------------------------------------------------------ inspect


def test_inspect_shows_all_there_is(shell: Shell) -> None:
    found = deploy(shell)["shop_back"]
    (view,) = json.loads(out(shell, "network inspect shop_back"))
    assert view["network"]["id"] == found.id
    assert view["network"]["spec"]["labels"] == {"team": "shop"}
    assert view["services"] == ["shop_db", "shop_web"]
    line = "network inspect shop_back -f"
    assert shell.skep(line, "{{.Id}} {{.Internal}} {{.IPAM.Config}}") == 0
    config = '[{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]'
    assert shell.out == f"{found.id} true {config}\n"
    assert shell.skep(line, "{{.services}} {{.network.vni}}") == 0
    assert shell.out == '["shop_db", "shop_web"] 4097\n'
    assert shell.skep("network inspect shop_back --pretty -f", "{{.Id}}") == 2


def out(shell: Shell, line: str) -> str:
    assert shell.skep(line) == 0, shell.err
    return shell.out


def with_addresses(shell: Shell) -> None:
    networks = deploy(shell)
    shell.control.attach(task(shell, "shop_web.1"), shop_back="10.0.1.5", shop_front="10.0.2.5")
    shell.control.attach(task(shell, "shop_web.2"), shop_back="10.0.1.6", shop_front="10.0.2.6")
    web = next(row for row in shell.control.services.values() if row.name == "shop_web")
    vips = (
        Vip(network_id=networks["shop_back"].id, index=258, address="10.0.1.2"),
        Vip(network_id=networks["shop_front"].id, index=259, address="10.0.2.2"),
    )
    shell.control.services[web.id] = replace(web, vips=vips)


def test_pretty_says_who_is_on_a_network(shell: Shell) -> None:
    with_addresses(shell)
    planes(shell, w1="kernel", w2="relay", w3="kernel")
    (held,) = (t for t in shell.control.tasks.values() if t.name == "shop_web.2")
    shell.control.tasks[held.id] = replace(held, address="127.32.16.9")
    lines = out(shell, "network inspect --pretty shop_back").splitlines()
    assert [line.split(maxsplit=1) for line in lines[1:6]] == [
        ["Name:", "shop_back"],
        ["Driver:", "overlay"],
        ["Subnet:", "10.0.1.0/24"],
        ["Gateway:", "10.0.1.1"],
        ["VXLAN", "id:                4097"],
    ]
    assert lines[6:] == [
        "Is:                      internal",
        "Labels:",
        " team:                   shop",
        "Services:",
        " shop_db:                as db",
        " shop_web:               10.0.1.2, 127.37.1.2 on w2; as web",
        "Tasks:",
        " shop_web.1:             10.0.1.5 on w1",
        " shop_web.2:             127.32.16.9 on w2",
    ]


def test_a_service_shows_where_it_is_found(shell: Shell) -> None:
    with_addresses(shell)
    lines = out(shell, "service inspect --pretty shop_web").splitlines()
    at = lines.index("Endpoint Mode:           vip")
    own = "127.36.? on w1, 127.37.? on w2, 127.38.? on w3"
    assert lines[at + 1 : at + 4] == [
        "Networks:",
        f" shop_back:              {own.replace('?', '1.2')}; as web",
        f" shop_front:             {own.replace('?', '1.3')}; as web, www",
    ]
    planes(shell, w1="kernel", w2="kernel", w3="kernel")
    assert " shop_back:              10.0.1.2; as web" in out(
        shell, "service inspect --pretty shop_web"
    )
    line = "{{.Endpoint.Spec.Mode}} {{.Spec.TaskTemplate.Networks}}"
    assert shell.skep("service inspect shop_db -f", line) == 0
    assert shell.out == 'vip [{"Target": "shop_back", "Aliases": ["db"]}]\n'


def test_a_service_that_is_nowhere_yet_says_so(shell: Shell) -> None:
    shell.skep("service create --name a --network late --endpoint-mode dnsrr --expose 53/udp -- x")
    lines = out(shell, "service inspect --pretty a").splitlines()
    assert "Endpoint Mode:           dnsrr" in lines
    assert " late:                   no address yet" in lines
    assert "Exposed:                 53/udp" in lines


def test_tasks_show_their_addresses_where_they_have_them_for_themselves(shell: Shell) -> None:
    with_addresses(shell)
    for task in list(shell.control.tasks.values()):
        shell.control.tasks[task.id] = replace(task, address="127.32.16.9")
    head, *others = out(shell, "service ps shop_web").splitlines()
    assert "NETWORKS" not in head
    assert all("127.32.16.9" in line for line in others)
    planes(shell, w1="kernel")
    head, first, second = out(shell, "service ps shop_web").splitlines()
    assert columns(head)[6:8] == ["NETWORKS", "ADDRESS"]
    assert "127.32.16.9" not in first
    assert "127.32.16.9" in second
    assert "   shop_back 10.0.1.5, shop_front 10.0.2.5   " in first
    assert "10.0.1.6" not in second
    found = {row["name"]: row["networks"] for row in shell.rows("stack ps shop")}
    assert found["shop_web.2"] == {"shop_back": "10.0.1.6", "shop_front": "10.0.2.6"}
    assert found["shop_db.1"] == {}
    planes(shell, w1="kernel", w2="kernel", w3="kernel")
    assert "ADDRESS" not in out(shell, "service ps shop_web")


def test_ports_say_what_they_carry(shell: Shell) -> None:
    shell.skep(
        "service create --name dns -p 53:53/udp "
        "-p published=80,target=80,proxy-protocol=v2,accept-proxy-protocol=true -- serve"
    )
    assert "*:53->53/udp, *:80->80/tcp (PROXY v2, accepts PROXY)" in out(shell, "service ls")
    assert "*:53->53/udp, *:80->80/tcp (PROXY v2" in out(shell, "service inspect --pretty dns")


def test_a_node_says_what_its_plane_is(shell: Shell) -> None:
    row = shell.control.nodes["w1-id"]
    told = replace(row.description, plane="kernel", notes=(("network.vip", "bpf"),))
    shell.control.nodes[row.id] = replace(row, description=told, ingress_address="10.0.0.3")
    lines = out(shell, "node inspect --pretty w1 w2").splitlines()
    assert "Data plane:              kernel: networks are apart from each other" in lines
    assert "Data plane:              relay: names are by network, but every task can reach" in str(
        lines
    )
    assert lines[lines.index("Notes:") + 1] == " network.vip:            bpf"
    assert "Ingress address:         10.0.0.3" in lines
    assert out(shell, "node inspect --pretty m1").splitlines()[3].endswith("manager, leads")


def test_the_network_of_published_ports_shows_them(shell: Shell) -> None:
    shell.skep("service create --name web -p 80:8080 -p 53:53/udp -- serve")
    row = shell.control.add_network(NetworkSpec(name="ingress"))
    shell.control.networks[row.id] = replace(row, is_ingress=True)
    lines = out(shell, "network inspect --pretty ingress").splitlines()
    assert "Is:                      for published ports" in lines
    assert lines[-1] == "Tasks:                   none"
    assert "Ready (ingress)" in out(shell, "network ls")
    (web,) = shell.control.services.values()
    view = c.NetworkView(network=shell.control.networks[row.id], services=("web",))
    scene = netpretty.Scene(services=[shell.control.view(web)])
    told = [text for _, name, text in netpretty.network_lines(view, scene) if name == "web"]
    assert told == ["*:80->8080/tcp, *:53->53/udp"]


# ------------------------------------------------------------------------- stack and events


def test_events_tell_of_networks(shell: Shell) -> None:
    row = shell.control.add_network(NetworkSpec(name="front"))
    new = replace(row, vni=None, subnet="", version=20)
    sight = Sight()
    events = [
        (c.WatchAction.CREATE, new),
        (c.WatchAction.UPDATE, replace(row, version=21)),
        (c.WatchAction.UPDATE, replace(row, version=22, message="no range is free")),
        (c.WatchAction.UPDATE, replace(row, version=23, is_removing=True)),
        (c.WatchAction.REMOVE, replace(row, version=24, is_removing=True)),
    ]
    told = [
        sight.take(c.WatchEvent(version=each.version, action=action, network=each))
        for action, each in events
    ]
    assert [change and (change.subject, change.what) for change in told] == [
        ("network front", "created, waits for its addresses"),
        ("network front", "subnet 10.0.1.0/24, VXLAN id 4097"),
        ("network front", "no range is free"),
        ("network front", "is being removed"),
        ("network front", "removed"),
    ]


def test_removing_a_stack_removes_its_networks(shell: Shell) -> None:
    deploy(shell)
    shell.skep("network create other")
    assert shell.skep("stack rm shop") == 0
    assert [row["name"] for row in shell.rows("network ls")] == ["other"]


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (
            "spec.networks[0].subnet: 10.0.0.0/30 is a /30",
            "shop.yml:3:3: network 'shop_back': subnet: 10.0.0.0/30 is a /30",
        ),
        ("spec.networks[1].name: no", "shop.yml:2:3: network 'shop_front': no"),
        (
            "spec.services[1].task.networks[0].network: there is no network 'x'",
            "shop.yml:6:3: service 'shop_db': there is no network 'x'",
        ),
        ("spec.networks[7].name: no", "spec.networks[7].name: no"),
    ],
)
def test_what_a_manager_says_of_networks_names_the_file(says: str, told: str) -> None:
    stack = read([StackText("shop.yml", SHOP)], Reading({}, name="shop"))
    assert placed(says, stack) == told


def test_the_default_network_stands_nowhere_in_a_file() -> None:
    text = "services: {a: {command: x}}"
    stack = read([StackText("shop.yml", text)], Reading({}, name="shop"))
    assert placed("spec.networks[0].name: no", stack) == "network 'shop_default': no"


# ------------------------------------------------------------------------------- doctor


def said(node: str, applied: int = 41, **more: object) -> Diagnosis:
    return Diagnosis(
        question_id="q",
        node_id=NodeId(f"{node}-id"),
        plane="kernel",
        held_version=41,
        applied_version=applied,
        **more,  # type: ignore[arg-type]
    )


def test_the_doctor_finds_nothing(shell: Shell) -> None:
    diagnoses = (said("w1", facts=("3 networks", "bpf")), said("w2"))
    shell.control.diagnosis = c.DiagnoseNetworkResponse(version=41, diagnoses=diagnoses)
    lines = out(shell, "network doctor").splitlines()
    assert [columns(line) for line in lines] == [
        ["NODE", "PLANE", "VERSION", "STATUS", "FACTS"],
        ["w1", "kernel", "41 of 41", "as the managers have it", "3 networks, bpf"],
        ["w2", "kernel", "41 of 41", "as the managers have it"],
    ]
    assert shell.control.questions == [("", "")]
    found = json.loads(out(shell, "network doctor --format json"))
    assert (found["is_well"], found["nodes"][0]["facts"]) == (True, ["3 networks", "bpf"])


def test_the_doctor_tells_what_differs(shell: Shell) -> None:
    shell.control.diagnosis = c.DiagnoseNetworkResponse(
        version=41,
        diagnoses=(
            said("w1", problems=("web: port 80 is taken",), differences=("bridge br1 is gone",)),
            said("w2"),
        ),
        silent=(("w3", "no answer in 2 s"),),
        differences=("w2: its address is 10.0.0.3 here and 10.0.0.4 there",),
    )
    assert shell.skep("network doctor") == 1
    lines = shell.out.splitlines()
    assert columns(lines[1])[3] == "1 problem, 1 difference"
    assert columns(lines[3]) == ["w3", "-", "-", "silent"]
    assert lines[4:] == [
        "w1: can't put in force: web: port 80 is taken",
        "w1: differs: bridge br1 is gone",
        "w3: not heard: no answer in 2 s",
        "differs: w2: its address is 10.0.0.3 here and 10.0.0.4 there",
    ]
    assert shell.err == "skep: error: 2 of 3 nodes not as the managers have it\n"
    assert shell.skep("network doctor --format json") == 1
    assert json.loads(shell.out)["is_well"] is False


def test_the_doctor_sees_a_difference_that_no_node_sees(shell: Shell) -> None:
    shell.control.diagnosis = c.DiagnoseNetworkResponse(
        version=41, diagnoses=(said("w1"),), differences=("w2 is in the mesh, and not here",)
    )
    assert shell.skep("network doctor") == 1
    assert shell.err == "skep: error: the managers and 1 node don't agree\n"


def test_the_doctor_waits_a_little_for_a_node_that_is_behind(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(
        [
            c.DiagnoseNetworkResponse(version=41, diagnoses=(said("w1", 39), said("w2"))),
            # Meanwhile there is more to put in force, which is not waited for.
            c.DiagnoseNetworkResponse(version=44, diagnoses=(said("w1", 41), said("w2"))),
        ]
    )

    def answer(q: c.DiagnoseNetworkRequest) -> c.DiagnoseNetworkResponse:
        return next(answers)

    monkeypatch.setattr(shell.control, "on_DiagnoseNetwork", answer)
    lines = out(shell, "network doctor").splitlines()
    assert columns(lines[1])[2:] == ["41 of 44", "as the managers have it"]


def test_the_doctor_does_not_wait_for_good(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "DOCTOR_PATIENCE_S", 0.05)
    diagnoses = (said("w1", 39), said("w2"))
    shell.control.diagnosis = c.DiagnoseNetworkResponse(version=41, diagnoses=diagnoses)
    assert shell.skep("network doctor") == 1
    assert columns(shell.out.splitlines()[1])[2:] == ["39 of 41 (holds 41)", "behind by 2"]


# ---------------------------------------------------------------------------------- why


def answered(shell: Shell, answer: NameAnswer) -> None:
    shell.control.diagnosis = c.DiagnoseNetworkResponse(
        version=41, diagnoses=(said("w1", answer=answer),)
    )


def probe(shell: Shell, name: str, address: str, **more: object) -> Probe:
    row = task(shell, name)
    assert row.node_id is not None
    return Probe(
        task_id=TaskId(row.id),
        node_id=row.node_id,
        address=address,
        **more,  # type: ignore[arg-type]
    )


def test_why_tells_what_a_name_leads_to(shell: Shell) -> None:
    deploy(shell)
    answered(
        shell,
        NameAnswer(
            name="web",
            kind="vip",
            network="shop_back",
            service="shop_web",
            addresses=("10.0.1.2",),
            probes=(
                probe(shell, "shop_web.1", "10.0.1.5:80", latency_ns=MS * 3 // 10),
                probe(shell, "shop_web.2", "10.0.1.16:80", error="connection refused"),
            ),
        ),
    )
    assert out(shell, "network why web --from shop_db.1").splitlines() == [
        "web, for shop_db.1 on w1 (kernel plane): the virtual address of service shop_web on "
        "network shop_back",
        "  addresses  10.0.1.2",
        "  endpoints  shop_web.1 on w1  10.0.1.5:80   0.3 ms",
        "             shop_web.2 on w2  10.0.1.16:80  failed: connection refused",
        "  as of      version 41",
        "  -> nothing on w2 answers: see how it is there: skep network doctor",
    ]
    db = task(shell, "shop_db.1")
    assert shell.control.questions == [("web", db.id)]
    found = json.loads(out(shell, f"network why web --from {db.id[:8]} --format json"))
    assert found["endpoints"][0]["latency_s"] == pytest.approx(0.0003)
    assert found["advice"]


def test_why_tells_of_a_name_with_nobody_behind_it(shell: Shell) -> None:
    deploy(shell)
    nobody = NameAnswer(
        name="web", kind="tasks", network="shop_back", service="shop_web", why="no task is healthy"
    )
    answered(shell, nobody)
    lines = out(shell, "network why web --from shop_db.1").splitlines()
    assert lines[0].endswith("the tasks' addresses of service shop_web on network shop_back")
    assert lines[1:3] == ["  addresses  none", "  because    no task is healthy"]
    assert lines[-1] == "  -> no task of it is ready to serve: skep service why shop_web"
    failing = (probe(shell, "shop_web.1", "10.0.1.5:80", error="timed out"),)
    answered(shell, replace(nobody, kind="vip", why="", probes=failing))
    assert "none of 1 endpoint answers" in out(shell, "network why web --from shop_db.1")


def advice(shell: Shell, name: str, asker: str = "shop_db.1") -> str:
    answered(shell, NameAnswer(name=name, kind="unknown", why="no such name"))
    lines = out(shell, f"network why {name} --from {asker}").splitlines()
    assert lines[0] == f"{name}, for {asker} on w1 (kernel plane): no such name: no such name"
    assert lines[1] == "  as of      version 41"
    (last,) = lines[2:]
    return last.removeprefix("  -> ")


def test_why_says_what_to_do_about_an_unknown_name(shell: Shell) -> None:
    deploy(shell)
    shell.skep("network create lone")
    shell.skep("service create --name far --network name=lone,alias=distant -- serve")
    shell.skep("service create --name bare -- serve")
    elsewhere = (
        "service far is on lone, and shop_db on shop_back: names are known within a network: skep "
        "service update shop_db --network-add lone"
    )
    assert advice(shell, "far") == elsewhere
    assert advice(shell, "distant.") == elsewhere
    assert advice(shell, "tasks.far") == elsewhere
    assert advice(shell, "far.2") == elsewhere
    assert advice(shell, "bare") == (
        "service bare is on no network: skep service update bare --network-add shop_back"
    )
    assert advice(shell, "www") == "it is called www elsewhere; on shop_back its name is shop_web"
    assert advice(shell, "web").startswith("service shop_web is on shop_back, too: its addresses")
    assert advice(shell, "shop_wbe") == "did you mean shop_web?"
    assert advice(shell, "distnat") == f"did you mean distant? {elsewhere}"
    assert advice(shell, "zzz") == "names on shop_back are: db, shop_db, shop_web, web"
    assert advice(shell, "web", "bare.1") == (
        "bare is on no network, and names are known on networks alone: skep service update bare "
        "--network-add NETWORK"
    )


def test_why_needs_a_task_that_lives_and_an_answer(shell: Shell) -> None:
    deploy(shell)
    assert shell.skep("network why web --from nope.1") == 1
    assert shell.err == "skep: error: there is no task 'nope.1'\n"
    assert shell.skep("network why web --from shop_web") == 1
    assert "name one of its tasks, such as shop_web." in shell.err
    shell.control.diagnosis = c.DiagnoseNetworkResponse(
        version=41, silent=(("w1", "it follows no manager"),)
    )
    assert shell.skep("network why web --from shop_db.1") == 1
    assert "the netproxy of w1 did not say where 'web' leads: it follows no manager" in shell.err
    assert shell.skep("network why web") == 2
