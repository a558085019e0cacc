from skep.api import objects_pb2 as _objects_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Endpoint(_message.Message):
    __slots__ = ("task_id", "node_id", "address", "attachments", "name")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    node_id: str
    address: str
    attachments: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Attachment]
    name: str
    def __init__(self, task_id: _Optional[str] = ..., node_id: _Optional[str] = ..., address: _Optional[str] = ..., attachments: _Optional[_Iterable[_Union[_objects_pb2.Attachment, _Mapping]]] = ..., name: _Optional[str] = ...) -> None: ...

class NetworkPlace(_message.Message):
    __slots__ = ("network_id", "aliases")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    network_id: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, network_id: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ...) -> None: ...

class ServiceEndpoints(_message.Message):
    __slots__ = ("service_id", "name", "ports", "endpoints", "endpoint_mode", "exposed", "networks", "vips", "others")
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_MODE_FIELD_NUMBER: _ClassVar[int]
    EXPOSED_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    VIPS_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    service_id: str
    name: str
    ports: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Port]
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    endpoint_mode: _objects_pb2.EndpointMode
    exposed: _containers.RepeatedCompositeFieldContainer[_objects_pb2.ExposedPort]
    networks: _containers.RepeatedCompositeFieldContainer[NetworkPlace]
    vips: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Vip]
    others: _containers.RepeatedCompositeFieldContainer[Endpoint]
    def __init__(self, service_id: _Optional[str] = ..., name: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[_objects_pb2.Port, _Mapping]]] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., endpoint_mode: _Optional[_Union[_objects_pb2.EndpointMode, str]] = ..., exposed: _Optional[_Iterable[_Union[_objects_pb2.ExposedPort, _Mapping]]] = ..., networks: _Optional[_Iterable[_Union[NetworkPlace, _Mapping]]] = ..., vips: _Optional[_Iterable[_Union[_objects_pb2.Vip, _Mapping]]] = ..., others: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ...) -> None: ...

class NetworkEntry(_message.Message):
    __slots__ = ("network_id", "name", "vni", "subnet", "gateway", "is_internal", "is_ingress", "is_encrypted")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VNI_FIELD_NUMBER: _ClassVar[int]
    SUBNET_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    IS_INTERNAL_FIELD_NUMBER: _ClassVar[int]
    IS_INGRESS_FIELD_NUMBER: _ClassVar[int]
    IS_ENCRYPTED_FIELD_NUMBER: _ClassVar[int]
    network_id: str
    name: str
    vni: int
    subnet: str
    gateway: str
    is_internal: bool
    is_ingress: bool
    is_encrypted: bool
    def __init__(self, network_id: _Optional[str] = ..., name: _Optional[str] = ..., vni: _Optional[int] = ..., subnet: _Optional[str] = ..., gateway: _Optional[str] = ..., is_internal: _Optional[bool] = ..., is_ingress: _Optional[bool] = ..., is_encrypted: _Optional[bool] = ...) -> None: ...

class MeshNode(_message.Message):
    __slots__ = ("node_id", "mesh_address", "name", "address", "ingress_address", "plane", "wireguard_key")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MESH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INGRESS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PLANE_FIELD_NUMBER: _ClassVar[int]
    WIREGUARD_KEY_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    mesh_address: str
    name: str
    address: str
    ingress_address: str
    plane: str
    wireguard_key: str
    def __init__(self, node_id: _Optional[str] = ..., mesh_address: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., ingress_address: _Optional[str] = ..., plane: _Optional[str] = ..., wireguard_key: _Optional[str] = ...) -> None: ...

class NetworkQuestion(_message.Message):
    __slots__ = ("id", "name", "task_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    task_id: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., task_id: _Optional[str] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("task_id", "node_id", "address", "latency_ns", "error")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_NS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    node_id: str
    address: str
    latency_ns: int
    error: str
    def __init__(self, task_id: _Optional[str] = ..., node_id: _Optional[str] = ..., address: _Optional[str] = ..., latency_ns: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class NameAnswer(_message.Message):
    __slots__ = ("name", "kind", "network", "service", "addresses", "probes", "why")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    network: str
    service: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    probes: _containers.RepeatedCompositeFieldContainer[Probe]
    why: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., network: _Optional[str] = ..., service: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., probes: _Optional[_Iterable[_Union[Probe, _Mapping]]] = ..., why: _Optional[str] = ...) -> None: ...

class Diagnosis(_message.Message):
    __slots__ = ("question_id", "node_id", "plane", "held_version", "applied_version", "problems", "differences", "facts", "answer")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PLANE_FIELD_NUMBER: _ClassVar[int]
    HELD_VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    question_id: str
    node_id: str
    plane: str
    held_version: int
    applied_version: int
    problems: _containers.RepeatedScalarFieldContainer[str]
    differences: _containers.RepeatedScalarFieldContainer[str]
    facts: _containers.RepeatedScalarFieldContainer[str]
    answer: NameAnswer
    def __init__(self, question_id: _Optional[str] = ..., node_id: _Optional[str] = ..., plane: _Optional[str] = ..., held_version: _Optional[int] = ..., applied_version: _Optional[int] = ..., problems: _Optional[_Iterable[str]] = ..., differences: _Optional[_Iterable[str]] = ..., facts: _Optional[_Iterable[str]] = ..., answer: _Optional[_Union[NameAnswer, _Mapping]] = ...) -> None: ...

class EndpointUpdate(_message.Message):
    __slots__ = ("from_version", "version", "is_complete", "is_partial", "services", "removed_services", "nodes", "removed_nodes", "networks", "removed_networks", "question")
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    IS_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_SERVICES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_NODES_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_NETWORKS_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    from_version: int
    version: int
    is_complete: bool
    is_partial: bool
    services: _containers.RepeatedCompositeFieldContainer[ServiceEndpoints]
    removed_services: _containers.RepeatedScalarFieldContainer[str]
    nodes: _containers.RepeatedCompositeFieldContainer[MeshNode]
    removed_nodes: _containers.RepeatedScalarFieldContainer[str]
    networks: _containers.RepeatedCompositeFieldContainer[NetworkEntry]
    removed_networks: _containers.RepeatedScalarFieldContainer[str]
    question: NetworkQuestion
    def __init__(self, from_version: _Optional[int] = ..., version: _Optional[int] = ..., is_complete: _Optional[bool] = ..., is_partial: _Optional[bool] = ..., services: _Optional[_Iterable[_Union[ServiceEndpoints, _Mapping]]] = ..., removed_services: _Optional[_Iterable[str]] = ..., nodes: _Optional[_Iterable[_Union[MeshNode, _Mapping]]] = ..., removed_nodes: _Optional[_Iterable[str]] = ..., networks: _Optional[_Iterable[_Union[NetworkEntry, _Mapping]]] = ..., removed_networks: _Optional[_Iterable[str]] = ..., question: _Optional[_Union[NetworkQuestion, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("hello", "applied", "diagnosis")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSIS_FIELD_NUMBER: _ClassVar[int]
    hello: NetproxyHello
    applied: NetproxyApplied
    diagnosis: Diagnosis
    def __init__(self, hello: _Optional[_Union[NetproxyHello, _Mapping]] = ..., applied: _Optional[_Union[NetproxyApplied, _Mapping]] = ..., diagnosis: _Optional[_Union[Diagnosis, _Mapping]] = ...) -> None: ...
