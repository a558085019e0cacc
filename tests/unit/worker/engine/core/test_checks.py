from __future__ import annotations

import pytest

from skep.domain.signals import parse_signal, signal_name
from skep.domain.spec import HealthCheck, RunSpec, ServiceSpec, TaskSpec
from skep.env import Rejected
from skep.worker.engine.core.checks import check_spec


@pytest.mark.parametrize(
    ("run", "field", "words"),
    [
        (RunSpec(), "command", 'engine "process" needs `command`'),
        (RunSpec(command=("", "x")), "command", 'engine "process" needs `command`'),
        (RunSpec(image="nginx"), "image", 'engine "process" .* image "nginx" .* container engine'),
        (RunSpec(command=("a", "b\0")), "command", "zero byte"),
        (RunSpec(args=("b\0",)), "args", "zero byte"),
        (RunSpec(command=("a",), env=(("A=B", ""),)), "env", '"A=B"'),
        (RunSpec(command=("a",), env=(("A", "\0"),)), "env", "zero byte"),
        (RunSpec(command=("a",), user="\0"), "user", "zero byte"),
        (RunSpec(command=("a",), working_dir="srv"), "working_dir", "must start with /"),
        (RunSpec(command=("a",), stop_signal="SIGNOPE"), "stop_signal", '"SIGNOPE"; SIGTERM is'),
        (
            RunSpec(command=("a",), health=HealthCheck(test=("CMD", "\0"))),
            "health.test",
            "zero byte",
        ),
        (RunSpec(command=("a", "{{.X}}")), "command[1]", "unknown template {{.X}}"),
    ],
)
def test_what_no_process_engine_can_run(run: RunSpec, field: str, words: str) -> None:
    with pytest.raises(Rejected, match=words) as caught:
        check_spec(ServiceSpec(name="web", task=TaskSpec(run=run)))
    assert caught.value.field == f"spec.task.run.{field}"


def test_an_image_beside_a_command_is_a_name_and_no_more() -> None:
    run = RunSpec(image="shop:1.0", command=("serve",), args=("-v",), working_dir="/srv")
    check_spec(ServiceSpec(name="web", task=TaskSpec(run=run)))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("2", 2),
        ("SIGRTMIN+3", 37),
        ("SIGRTMIN", 34),
        ("SIGQUIT", 3),
    ],
)
def test_signals_by_name(text: str, number: int) -> None:
    assert parse_signal(text, "f") == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGRTMIN+99", "SIGTERM+1", "-1", "SIGRTMIN+x"])
def test_signals_that_do_not_exist(text: str) -> None:
    with pytest.raises(Rejected):
        parse_signal(text, "f")


def test_names_of_signals() -> None:
    assert [signal_name(n) for n in (9, 37, 99)] == ["SIGKILL", "SIGRTMIN+3", "99"]
