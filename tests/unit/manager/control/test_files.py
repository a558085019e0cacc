"""Configs and secrets by the control API: created, used, shown, collected, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import pairs, replace
from skep.domain.control import DeployStackRequest, DeployStackResponse, RollbackServiceRequest
from skep.domain.filecalls import (
    ConfigView,
    CreateConfigRequest,
    CreateSecretRequest,
    SecretView,
)
from skep.domain.objects import Config, Revision, Secret, Service, UpdateState
from skep.domain.spec import DOCKER, RunSpec, ServiceSpec, StackSpec, TaskSpec
from skep.domain.storage import ConfigSpec, FileUse, SecretSpec
from skep.env import CallError, Code, Rejected
from skep.manager.control.core.files import (
    config_view,
    create_config,
    create_secret,
    of_stack,
    remove_config,
    remove_secret,
    secret_view,
)
from skep.manager.control.core.services import remove_service, rollback_service
from skep.manager.control.core.stacks import deploy_stack, remove_stack
from skep.manager.revisions import missing_file, roll_back
from tests.unit.manager.control.office import Office

# One whose tasks may have files and volumes.
SHOP: dict[str, Any] = {"stack": "shop", "is_versioned": True}


def config(
    office: Office, name: str = "conf", data: bytes = b"1", labels: Any = (), **of: Any
) -> ConfigView:
    spec = ConfigSpec(name=name, data=data, labels=labels)
    request = CreateConfigRequest(request_id="r", spec=spec, **of)
    return office.do(lambda tx: create_config(tx, request, office.new_id))


def secret(office: Office, name: str = "key", data: bytes = b"1", **of: Any) -> SecretView:
    request = CreateSecretRequest(request_id="r", spec=SecretSpec(name=name, data=data), **of)
    return office.do(lambda tx: create_secret(tx, request, office.new_id))


def using(
    name: str = "web", configs: tuple[str, ...] = (), secrets: tuple[str, ...] = (), **changes: Any
) -> ServiceSpec:
    run = RunSpec(
        image="app",
        command=("serve",),
        configs=tuple(FileUse(name=each, target=f"/etc/{each}") for each in configs),
        secrets=tuple(FileUse(name=each, target=each) for each in secrets),
    )
    return ServiceSpec(name=name, task=TaskSpec(run=run, engine=DOCKER), **changes)


def deploy(office: Office, *services: ServiceSpec) -> DeployStackResponse:
    request = DeployStackRequest(request_id="r", spec=StackSpec(name="shop", services=services))
    return office.do(lambda tx: deploy_stack(tx, request, office.new_id))


def settle_update(office: Office, name: str = "web") -> None:
    """The update is over, and nothing goes back to the spec before by itself."""
    of = office.service(name)
    assert of.update is not None
    done = replace(of.update, state=UpdateState.COMPLETED)
    office.do(lambda tx: tx.update(replace(of, update=done)))


def forget_revisions(office: Office, name: str = "web") -> None:
    """Those before the present one are no longer kept."""
    of = office.service(name)
    for row in tuple(office.tables.revisions_of(of.id)):
        if row.number < of.revision:
            office.do(lambda tx, row=row: tx.remove(Revision, row.id))


def config_names(office: Office) -> list[str]:
    return sorted(row.name for row in office.tables.all(Config))


def ids(of: Service) -> list[str]:
    return [use.id for use in of.spec.task.run.configs]


# ---------------------------------------------------------------------------------- creating


def test_a_config_is_created_once() -> None:
    office = Office()
    made = config(office, data=b"some", labels=pairs({"tier": "web"})).config
    assert (made.id, made.name, made.spec.labels) == ("id1", "conf", (("tier", "web"),))
    [row] = office.tables.all(Config)
    assert (row.spec.data, row.stack, row.family) == (b"some", "", "")
    with pytest.raises(CallError, match=r"spec\.name: a config called 'conf' exists, and can't be"):
        config(office)
    secret(office, "conf")


def test_data_go_out_only_where_somebody_asks_for_one_config() -> None:
    office = Office()
    assert config(office, data=b"some").config.spec.data == b""
    [row] = office.tables.all(Config)
    assert config_view(office.tables, row).config.spec.data == b""
    assert config_view(office.tables, row, has_data=True).config.spec.data == b"some"


NAMES = ["a" * 64, "a", "A1", "my-app_conf.v2", "0"]
NO_NAMES = {
    "": "a name is required",
    "a" * 65: "has more than 64 characters",
    "-a": "can't be a config's name; use letters",
    "a.": "can't be",
    "a/b": "can't be",
    "a b": "can't be",
    "a\n": "can't be",
    "ä": "can't be",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_swarms(name: str) -> None:
    office = Office()
    assert config(office, name).config.name == name
    assert secret(office, name).name == name


@pytest.mark.parametrize("name", NO_NAMES)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(Rejected, match=NO_NAMES[name]) as caught:
        config(Office(), name)
    assert caught.value.field == "spec.name"


def test_content_has_limits_which_are_told() -> None:
    office = Office()
    config(office, "big", b"x" * 1000 * 1024)
    secret(office, "big", b"x" * 500 * 1024)
    with pytest.raises(Rejected, match=r"spec\.data: config 'c' has 1024001 bytes, the limit is "):
        config(office, "c", b"x" * (1000 * 1024 + 1))
    with pytest.raises(Rejected, match=r"the limit is 512000 \(500 KiB\)"):
        secret(office, "c", b"x" * (500 * 1024 + 1))
    with pytest.raises(Rejected, match="config 'c' is empty"):
        config(office, "c", b"")


# ----------------------------------------------------------------------------- of stack files


def test_the_same_content_is_the_same_config() -> None:
    office = Office()
    first = config(office, "shop_conf", b"1", **SHOP).config
    assert (first.name, first.stack, first.family) == ("shop_conf", "shop", "shop_conf")
    assert config(office, "shop_conf", b"1", **SHOP).config.id == first.id
    second = config(office, "shop_conf", b"2", **SHOP).config
    third = config(office, "shop_conf", b"3", **SHOP).config
    assert (second.name, third.name) == ("shop_conf-2", "shop_conf-3")
    assert second.spec.name == "shop_conf-2"
    assert config(office, "shop_conf", b"2", **SHOP).config.id == second.id
    assert config(office, "shop_conf", b"1", **SHOP).config.id == first.id
    assert len(config_names(office)) == 3


def test_labels_of_the_same_content_are_changed_in_place() -> None:
    office = Office()
    first = config(office, "shop_conf", **SHOP).config
    version = office.database.version
    relabelled = config(office, "shop_conf", labels=pairs({"a": "b"}), **SHOP).config
    assert (relabelled.id, relabelled.spec.labels) == (first.id, (("a", "b"),))
    assert office.database.version == version + 1
    [row] = office.tables.all(Config)
    assert row.spec.data == b"1"


def test_a_family_has_nothing_of_others() -> None:
    office = Office()
    config(office, "shop_conf", b"1")
    config(office, "shop_conf-2", b"1", stack="else", is_versioned=True)
    assert config(office, "shop_conf", b"1", **SHOP).config.name == "shop_conf-3"
    long = "n" * 64
    assert secret(office, long, b"1", **SHOP).name == long
    assert secret(office, long, b"2", **SHOP).name == f"{'n' * 62}-2"
    assert secret(office, long, b"1", **SHOP).name == long


def test_what_is_versioned_is_of_a_stack() -> None:
    with pytest.raises(Rejected, match="stack: '' can't be a stack's name"):
        config(Office(), is_versioned=True)
    with pytest.raises(Rejected, match="stack: 'no stack' can't be"):
        secret(Office(), stack="no stack")


def test_a_stacks_configs_are_listed_also_before_there_is_a_stack() -> None:
    office = Office()
    config(office, "b", **SHOP)
    config(office, "a", **SHOP)
    config(office, "other")
    rows = of_stack(office.tables, Config, "shop")
    assert [row.name for row in rows] == ["a", "b"]
    assert len(of_stack(office.tables, Config, None)) == 3
    with pytest.raises(CallError, match="there is no stack 'nosuch'"):
        of_stack(office.tables, Config, "nosuch")
    deploy(office, using("shop_web", ("a", "b")))
    assert of_stack(office.tables, Secret, "shop") == []


# ------------------------------------------------------------------------------------- using


def test_specs_get_the_ids_of_what_they_name() -> None:
    office = Office()
    conf, key = config(office).config, secret(office)
    run = office.create(using(configs=("conf",), secrets=("key",))).spec.task.run
    assert run.configs == (FileUse(name="conf", id=conf.id, target="/etc/conf"),)
    assert run.secrets == (FileUse(name="key", id=key.id, target="key"),)


def test_what_is_not_there_is_refused_with_its_place() -> None:
    office = Office()
    config(office, "a")
    with pytest.raises(Rejected) as caught:
        deploy(office, using("shop_web", configs=("a", "x")))
    assert caught.value.field == "spec.services[0].task.run.configs[1].name"
    assert str(caught.value) == (
        "spec.services[0].task.run.configs[1].name: there is no config 'x'; create it with "
        "`skep config create x FILE`"
    )
    with pytest.raises(Rejected, match=r"^spec\.task\.run\.secrets\[0\]\.name: there is no secret"):
        office.create(using(secrets=("a",)))
    office.create(using())
    with pytest.raises(Rejected, match="there is no secret 'a'"):
        office.update(using(secrets=("a",)))


def test_the_same_spec_changes_nothing() -> None:
    office = Office()
    config(office)
    before = office.create(using(configs=("conf",)))
    assert office.update(using(configs=("conf",))) == office.service()
    assert office.update(before.spec).revision == 1
    config(office, "other")
    office.update(using(configs=("conf", "other")))
    turned = office.update(using(configs=("other", "conf")))
    assert (turned.revision, turned.task_revision) == (3, 2)


def test_another_object_of_the_same_name_is_a_change() -> None:
    office = Office()
    first = config(office).config
    spec = office.create(using(configs=("conf",))).spec
    office.update(using())
    settle_update(office)
    office.remove(remove_config, "conf")
    second = config(office).config
    with pytest.raises(Rejected, match=r"configs\[0\]\.id: there is no config 'conf' with the id "):
        office.update(spec)
    again = office.update(using(configs=("conf",)))
    assert ids(again) == [second.id] != [first.id]
    assert again.task_revision == again.revision == 3


# ---------------------------------------------------------------------------------- removing


def test_what_is_used_stays() -> None:
    office = Office()
    config(office)
    secret(office)
    office.create(using("web", ("conf",), ("key",)))
    office.create(using("api", ("conf",)))
    with pytest.raises(CallError, match="config 'conf' is used by services api, web; remove") as e:
        office.remove(remove_config, "conf")
    assert e.value.code is Code.FAILED_PRECONDITION
    with pytest.raises(CallError, match="secret 'key' is used by service web;"):
        office.remove(remove_secret, "key")
    [row] = office.tables.all(Config)
    assert config_view(office.tables, row).services == ("api", "web")
    office.remove(remove_service, "web")
    office.remove(remove_service, "api")
    assert office.remove(remove_config, "conf").name == "conf"
    assert office.remove(remove_secret, "key").name == "key"
    assert not config_names(office)


def test_what_an_update_may_go_back_to_stays() -> None:
    office = Office()
    config(office)
    office.create(using(configs=("conf",)))
    office.update(using())
    with pytest.raises(CallError, match="config 'conf' is of the spec that service web may go"):
        office.remove(remove_config, "conf")
    settle_update(office)
    office.remove(remove_config, "conf")
    config(office)
    request = RollbackServiceRequest(request_id="r", ref="web")
    with pytest.raises(CallError, match=r"^revision: config 'conf' of that time is gone; ") as e:
        office.do(lambda tx: rollback_service(tx, request))
    assert e.value.code is Code.FAILED_PRECONDITION
    [base] = [row for row in office.tables.all(Revision) if row.number == 1]
    assert missing_file(office.tables, base.spec) == "config 'conf' of that time is gone"


def test_a_rollback_has_the_very_objects_of_that_time() -> None:
    office = Office()
    first = config(office, "conf").config
    config(office, "new")
    office.create(using(configs=("conf",)))
    office.update(using(configs=("new",)))
    [base] = [row for row in office.tables.all(Revision) if row.number == 1]
    back = office.do(
        lambda tx: roll_back(tx, office.service(), base, "it failed", is_automatic=True)
    )
    assert (ids(back), back.task_revision) == ([first.id], 1)


def test_what_does_not_exist_can_not_be_removed() -> None:
    office = Office()
    secret(office)
    with pytest.raises(CallError, match="there is no config 'key'"):
        office.remove(remove_config, "key")
    assert office.remove(remove_secret, "id1").name == "key"


# ---------------------------------------------------------------------------- with their stack


def test_a_deploy_collects_what_nothing_can_use_any_more() -> None:
    office = Office()
    config(office, "by_hand")
    config(office, "shop_hand", stack="shop")
    config(office, "shop_conf", b"1", **SHOP)
    secret(office, "shop_key", b"1", **SHOP)
    config(office, "else", b"1", stack="else", is_versioned=True)
    deploy(office, using("web", ("shop_conf",), ("shop_key",)))
    config(office, "shop_conf", b"2", **SHOP)
    deploy(office, using("web", ("shop_conf-2",), ("shop_key",)))
    assert "shop_conf" in config_names(office), "a kept revision has it"
    settle_update(office)
    forget_revisions(office)
    deploy(office, using("web", ("shop_conf-2",)))
    assert config_names(office) == ["by_hand", "else", "shop_conf-2", "shop_hand"]
    assert [row.name for row in office.tables.all(Secret)] == ["shop_key"]
    settle_update(office)
    forget_revisions(office)
    deploy(office, using("web", ("shop_conf-2",)))
    assert not list(office.tables.all(Secret))


def test_a_stack_goes_with_its_configs_and_secrets() -> None:
    office = Office()
    config(office, "by_hand")
    config(office, "shop_conf", **SHOP)
    secret(office, "shop_key", **SHOP)
    deploy(office, using("shop_web", ("shop_conf", "by_hand"), ("shop_key",)))
    office.create(using("other", ("shop_conf",)))
    with pytest.raises(CallError, match="stack 'shop': config 'shop_conf' is used by service oth"):
        office.remove(remove_stack, "shop")
    assert not office.service("shop_web").is_removing
    office.remove(remove_service, "other")
    office.remove(remove_stack, "shop")
    assert config_names(office) == ["by_hand"]
    assert not list(office.tables.all(Secret))


# ----------------------------------------------------------------------------------- secrecy


def test_no_form_of_a_secret_shows_its_data() -> None:
    office = Office()
    view = secret(office, data=b"swordfish")
    [row] = office.tables.all(Secret)
    request = CreateSecretRequest(request_id="r", spec=row.spec)
    for shown in (view, row, row.spec, request, secret_view(office.tables, row)):
        assert "swordfish" not in repr(shown)
        assert "swordfish" not in str(shown)
    assert repr(row.spec) == "SecretSpec(name='key', data=..., labels=())"
