from skep.api import objects_pb2 as _objects_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("task_id", "service_id", "service_name", "attachments", "names", "hostname")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    service_id: str
    service_name: str
    attachments: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Attachment]
    names: _containers.RepeatedScalarFieldContainer[str]
    hostname: str
    def __init__(self, task_id: _Optional[str] = ..., service_id: _Optional[str] = ..., service_name: _Optional[str] = ..., attachments: _Optional[_Iterable[_Union[_objects_pb2.Attachment, _Mapping]]] = ..., names: _Optional[_Iterable[str]] = ..., hostname: _Optional[str] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("namespace", "cgroup", "resolv_conf", "hosts", "dns", "vips", "address")
    class VipsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    RESOLV_CONF_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    DNS_FIELD_NUMBER: _ClassVar[int]
    VIPS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    cgroup: str
    resolv_conf: str
    hosts: str
    dns: str
    vips: _containers.ScalarMap[str, str]
    address: str
    def __init__(self, namespace: _Optional[str] = ..., cgroup: _Optional[str] = ..., resolv_conf: _Optional[str] = ..., hosts: _Optional[str] = ..., dns: _Optional[str] = ..., vips: _Optional[_Mapping[str, str]] = ..., address: _Optional[str] = ...) -> None: ...

class DetachRequest(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("task_ids",)
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class FactsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FactsResponse(_message.Message):
    __slots__ = ("notes",)
    class NotesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NOTES_FIELD_NUMBER: _ClassVar[int]
    notes: _containers.ScalarMap[str, str]
    def __init__(self, notes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AttachDone(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    def __init__(self, node_id: _Optional[str] = ...) -> None: ...
