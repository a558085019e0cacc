"""Options of `service create` and `service update`."""

from __future__ import annotations

import re

import pytest

from skep.cli import flagvalues, parser, specflags
from skep.cli.errors import Failure
from skep.cli.mounttext import mount_text, use_text
from skep.domain.base import replace
from skep.domain.container import ContainerSpec, Ulimit
from skep.domain.spec import (
    EndpointMode,
    ExposedPort,
    FailureAction,
    HealthCheck,
    LogPolicy,
    NetworkUse,
    Placement,
    Port,
    PortMode,
    ProxyProtocol,
    Resources,
    RestartCondition,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.storage import FileUse, Mount, MountKind

S = 1_000_000_000
PLAIN = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(args=("serve", "-v"))))


def create(*words: str) -> ServiceSpec:
    options = ["service", "create", "--name", "web", *words, "--", "serve", "-v"]
    return specflags.created(parser.parse(options))


def update(spec: ServiceSpec, *words: str) -> ServiceSpec:
    options = parser.parse(["service", "update", "web", *words])
    return specflags.edited(options)(spec)


FULL_FLAGS = (
    "--replicas 4 --image shop:1 --publish 8080:80 -p 81 --env A=1 --env B= --label "
    "team=shop --constraint node.role==worker --workdir /srv --user me --stop-signal INT "
    "--stop-grace-period 3s --health-cmd probe --health-interval 2s --health-timeout 1s "
    "--health-start-period 5s --health-start-interval 100ms --health-retries 2 "
    "--restart-condition on-failure --restart-delay 0s --restart-max-attempts 3 "
    "--restart-window 1m --limit-cpu 0.5 --limit-memory 64M --limit-pids 10 --reserve-cpu "
    "0.1 --reserve-memory 8M --placement-pref spread=node.labels.zone --replicas-max-per-node 2 "
    "--log-opt max-size=1m --log-opt max-file=3 --update-parallelism 0 --update-delay 1s "
    "--update-monitor 0s --update-max-failure-ratio .25 --update-failure-action rollback "
    "--update-order start-first --update-healthy-deadline 10s --rollback-parallelism 2 "
    "--rollback-failure-action continue --network name=front,alias=www --expose 9100"
)
FULL = ServiceSpec(
    name="web",
    replicas=4,
    labels=(("team", "shop"),),
    ports=(Port(target=80, published=8080), Port(target=81)),
    task=TaskSpec(
        run=RunSpec(
            image="shop:1",
            args=("serve", "-v"),
            env=(("A", "1"), ("B", "")),
            working_dir="/srv",
            user="me",
            stop_signal="SIGINT",
            stop_grace_ns=3 * S,
            health=HealthCheck(
                test=("CMD-SHELL", "probe"),
                interval_ns=2 * S,
                timeout_ns=S,
                start_period_ns=5 * S,
                start_interval_ns=S // 10,
                retries=2,
            ),
            log=LogPolicy(max_bytes=2**20, max_files=3),
        ),
        restart=RestartPolicy(
            condition=RestartCondition.ON_FAILURE, delay_ns=0, max_attempts=3, window_ns=60 * S
        ),
        limits=Resources(cpu_nano=S // 2, memory_bytes=64 * 2**20, pids=10),
        reservations=Resources(cpu_nano=S // 10, memory_bytes=8 * 2**20),
        placement=Placement(
            constraints=("node.role==worker",),
            preferences=("node.labels.zone",),
            max_replicas_per_node=2,
        ),
        networks=(NetworkUse(network="front", aliases=("www",)),),
    ),
    exposed=(ExposedPort(target=9100),),
    update=UpdatePolicy(
        parallelism=0,
        delay_ns=S,
        monitor_ns=0,
        max_failure_ratio=0.25,
        failure_action=FailureAction.ROLLBACK,
        order=UpdateOrder.START_FIRST,
        healthy_deadline_ns=10 * S,
    ),
    rollback=UpdatePolicy(parallelism=2, failure_action=FailureAction.CONTINUE),
)


def test_create_with_nothing_and_with_everything() -> None:
    assert create() == PLAIN
    assert create(*FULL_FLAGS.split()) == FULL


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    assert update(FULL) == FULL
    changed = update(FULL, "--replicas", "0", "--image", "shop:2", "--limit-pids", "0")
    assert changed.replicas == 0
    assert changed.task.run.image == "shop:2"
    assert changed.task.limits == Resources(cpu_nano=S // 2, memory_bytes=64 * 2**20)
    assert changed.task.run.health == FULL.task.run.health


def test_lists_are_added_to_and_removed_from() -> None:
    flags = (
        "--env-add A=2 --env-rm B --label-add x=y --label-rm team --publish-add 9090:80 "
        "--publish-rm 8080 --constraint-rm node.role==worker --constraint-add node.id!=x --force"
    )
    changed = update(FULL, *flags.split(), "--", "other")
    assert changed.task.run.env == (("A", "2"),)
    assert changed.labels == (("x", "y"),)
    assert changed.ports == (Port(target=81), Port(target=80, published=9090))
    assert changed.task.placement.constraints == ("node.id!=x",)
    assert (changed.task.run.command, changed.task.run.args) == ((), ("other",))
    assert changed.task.force_update == 1


def test_a_port_is_removed_in_the_form_it_was_added_in() -> None:
    both = replace(FULL, ports=(Port(target=80, published=8080), Port(target=80, published=8081)))
    assert update(both, "--publish-rm", "8080:80").ports == (Port(target=80, published=8081),)
    assert update(both, "--publish-rm", "8081/tcp").ports == (Port(target=80, published=8080),)
    assert update(both, "--publish-rm", "80").ports == ()
    with pytest.raises(Failure, match="it has 8080:80/tcp, 8081:80/tcp"):
        update(both, "--publish-rm", "8080:81")


def test_ports_have_a_long_form() -> None:
    changed = update(FULL, "--publish-add", "published=9090,target=80,mode=host,protocol=tcp")
    assert changed.ports[-1] == Port(target=80, published=9090, mode=PortMode.HOST)
    assert update(changed, "--publish-rm", "target=80,published=9090") == FULL
    # A new port takes the place of one with the same number outside, and is there once.
    changed = update(FULL, "--publish-add", "8080:90", "--publish-add", "81")
    assert changed.ports == (Port(target=90, published=8080), Port(target=81))


def test_networks_have_aliases_and_the_last_word_counts() -> None:
    found = create(
        *("--network", "back", "--network", "name=front,alias=www,alias=shop,alias=www"),
        *("--network", "name=back,alias=db"),
    )
    assert found.task.networks == (
        NetworkUse(network="front", aliases=("www", "shop")),
        NetworkUse(network="back", aliases=("db",)),
    )
    changed = update(found, "--network-add", "back", "--network-add", "more")
    assert [(use.network, use.aliases) for use in changed.task.networks] == [
        ("front", ("www", "shop")),
        ("back", ()),
        ("more", ()),
    ]
    changed = update(found, "--network-rm", "front")
    assert [use.network for use in changed.task.networks] == ["back"]
    # Away and on again is another way to say something else of it.
    changed = update(found, "--network-rm", "front", "--network-add", "front")
    assert [(use.network, use.aliases) for use in changed.task.networks] == [
        ("back", ("db",)),
        ("front", ()),
    ]


def test_ports_that_say_who_the_client_is() -> None:
    words = "published=80,target=8080,proxy-protocol=v2,accept-proxy-protocol=true"
    (port,) = create("--publish", words).ports
    assert port == Port(
        target=8080, published=80, proxy_protocol=ProxyProtocol.V2, accepts_proxy_protocol=True
    )
    assert flagvalues.ports("--publish", [flagvalues.port_text(port)]) == (port,)
    (port,) = create("--publish", "53:53/udp").ports
    assert flagvalues.port_text(port) == "53:53/udp"


def test_ports_for_other_services() -> None:
    found = create("--expose", "9000-9001", "--expose", "53/udp", "--expose", "9000")
    texts = [flagvalues.exposed_text(port) for port in found.exposed]
    assert texts == ["9000/tcp", "9001/tcp", "53/udp"]
    changed = update(found, "--expose-rm", "9000", "--expose-add", "1", "--expose-add", "53/udp")
    assert [port.target for port in changed.exposed] == [9001, 53, 1]


def test_a_name_may_stand_for_the_tasks_themselves() -> None:
    found = create("--endpoint-mode", "dnsrr")
    assert found.endpoint_mode is EndpointMode.DNSRR
    assert update(found, "--replicas", "2").endpoint_mode is EndpointMode.DNSRR
    assert update(found, "--endpoint-mode", "vip").endpoint_mode is EndpointMode.VIP
    on_nodes = "published=80,target=80,mode=host"
    assert create("--endpoint-mode", "dnsrr", "--publish", on_nodes).ports
    with pytest.raises(Failure, match="no port can be published on every node, but 80:80/tcp is"):
        create("--endpoint-mode", "dnsrr", "--publish", "80:80")
    with pytest.raises(Failure, match="publish it with mode=host, or use --endpoint-mode vip"):
        update(FULL, "--endpoint-mode", "dnsrr")


def test_a_new_command_is_all_that_runs_and_args_keep_the_entrypoint() -> None:
    changed = update(PLAIN, "--entrypoint", "env -i", "--args", "serve 'a b'")
    assert changed.task.run.command == ("env", "-i")
    assert changed.task.run.args == ("serve", "a b")
    again = update(changed, "--args", "x")
    assert (again.task.run.command, again.task.run.args) == (("env", "-i"), ("x",))
    again = update(changed, "--", "x")
    assert (again.task.run.command, again.task.run.args) == ((), ("x",))
    with pytest.raises(Failure, match="exclude each other"):
        update(PLAIN, "--args", "x", "--", "y")


def test_preferences_are_added_once_and_removed() -> None:
    flags = "--placement-pref-add spread=node.labels.rack --placement-pref-add spread="
    changed = update(FULL, *flags.split()[:2])
    assert changed.task.placement.preferences == ("node.labels.zone", "node.labels.rack")
    assert update(changed, *flags.split()[:2]) == changed
    gone = update(changed, "--placement-pref-rm", "spread=node.labels.zone")
    assert gone.task.placement.preferences == ("node.labels.rack",)
    assert update(FULL, "--replicas-max-per-node", "0").task.placement.max_replicas_per_node is None


def test_a_constraint_is_the_same_with_other_blanks() -> None:
    assert update(FULL, "--constraint-add", "node.role == worker") == FULL
    changed = update(FULL, "--constraint-rm", "node.role == worker")
    assert changed.task.placement.constraints == ()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--env-rm C", "--env-rm: there is no 'C'; it has A, B"),
        ("--label-rm x", "--label-rm: there is no 'x'; it has team"),
        ("--publish-rm 82", "--publish-rm: there is no '82/tcp'; it has 8080:80/tcp, 81/tcp"),
        (
            "--publish-rm target=7,published=8,mode=host",
            "there is no 'published=8,target=7,mode=host,protocol=tcp'",
        ),
        ("--constraint-rm node.id==x", "there is no 'node.id==x'; it has node.role==worker"),
        ("--placement-pref-rm spread=node.labels.a", "it has node.labels.zone"),
        ("--network-rm back", "--network-rm: there is no 'back'; it has front"),
        ("--expose-rm 81", "--expose-rm: there is no '81/tcp'; it has 9100/tcp"),
    ],
)
def test_removing_what_is_not_there_names_what_is(flags: str, says: str) -> None:
    with pytest.raises(Failure) as caught:
        update(FULL, *flags.split())
    assert says in str(caught.value)
    assert caught.value.code == 2
    bare = "it has none"
    with pytest.raises(Failure, match=bare):
        update(PLAIN, *flags.split())


def test_an_update_of_nothing_is_known() -> None:
    def is_empty(*words: str) -> bool:
        return specflags.is_empty(parser.parse(["service", "update", "web", *words]))

    assert is_empty()
    assert is_empty("-d", "-q", "--rollback", "--timeout", "3s")
    for words in (
        ("--replicas", "0"),
        ("--force",),
        ("--env-rm", "A"),
        ("--", "x"),
        ("--args", ""),
    ):
        assert not is_empty(*words)


def test_a_health_check_of_nothing_is_refused() -> None:
    for line in ("", " "):
        with pytest.raises(Failure, match="--health-cmd: the command is empty"):
            create("--health-cmd", line)


def test_a_health_check_is_turned_off() -> None:
    assert update(FULL, "--no-healthcheck").task.run.health == HealthCheck(test=("NONE",))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--publish 0:80", "--publish: port 0 is out of range"),
        ("--publish 53/sctp", "--publish: protocol 'sctp' is not supported yet; use 'tcp' or"),
        ("--expose 80:80", "--expose: '80:80' is published, not exposed"),
        ("--expose x", "--expose: 'x' is not a port number; an exposed port is '80' or '53/udp'"),
        ("--network name=", "--network: 'name=' is not understood; write it like 'name=front,"),
        ("--network alias=a", "--network: a network needs name="),
        ("--network name=a,driver-opt=b=c", "'driver-opt=b=c' is not understood"),
        ("--network name=a,name=b", "'name=b' is not understood"),
        ("--network a,b", "--network: 'a,b' is no network's name; give the option several times"),
        ("--endpoint-mode dns", "--endpoint-mode: 'dns' is not one of vip and dnsrr"),
        ("--env =x", "--env: '=x' has no name; write NAME=VALUE"),
        ("--label =x", "--label: '=x' has no name; write NAME=VALUE"),
        ("--limit-pids 99999999999999999999", "is too large; the limit is 2147483647"),
        ("--env A", "--env: 'A' has no value; write NAME=VALUE"),
        ("--limit-memory much", "--limit-memory: 'much' is not a size"),
        ("--restart-delay 5", "--restart-delay: '5' has no unit"),
        ("--restart-condition always", "'always' is not one of none, on-failure and any"),
        ("--update-order fast", "--update-order: 'fast' is not one of stop-first and start-first"),
        ("--rollback-failure-action rollback", "'rollback' is not one of pause and continue"),
        ("--update-max-failure-ratio 1.5", "write a number from 0 to 1"),
        ("--update-max-failure-ratio nan", "write a number from 0 to 1"),
        ("--update-parallelism -1", "out of range"),
        ("--publish published=80", "a port needs target="),
        ("--publish target=80,mode=any", "'any' is not one of ingress and host"),
        ("--publish target=80,target=81", "each once"),
        ("--publish target=80,protocol=udp,proxy-protocol=v1", "the PROXY protocol is for conn"),
        ("--publish target=80,proxy-protocol=v3", "'v3' is not one of none, v1 and v2"),
        ("--publish target=80,accept-proxy-protocol=so", "'so' is neither true nor false"),
        ("--placement-pref node.labels.x", "write spread=node.labels.NAME"),
        ("--log-opt max-age=3", "--log-opt: 'max-age' is not one of max-size, max-file"),
        ("--log-opt max-size=x", "--log-opt max-size: 'x' is not a size"),
        ("--health-interval 1s", "add --health-cmd"),
        ("--health-cmd x --no-healthcheck", "exclude each other"),
        ("--health-cmd x --health-retries 0", "--health-retries: 0 is out of range"),
    ],
)
def test_bad_options_are_named(flags: str, says: str) -> None:
    with pytest.raises(Failure) as caught:
        create(*flags.split())
    assert says in str(caught.value)
    assert caught.value.code == 2


# ------------------------------------------------------------------------------- containers


def contained(*words: str) -> RunSpec:
    options = parser.parse(["service", "create", "--name", "x", *words])
    return specflags.created(options, "docker").task.run


def test_a_container_s_first_word_is_its_image() -> None:
    run = contained("nginx:1.27", "--", "nginx", "-g", "daemon off;")
    assert (run.image, run.args) == ("nginx:1.27", ("nginx", "-g", "daemon off;"))
    named = contained("--image", "nginx", "--", "sh")
    assert (named.image, named.args) == ("nginx", ("sh",))
    with pytest.raises(Failure, match="the image is missing"):
        contained()


def test_what_follows_the_first_word_is_the_command_s_own() -> None:
    run = contained("--env=A=1", "-l", "a=b", "nginx", "sh", "-c", "x", "-p", "80", "--", "--tty")
    assert run.args == ("sh", "-c", "x", "-p", "80", "--", "--tty")
    assert (run.image, run.env, run.container.is_tty) == ("nginx", (("A", "1"),), False)
    options = parser.parse(["exec", "-ieA=1", "-it", "-ie", "B=2", "web.1", "sh", "-i", "-u", "x"])
    assert (options.task, options.command) == ("web.1", ["sh", "-i", "-u", "x"])
    assert (options.env, options.tty, options.user) == (["A=1", "B=2"], True, "")
    assert parser.parse(["exec", "web.1", "--", "sh", "--", "x"]).command == ["sh", "--", "x"]


def test_an_option_that_must_be_given_is_not_taken_from_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parser.parse(["service", "create", "nginx", "--name", "web"])
    assert "--name stands in the command to run; give it before 'nginx'" in capsys.readouterr().err
    words = ["service", "create", "--name=web", "run", "--name", "x"]
    assert parser.parse(words).command == ["run", "--name", "x"]


def test_what_a_container_has() -> None:
    run = contained(
        *("--mount", "type=bind,src=/srv,dst=/data,ro", "--mount", "source=v,target=/v,movable"),
        *("--mount", "type=tmpfs,target=/tmp,tmpfs-size=16m,tmpfs-mode=1777"),
        *("--config", "app.json", "--secret", "source=key,target=/k,uid=5,mode=0400"),
        *("--cap-add", "NET_ADMIN", "--sysctl", "net.core.somaxconn=9", "--ulimit", "nofile=1:2"),
        *("--host", "db:10.0.0.1", "--dns", "1.1.1.1", "--init", "--read-only", "--tty"),
        *("--container-label", "a=b", "--network", "host", "web:1"),
    )
    assert run.mounts == (
        Mount(kind=MountKind.BIND, source="/srv", target="/data", is_read_only=True),
        Mount(kind=MountKind.VOLUME, source="v", target="/v", is_movable=True),
        Mount(kind=MountKind.TMPFS, target="/tmp", size_bytes=16 << 20, mode=0o1777),
    )
    assert run.configs == (FileUse(name="app.json"),)
    assert run.secrets == (FileUse(name="key", target="/k", uid="5", mode=0o400),)
    assert run.container == ContainerSpec(
        network_mode="host",
        labels=(("a", "b"),),
        dns=("1.1.1.1",),
        extra_hosts=("db:10.0.0.1",),
        init=True,
        is_read_only=True,
        is_tty=True,
        cap_add=("NET_ADMIN",),
        sysctls=(("net.core.somaxconn", "9"),),
        ulimits=(Ulimit(name="nofile", soft=1, hard=2),),
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--mount type=bind,source=/x", "target=PATH is missing"),
        ("--mount type=image,target=/x", "type: 'image' is not one of volume, bind and tmpfs"),
        ("--mount target=/x,color=red", "'color' is none of"),
        ("--secret target=/x", "source=NAME is missing"),
        ("--ulimit nofile", "as in nofile=1024:4096"),
        ("--network host --network front", "can't be had with other networks"),
    ],
)
def test_bad_words_about_containers_are_named(words: str, told: str) -> None:
    with pytest.raises(Failure, match=re.escape(told)):
        contained(*words.split(), "web:1")


def test_an_update_adds_mounts_and_files_and_takes_them_away() -> None:
    spec = ServiceSpec(name="x", task=TaskSpec(run=contained("--config", "a", "web:1")))
    changed = update(spec, "--config-rm", "a", "--secret-add", "key", "--mount-add", "target=/d")
    run = changed.task.run
    assert (run.configs, run.secrets) == ((), (FileUse(name="key"),))
    assert [mount.target for mount in run.mounts] == ["/d"]
    assert update(changed, "--mount-rm", "/d").task.run.mounts == ()
    with pytest.raises(Failure, match="there is no 'b'; it has none"):
        update(changed, "--config-rm", "b")


@pytest.mark.parametrize(
    "mount",
    [
        Mount(
            kind=MountKind.BIND,
            source="/srv",
            target="/data",
            is_read_only=True,
            propagation="rslave",
            creates_host_path=True,
        ),
        Mount(
            kind=MountKind.VOLUME,
            source="v",
            target="/v",
            is_movable=True,
            is_no_copy=True,
            subpath="a/b",
            driver="nfs",
            driver_options=(("device", ":/x=y"), ("o", "rw")),
            labels=(("a", "b"), ("c", "")),
        ),
        Mount(
            kind=MountKind.TMPFS,
            target="/t",
            driver_options=(("exec", ""), ("uid", "5")),
            size_bytes=1000,
            mode=0o700,
        ),
    ],
    ids=lambda mount: mount.kind.value,
)
def test_a_mount_s_text_means_that_mount(mount: Mount) -> None:
    assert contained("--mount", mount_text(mount), "web:1").mounts == (mount,)


def test_a_file_s_text_means_that_file() -> None:
    uses = (
        FileUse(name="a", target="/etc/a"),
        FileUse(name="b", target="x", uid="5", gid="6", mode=0o400),
    )
    texts = [use_text(use) for use in uses]
    assert contained("--config", texts[0], "--config", texts[1], "web:1").configs == uses
