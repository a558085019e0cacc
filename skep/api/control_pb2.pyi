from skep.api import endpoints_pb2 as _endpoints_pb2
from skep.api import objects_pb2 as _objects_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WATCH_ACTION_UNSPECIFIED: _ClassVar[WatchAction]
    WATCH_ACTION_CREATE: _ClassVar[WatchAction]
    WATCH_ACTION_UPDATE: _ClassVar[WatchAction]
    WATCH_ACTION_REMOVE: _ClassVar[WatchAction]

class LogStream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_STREAM_UNSPECIFIED: _ClassVar[LogStream]
    LOG_STREAM_STDOUT: _ClassVar[LogStream]
    LOG_STREAM_STDERR: _ClassVar[LogStream]
WATCH_ACTION_UNSPECIFIED: WatchAction
WATCH_ACTION_CREATE: WatchAction
WATCH_ACTION_UPDATE: WatchAction
WATCH_ACTION_REMOVE: WatchAction
LOG_STREAM_UNSPECIFIED: LogStream
LOG_STREAM_STDOUT: LogStream
LOG_STREAM_STDERR: LogStream

class GetRequest(_message.Message):
    __slots__ = ("ref", "is_stale")
    REF_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    ref: str
    is_stale: bool
    def __init__(self, ref: _Optional[str] = ..., is_stale: _Optional[bool] = ...) -> None: ...

class GetClusterRequest(_message.Message):
    __slots__ = ("is_stale",)
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    is_stale: bool
    def __init__(self, is_stale: _Optional[bool] = ...) -> None: ...

class GetClusterResponse(_message.Message):
    __slots__ = ("cluster", "leader_id", "term", "version", "release")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    cluster: _objects_pb2.Cluster
    leader_id: str
    term: int
    version: int
    release: str
    def __init__(self, cluster: _Optional[_Union[_objects_pb2.Cluster, _Mapping]] = ..., leader_id: _Optional[str] = ..., term: _Optional[int] = ..., version: _Optional[int] = ..., release: _Optional[str] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("is_stale",)
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    is_stale: bool
    def __init__(self, is_stale: _Optional[bool] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes", "leader_id", "version")
    NODES_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Node]
    leader_id: str
    version: int
    def __init__(self, nodes: _Optional[_Iterable[_Union[_objects_pb2.Node, _Mapping]]] = ..., leader_id: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class UpdateNodeRequest(_message.Message):
    __slots__ = ("request_id", "ref", "version", "availability", "labels_set", "labels_removed")
    class LabelsSetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_SET_FIELD_NUMBER: _ClassVar[int]
    LABELS_REMOVED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    ref: str
    version: int
    availability: _objects_pb2.Availability
    labels_set: _containers.ScalarMap[str, str]
    labels_removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., ref: _Optional[str] = ..., version: _Optional[int] = ..., availability: _Optional[_Union[_objects_pb2.Availability, str]] = ..., labels_set: _Optional[_Mapping[str, str]] = ..., labels_removed: _Optional[_Iterable[str]] = ...) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("request_id", "ref")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    ref: str
    def __init__(self, request_id: _Optional[str] = ..., ref: _Optional[str] = ...) -> None: ...

class RemoveResponse(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class CreateServiceRequest(_message.Message):
    __slots__ = ("request_id", "spec")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _objects_pb2.ServiceSpec
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_objects_pb2.ServiceSpec, _Mapping]] = ...) -> None: ...

class UpdateServiceRequest(_message.Message):
    __slots__ = ("request_id", "ref", "spec", "version")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    ref: str
    spec: _objects_pb2.ServiceSpec
    version: int
    def __init__(self, request_id: _Optional[str] = ..., ref: _Optional[str] = ..., spec: _Optional[_Union[_objects_pb2.ServiceSpec, _Mapping]] = ..., version: _Optional[int] = ...) -> None: ...

class RollbackServiceRequest(_message.Message):
    __slots__ = ("request_id", "ref", "revision", "version")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    ref: str
    revision: int
    version: int
    def __init__(self, request_id: _Optional[str] = ..., ref: _Optional[str] = ..., revision: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class ListRevisionsRequest(_message.Message):
    __slots__ = ("service", "is_stale")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    service: str
    is_stale: bool
    def __init__(self, service: _Optional[str] = ..., is_stale: _Optional[bool] = ...) -> None: ...

class ListRevisionsResponse(_message.Message):
    __slots__ = ("revisions", "version")
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Revision]
    version: int
    def __init__(self, revisions: _Optional[_Iterable[_Union[_objects_pb2.Revision, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class ListServicesRequest(_message.Message):
    __slots__ = ("stack", "is_stale")
    STACK_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    stack: str
    is_stale: bool
    def __init__(self, stack: _Optional[str] = ..., is_stale: _Optional[bool] = ...) -> None: ...

class ServiceView(_message.Message):
    __slots__ = ("service", "running", "desired", "is_converged", "problems", "given_up", "completed")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    IS_CONVERGED_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    GIVEN_UP_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    service: _objects_pb2.Service
    running: int
    desired: int
    is_converged: bool
    problems: _containers.RepeatedScalarFieldContainer[str]
    given_up: int
    completed: int
    def __init__(self, service: _Optional[_Union[_objects_pb2.Service, _Mapping]] = ..., running: _Optional[int] = ..., desired: _Optional[int] = ..., is_converged: _Optional[bool] = ..., problems: _Optional[_Iterable[str]] = ..., given_up: _Optional[int] = ..., completed: _Optional[int] = ...) -> None: ...

class ListServicesResponse(_message.Message):
    __slots__ = ("services", "version")
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[ServiceView]
    version: int
    def __init__(self, services: _Optional[_Iterable[_Union[ServiceView, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("service", "node", "stack", "is_all", "is_stale")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    IS_ALL_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    service: str
    node: str
    stack: str
    is_all: bool
    is_stale: bool
    def __init__(self, service: _Optional[str] = ..., node: _Optional[str] = ..., stack: _Optional[str] = ..., is_all: _Optional[bool] = ..., is_stale: _Optional[bool] = ...) -> None: ...

class ListTasksResponse(_message.Message):
    __slots__ = ("tasks", "version")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Task]
    version: int
    def __init__(self, tasks: _Optional[_Iterable[_Union[_objects_pb2.Task, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class DeployStackRequest(_message.Message):
    __slots__ = ("request_id", "spec", "is_prune")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    IS_PRUNE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _objects_pb2.StackSpec
    is_prune: bool
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_objects_pb2.StackSpec, _Mapping]] = ..., is_prune: _Optional[bool] = ...) -> None: ...

class DeployStackResponse(_message.Message):
    __slots__ = ("stack", "created", "updated", "unchanged", "removed", "kept", "networks_created")
    STACK_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_CREATED_FIELD_NUMBER: _ClassVar[int]
    stack: _objects_pb2.Stack
    created: _containers.RepeatedScalarFieldContainer[str]
    updated: _containers.RepeatedScalarFieldContainer[str]
    unchanged: _containers.RepeatedScalarFieldContainer[str]
    removed: _containers.RepeatedScalarFieldContainer[str]
    kept: _containers.RepeatedScalarFieldContainer[str]
    networks_created: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, stack: _Optional[_Union[_objects_pb2.Stack, _Mapping]] = ..., created: _Optional[_Iterable[str]] = ..., updated: _Optional[_Iterable[str]] = ..., unchanged: _Optional[_Iterable[str]] = ..., removed: _Optional[_Iterable[str]] = ..., kept: _Optional[_Iterable[str]] = ..., networks_created: _Optional[_Iterable[str]] = ...) -> None: ...

class ListStacksRequest(_message.Message):
    __slots__ = ("is_stale",)
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    is_stale: bool
    def __init__(self, is_stale: _Optional[bool] = ...) -> None: ...

class ListStacksResponse(_message.Message):
    __slots__ = ("stacks", "version")
    STACKS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    stacks: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Stack]
    version: int
    def __init__(self, stacks: _Optional[_Iterable[_Union[_objects_pb2.Stack, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("from_version", "kinds")
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    from_version: int
    kinds: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, from_version: _Optional[int] = ..., kinds: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("version", "action", "node", "service", "task", "stack", "is_resync", "network", "config", "secret")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    IS_RESYNC_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    version: int
    action: WatchAction
    node: _objects_pb2.Node
    service: _objects_pb2.Service
    task: _objects_pb2.Task
    stack: _objects_pb2.Stack
    is_resync: bool
    network: _objects_pb2.Network
    config: _objects_pb2.Config
    secret: SecretView
    def __init__(self, version: _Optional[int] = ..., action: _Optional[_Union[WatchAction, str]] = ..., node: _Optional[_Union[_objects_pb2.Node, _Mapping]] = ..., service: _Optional[_Union[_objects_pb2.Service, _Mapping]] = ..., task: _Optional[_Union[_objects_pb2.Task, _Mapping]] = ..., stack: _Optional[_Union[_objects_pb2.Stack, _Mapping]] = ..., is_resync: _Optional[bool] = ..., network: _Optional[_Union[_objects_pb2.Network, _Mapping]] = ..., config: _Optional[_Union[_objects_pb2.Config, _Mapping]] = ..., secret: _Optional[_Union[SecretView, _Mapping]] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("services", "tasks", "tail", "since_ns", "is_follow", "positions")
    class PositionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    IS_FOLLOW_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedScalarFieldContainer[str]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    tail: int
    since_ns: int
    is_follow: bool
    positions: _containers.ScalarMap[str, str]
    def __init__(self, services: _Optional[_Iterable[str]] = ..., tasks: _Optional[_Iterable[str]] = ..., tail: _Optional[int] = ..., since_ns: _Optional[int] = ..., is_follow: _Optional[bool] = ..., positions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("time_ns", "stream", "text")
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    time_ns: int
    stream: LogStream
    text: bytes
    def __init__(self, time_ns: _Optional[int] = ..., stream: _Optional[_Union[LogStream, str]] = ..., text: _Optional[bytes] = ...) -> None: ...

class LogEvent(_message.Message):
    __slots__ = ("task_id", "task_name", "node_name", "lines", "problem", "position")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    task_name: str
    node_name: str
    lines: _containers.RepeatedCompositeFieldContainer[LogLine]
    problem: str
    position: str
    def __init__(self, task_id: _Optional[str] = ..., task_name: _Optional[str] = ..., node_name: _Optional[str] = ..., lines: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ..., problem: _Optional[str] = ..., position: _Optional[str] = ...) -> None: ...

class NetproxyProgress(_message.Message):
    __slots__ = ("node_id", "version", "is_connected", "errors")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    version: int
    is_connected: bool
    errors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node_id: _Optional[str] = ..., version: _Optional[int] = ..., is_connected: _Optional[bool] = ..., errors: _Optional[_Iterable[str]] = ...) -> None: ...

class ManagerReport(_message.Message):
    __slots__ = ("node_id", "applied_version", "netproxies")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_VERSION_FIELD_NUMBER: _ClassVar[int]
    NETPROXIES_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    applied_version: int
    netproxies: _containers.RepeatedCompositeFieldContainer[NetproxyProgress]
    def __init__(self, node_id: _Optional[str] = ..., applied_version: _Optional[int] = ..., netproxies: _Optional[_Iterable[_Union[NetproxyProgress, _Mapping]]] = ...) -> None: ...

class ManagerReportResponse(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class CreateNetworkRequest(_message.Message):
    __slots__ = ("request_id", "spec")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _objects_pb2.NetworkSpec
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_objects_pb2.NetworkSpec, _Mapping]] = ...) -> None: ...

class NetworkView(_message.Message):
    __slots__ = ("network", "services", "tasks")
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    network: _objects_pb2.Network
    services: _containers.RepeatedScalarFieldContainer[str]
    tasks: int
    def __init__(self, network: _Optional[_Union[_objects_pb2.Network, _Mapping]] = ..., services: _Optional[_Iterable[str]] = ..., tasks: _Optional[int] = ...) -> None: ...

class ListNetworksRequest(_message.Message):
    __slots__ = ("stack", "is_stale")
    STACK_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    stack: str
    is_stale: bool
    def __init__(self, stack: _Optional[str] = ..., is_stale: _Optional[bool] = ...) -> None: ...

class ListNetworksResponse(_message.Message):
    __slots__ = ("networks", "version")
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    networks: _containers.RepeatedCompositeFieldContainer[NetworkView]
    version: int
    def __init__(self, networks: _Optional[_Iterable[_Union[NetworkView, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class DiagnoseNetworkRequest(_message.Message):
    __slots__ = ("name", "from_task")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FROM_TASK_FIELD_NUMBER: _ClassVar[int]
    name: str
    from_task: str
    def __init__(self, name: _Optional[str] = ..., from_task: _Optional[str] = ...) -> None: ...

class DiagnoseNetworkResponse(_message.Message):
    __slots__ = ("version", "diagnoses", "silent", "differences")
    class SilentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSES_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    version: int
    diagnoses: _containers.RepeatedCompositeFieldContainer[_endpoints_pb2.Diagnosis]
    silent: _containers.ScalarMap[str, str]
    differences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., diagnoses: _Optional[_Iterable[_Union[_endpoints_pb2.Diagnosis, _Mapping]]] = ..., silent: _Optional[_Mapping[str, str]] = ..., differences: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateConfigRequest(_message.Message):
    __slots__ = ("request_id", "spec", "stack", "is_versioned")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    IS_VERSIONED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _objects_pb2.ConfigSpec
    stack: str
    is_versioned: bool
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_objects_pb2.ConfigSpec, _Mapping]] = ..., stack: _Optional[str] = ..., is_versioned: _Optional[bool] = ...) -> None: ...

class ConfigView(_message.Message):
    __slots__ = ("config", "services")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    config: _objects_pb2.Config
    services: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, config: _Optional[_Union[_objects_pb2.Config, _Mapping]] = ..., services: _Optional[_Iterable[str]] = ...) -> None: ...

class ListConfigsRequest(_message.Message):
    __slots__ = ("stack", "is_stale")
    STACK_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    stack: str
    is_stale: bool
    def __init__(self, stack: _Optional[str] = ..., is_stale: _Optional[bool] = ...) -> None: ...

class ListConfigsResponse(_message.Message):
    __slots__ = ("configs", "version")
    CONFIGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    configs: _containers.RepeatedCompositeFieldContainer[ConfigView]
    version: int
    def __init__(self, configs: _Optional[_Iterable[_Union[ConfigView, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class CreateSecretRequest(_message.Message):
    __slots__ = ("request_id", "spec", "stack", "is_versioned")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    IS_VERSIONED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _objects_pb2.SecretSpec
    stack: str
    is_versioned: bool
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_objects_pb2.SecretSpec, _Mapping]] = ..., stack: _Optional[str] = ..., is_versioned: _Optional[bool] = ...) -> None: ...

class SecretView(_message.Message):
    __slots__ = ("id", "name", "version", "created_ns", "updated_ns", "labels", "stack", "services")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    version: int
    created_ns: int
    updated_ns: int
    labels: _containers.ScalarMap[str, str]
    stack: str
    services: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., stack: _Optional[str] = ..., services: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSecretsRequest(_message.Message):
    __slots__ = ("stack", "is_stale")
    STACK_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    stack: str
    is_stale: bool
    def __init__(self, stack: _Optional[str] = ..., is_stale: _Optional[bool] = ...) -> None: ...

class ListSecretsResponse(_message.Message):
    __slots__ = ("secrets", "version")
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    secrets: _containers.RepeatedCompositeFieldContainer[SecretView]
    version: int
    def __init__(self, secrets: _Optional[_Iterable[_Union[SecretView, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class SetRegistryRequest(_message.Message):
    __slots__ = ("request_id", "name", "username", "password")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    username: str
    password: str
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., username: _Optional[str] = ..., password: _Optional[str] = ...) -> None: ...

class RegistryView(_message.Message):
    __slots__ = ("id", "name", "username", "version", "created_ns", "updated_ns")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    username: str
    version: int
    created_ns: int
    updated_ns: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., username: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ...) -> None: ...

class ListRegistriesRequest(_message.Message):
    __slots__ = ("is_stale",)
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    is_stale: bool
    def __init__(self, is_stale: _Optional[bool] = ...) -> None: ...

class ListRegistriesResponse(_message.Message):
    __slots__ = ("registries", "version")
    REGISTRIES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    registries: _containers.RepeatedCompositeFieldContainer[RegistryView]
    version: int
    def __init__(self, registries: _Optional[_Iterable[_Union[RegistryView, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class VolumeView(_message.Message):
    __slots__ = ("volume", "services")
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    volume: _objects_pb2.Volume
    services: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, volume: _Optional[_Union[_objects_pb2.Volume, _Mapping]] = ..., services: _Optional[_Iterable[str]] = ...) -> None: ...

class ListVolumesRequest(_message.Message):
    __slots__ = ("is_stale",)
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    is_stale: bool
    def __init__(self, is_stale: _Optional[bool] = ...) -> None: ...

class ListVolumesResponse(_message.Message):
    __slots__ = ("volumes", "version")
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    volumes: _containers.RepeatedCompositeFieldContainer[VolumeView]
    version: int
    def __init__(self, volumes: _Optional[_Iterable[_Union[VolumeView, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...
