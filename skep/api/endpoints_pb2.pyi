from skep.api import objects_pb2 as _objects_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Endpoint(_message.Message):
    __slots__ = ("task_id", "node_id", "address")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    node_id: str
    address: str
    def __init__(self, task_id: _Optional[str] = ..., node_id: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class ServiceEndpoints(_message.Message):
    __slots__ = ("service_id", "name", "ports", "endpoints")
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    service_id: str
    name: str
    ports: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Port]
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    def __init__(self, service_id: _Optional[str] = ..., name: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[_objects_pb2.Port, _Mapping]]] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ...) -> None: ...

class MeshNode(_message.Message):
    __slots__ = ("node_id", "mesh_address")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MESH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    mesh_address: str
    def __init__(self, node_id: _Optional[str] = ..., mesh_address: _Optional[str] = ...) -> None: ...

class EndpointUpdate(_message.Message):
    __slots__ = ("from_version", "version", "is_complete", "is_partial", "services", "removed_services", "nodes", "removed_nodes")
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    IS_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_SERVICES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_NODES_FIELD_NUMBER: _ClassVar[int]
    from_version: int
    version: int
    is_complete: bool
    is_partial: bool
    services: _containers.RepeatedCompositeFieldContainer[ServiceEndpoints]
    removed_services: _containers.RepeatedScalarFieldContainer[str]
    nodes: _containers.RepeatedCompositeFieldContainer[MeshNode]
    removed_nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, from_version: _Optional[int] = ..., version: _Optional[int] = ..., is_complete: _Optional[bool] = ..., is_partial: _Optional[bool] = ..., services: _Optional[_Iterable[_Union[ServiceEndpoints, _Mapping]]] = ..., removed_services: _Optional[_Iterable[str]] = ..., nodes: _Optional[_Iterable[_Union[MeshNode, _Mapping]]] = ..., removed_nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class NetproxyHello(_message.Message):
    __slots__ = ("format", "cluster_id", "node_id", "applied_version")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_VERSION_FIELD_NUMBER: _ClassVar[int]
    format: int
    cluster_id: str
    node_id: str
    applied_version: int
    def __init__(self, format: _Optional[int] = ..., cluster_id: _Optional[str] = ..., node_id: _Optional[str] = ..., applied_version: _Optional[int] = ...) -> None: ...

class NetproxyApplied(_message.Message):
    __slots__ = ("version", "errors")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    version: int
    errors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., errors: _Optional[_Iterable[str]] = ...) -> None: ...

class NetproxyMessage(_message.Message):
    __slots__ = ("hello", "applied")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    hello: NetproxyHello
    applied: NetproxyApplied
    def __init__(self, hello: _Optional[_Union[NetproxyHello, _Mapping]] = ..., applied: _Optional[_Union[NetproxyApplied, _Mapping]] = ...) -> None: ...
