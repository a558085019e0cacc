"""Where what workers are told comes from."""

from __future__ import annotations

from skep.domain.base import ConfigId, RegistryId, SecretId, ServiceId, replace
from skep.domain.objects import Config, Registry, Revision, Secret
from skep.domain.session import FileKind, GivenFile, GivenLogin
from skep.domain.spec import Port
from skep.domain.states import TaskState
from skep.domain.storage import ConfigSpec, SecretSpec
from skep.manager.dispatcher.core.stock import Stock
from skep.manager.store.core.tables import Tables
from tests.unit.manager.build import service, service_spec, task


def test_a_task_is_told_with_the_ports_that_are_filled_in_or_asked_for() -> None:
    tables = Tables()
    asked = service_spec(ports=(Port(target=80),))
    tables.put(Revision(id="s1.1", service_id=ServiceId("s1"), number=1, spec=asked))
    row = task("t1", TaskState.ASSIGNED)
    filled = (Port(target=80, published=30000),)
    for ports, told in ((None, asked.ports), (filled, filled)):
        tables.put(service(spec=asked, ports=ports))
        given = Stock(tables).assignment(row)
        assert given is not None
        assert given.spec.ports == told
    assert Stock(tables).assignment(replace(row, revision=9)) is None


def test_files_are_found_by_kind_and_id_and_logins_by_server() -> None:
    tables = Tables()
    tables.put(Config(id=ConfigId("1"), name="a", spec=ConfigSpec(name="a", data=b"config")))
    tables.put(Secret(id=SecretId("1"), name="b", spec=SecretSpec(name="b", data=b"secret")))
    tables.put(Registry(id=RegistryId("1"), name="r.io:5", username="u", password="p"))
    stock = Stock(tables)
    config = GivenFile(id="1", name="a", kind=FileKind.CONFIG, data=b"config")
    secret = GivenFile(id="1", name="b", kind=FileKind.SECRET, data=b"secret")
    assert stock.file(FileKind.CONFIG, "1") == config
    assert stock.file(FileKind.SECRET, "1") == secret
    assert (stock.file(FileKind.SECRET, "2"), stock.file(FileKind.CONFIG, "")) == (None, None)
    assert stock.login("r.io:5") == GivenLogin(server="r.io:5", username="u", password="p")
    assert stock.login("r.io") is None
