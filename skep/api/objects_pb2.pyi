from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServiceMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERVICE_MODE_UNSPECIFIED: _ClassVar[ServiceMode]
    SERVICE_MODE_REPLICATED: _ClassVar[ServiceMode]

class Protocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROTOCOL_UNSPECIFIED: _ClassVar[Protocol]
    PROTOCOL_TCP: _ClassVar[Protocol]
    PROTOCOL_UDP: _ClassVar[Protocol]

class ProxyProtocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROXY_PROTOCOL_UNSPECIFIED: _ClassVar[ProxyProtocol]
    PROXY_PROTOCOL_NONE: _ClassVar[ProxyProtocol]
    PROXY_PROTOCOL_V1: _ClassVar[ProxyProtocol]
    PROXY_PROTOCOL_V2: _ClassVar[ProxyProtocol]

class EndpointMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENDPOINT_MODE_UNSPECIFIED: _ClassVar[EndpointMode]
    ENDPOINT_MODE_VIP: _ClassVar[EndpointMode]
    ENDPOINT_MODE_DNSRR: _ClassVar[EndpointMode]

class Balance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BALANCE_UNSPECIFIED: _ClassVar[Balance]
    BALANCE_ROUND_ROBIN: _ClassVar[Balance]
    BALANCE_LEAST_CONNECTIONS: _ClassVar[Balance]

class PortMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PORT_MODE_UNSPECIFIED: _ClassVar[PortMode]
    PORT_MODE_INGRESS: _ClassVar[PortMode]
    PORT_MODE_HOST: _ClassVar[PortMode]

class UpdateOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UPDATE_ORDER_UNSPECIFIED: _ClassVar[UpdateOrder]
    UPDATE_ORDER_STOP_FIRST: _ClassVar[UpdateOrder]
    UPDATE_ORDER_START_FIRST: _ClassVar[UpdateOrder]

class FailureAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_ACTION_UNSPECIFIED: _ClassVar[FailureAction]
    FAILURE_ACTION_PAUSE: _ClassVar[FailureAction]
    FAILURE_ACTION_CONTINUE: _ClassVar[FailureAction]
    FAILURE_ACTION_ROLLBACK: _ClassVar[FailureAction]

class RestartCondition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESTART_CONDITION_UNSPECIFIED: _ClassVar[RestartCondition]
    RESTART_CONDITION_NONE: _ClassVar[RestartCondition]
    RESTART_CONDITION_ON_FAILURE: _ClassVar[RestartCondition]
    RESTART_CONDITION_ANY: _ClassVar[RestartCondition]

class PullPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PULL_POLICY_UNSPECIFIED: _ClassVar[PullPolicy]
    PULL_POLICY_MISSING: _ClassVar[PullPolicy]
    PULL_POLICY_ALWAYS: _ClassVar[PullPolicy]
    PULL_POLICY_NEVER: _ClassVar[PullPolicy]

class MountKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOUNT_KIND_UNSPECIFIED: _ClassVar[MountKind]
    MOUNT_KIND_VOLUME: _ClassVar[MountKind]
    MOUNT_KIND_BIND: _ClassVar[MountKind]
    MOUNT_KIND_TMPFS: _ClassVar[MountKind]

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_STATE_UNSPECIFIED: _ClassVar[TaskState]
    TASK_STATE_NEW: _ClassVar[TaskState]
    TASK_STATE_PENDING: _ClassVar[TaskState]
    TASK_STATE_ASSIGNED: _ClassVar[TaskState]
    TASK_STATE_ACCEPTED: _ClassVar[TaskState]
    TASK_STATE_PREPARING: _ClassVar[TaskState]
    TASK_STATE_READY: _ClassVar[TaskState]
    TASK_STATE_STARTING: _ClassVar[TaskState]
    TASK_STATE_RUNNING: _ClassVar[TaskState]
    TASK_STATE_COMPLETE: _ClassVar[TaskState]
    TASK_STATE_SHUTDOWN: _ClassVar[TaskState]
    TASK_STATE_FAILED: _ClassVar[TaskState]
    TASK_STATE_REJECTED: _ClassVar[TaskState]
    TASK_STATE_ORPHANED: _ClassVar[TaskState]

class DesiredState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DESIRED_STATE_UNSPECIFIED: _ClassVar[DesiredState]
    DESIRED_STATE_READY: _ClassVar[DesiredState]
    DESIRED_STATE_RUNNING: _ClassVar[DesiredState]
    DESIRED_STATE_SHUTDOWN: _ClassVar[DesiredState]
    DESIRED_STATE_REMOVE: _ClassVar[DesiredState]

class NodeRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_ROLE_UNSPECIFIED: _ClassVar[NodeRole]
    NODE_ROLE_MANAGER: _ClassVar[NodeRole]
    NODE_ROLE_WORKER: _ClassVar[NodeRole]

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNSPECIFIED: _ClassVar[NodeState]
    NODE_STATE_UNKNOWN: _ClassVar[NodeState]
    NODE_STATE_READY: _ClassVar[NodeState]
    NODE_STATE_DOWN: _ClassVar[NodeState]

class Availability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AVAILABILITY_UNSPECIFIED: _ClassVar[Availability]
    AVAILABILITY_ACTIVE: _ClassVar[Availability]
    AVAILABILITY_PAUSE: _ClassVar[Availability]
    AVAILABILITY_DRAIN: _ClassVar[Availability]

class UpdateState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UPDATE_STATE_UNSPECIFIED: _ClassVar[UpdateState]
    UPDATE_STATE_UPDATING: _ClassVar[UpdateState]
    UPDATE_STATE_PAUSED: _ClassVar[UpdateState]
    UPDATE_STATE_COMPLETED: _ClassVar[UpdateState]
    UPDATE_STATE_ROLLBACK_STARTED: _ClassVar[UpdateState]
    UPDATE_STATE_ROLLBACK_PAUSED: _ClassVar[UpdateState]
    UPDATE_STATE_ROLLBACK_COMPLETED: _ClassVar[UpdateState]
SERVICE_MODE_UNSPECIFIED: ServiceMode
SERVICE_MODE_REPLICATED: ServiceMode
PROTOCOL_UNSPECIFIED: Protocol
PROTOCOL_TCP: Protocol
PROTOCOL_UDP: Protocol
PROXY_PROTOCOL_UNSPECIFIED: ProxyProtocol
PROXY_PROTOCOL_NONE: ProxyProtocol
PROXY_PROTOCOL_V1: ProxyProtocol
PROXY_PROTOCOL_V2: ProxyProtocol
ENDPOINT_MODE_UNSPECIFIED: EndpointMode
ENDPOINT_MODE_VIP: EndpointMode
ENDPOINT_MODE_DNSRR: EndpointMode
BALANCE_UNSPECIFIED: Balance
BALANCE_ROUND_ROBIN: Balance
BALANCE_LEAST_CONNECTIONS: Balance
PORT_MODE_UNSPECIFIED: PortMode
PORT_MODE_INGRESS: PortMode
PORT_MODE_HOST: PortMode
UPDATE_ORDER_UNSPECIFIED: UpdateOrder
UPDATE_ORDER_STOP_FIRST: UpdateOrder
UPDATE_ORDER_START_FIRST: UpdateOrder
FAILURE_ACTION_UNSPECIFIED: FailureAction
FAILURE_ACTION_PAUSE: FailureAction
FAILURE_ACTION_CONTINUE: FailureAction
FAILURE_ACTION_ROLLBACK: FailureAction
RESTART_CONDITION_UNSPECIFIED: RestartCondition
RESTART_CONDITION_NONE: RestartCondition
RESTART_CONDITION_ON_FAILURE: RestartCondition
RESTART_CONDITION_ANY: RestartCondition
PULL_POLICY_UNSPECIFIED: PullPolicy
PULL_POLICY_MISSING: PullPolicy
PULL_POLICY_ALWAYS: PullPolicy
PULL_POLICY_NEVER: PullPolicy
MOUNT_KIND_UNSPECIFIED: MountKind
MOUNT_KIND_VOLUME: MountKind
MOUNT_KIND_BIND: MountKind
MOUNT_KIND_TMPFS: MountKind
TASK_STATE_UNSPECIFIED: TaskState
TASK_STATE_NEW: TaskState
TASK_STATE_PENDING: TaskState
TASK_STATE_ASSIGNED: TaskState
TASK_STATE_ACCEPTED: TaskState
TASK_STATE_PREPARING: TaskState
TASK_STATE_READY: TaskState
TASK_STATE_STARTING: TaskState
TASK_STATE_RUNNING: TaskState
TASK_STATE_COMPLETE: TaskState
TASK_STATE_SHUTDOWN: TaskState
TASK_STATE_FAILED: TaskState
TASK_STATE_REJECTED: TaskState
TASK_STATE_ORPHANED: TaskState
DESIRED_STATE_UNSPECIFIED: DesiredState
DESIRED_STATE_READY: DesiredState
DESIRED_STATE_RUNNING: DesiredState
DESIRED_STATE_SHUTDOWN: DesiredState
DESIRED_STATE_REMOVE: DesiredState
NODE_ROLE_UNSPECIFIED: NodeRole
NODE_ROLE_MANAGER: NodeRole
NODE_ROLE_WORKER: NodeRole
NODE_STATE_UNSPECIFIED: NodeState
NODE_STATE_UNKNOWN: NodeState
NODE_STATE_READY: NodeState
NODE_STATE_DOWN: NodeState
AVAILABILITY_UNSPECIFIED: Availability
AVAILABILITY_ACTIVE: Availability
AVAILABILITY_PAUSE: Availability
AVAILABILITY_DRAIN: Availability
UPDATE_STATE_UNSPECIFIED: UpdateState
UPDATE_STATE_UPDATING: UpdateState
UPDATE_STATE_PAUSED: UpdateState
UPDATE_STATE_COMPLETED: UpdateState
UPDATE_STATE_ROLLBACK_STARTED: UpdateState
UPDATE_STATE_ROLLBACK_PAUSED: UpdateState
UPDATE_STATE_ROLLBACK_COMPLETED: UpdateState

class Port(_message.Message):
    __slots__ = ("target", "published", "protocol", "balance", "name", "mode", "proxy_protocol", "accepts_proxy_protocol")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PROXY_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_PROXY_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    target: int
    published: int
    protocol: Protocol
    balance: Balance
    name: str
    mode: PortMode
    proxy_protocol: ProxyProtocol
    accepts_proxy_protocol: bool
    def __init__(self, target: _Optional[int] = ..., published: _Optional[int] = ..., protocol: _Optional[_Union[Protocol, str]] = ..., balance: _Optional[_Union[Balance, str]] = ..., name: _Optional[str] = ..., mode: _Optional[_Union[PortMode, str]] = ..., proxy_protocol: _Optional[_Union[ProxyProtocol, str]] = ..., accepts_proxy_protocol: _Optional[bool] = ...) -> None: ...

class ExposedPort(_message.Message):
    __slots__ = ("target", "protocol")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    target: int
    protocol: Protocol
    def __init__(self, target: _Optional[int] = ..., protocol: _Optional[_Union[Protocol, str]] = ...) -> None: ...

class NetworkUse(_message.Message):
    __slots__ = ("network", "aliases")
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    network: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, network: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ...) -> None: ...

class NetworkSpec(_message.Message):
    __slots__ = ("name", "driver", "subnet", "gateway", "is_internal", "is_attachable", "is_encrypted", "labels", "options")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    SUBNET_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    IS_INTERNAL_FIELD_NUMBER: _ClassVar[int]
    IS_ATTACHABLE_FIELD_NUMBER: _ClassVar[int]
    IS_ENCRYPTED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    driver: str
    subnet: str
    gateway: str
    is_internal: bool
    is_attachable: bool
    is_encrypted: bool
    labels: _containers.ScalarMap[str, str]
    options: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., driver: _Optional[str] = ..., subnet: _Optional[str] = ..., gateway: _Optional[str] = ..., is_internal: _Optional[bool] = ..., is_attachable: _Optional[bool] = ..., is_encrypted: _Optional[bool] = ..., labels: _Optional[_Mapping[str, str]] = ..., options: _Optional[_Mapping[str, str]] = ...) -> None: ...

class HealthCheck(_message.Message):
    __slots__ = ("test", "interval_ns", "timeout_ns", "retries", "start_period_ns", "start_interval_ns")
    TEST_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_NS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NS_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    START_PERIOD_NS_FIELD_NUMBER: _ClassVar[int]
    START_INTERVAL_NS_FIELD_NUMBER: _ClassVar[int]
    test: _containers.RepeatedScalarFieldContainer[str]
    interval_ns: int
    timeout_ns: int
    retries: int
    start_period_ns: int
    start_interval_ns: int
    def __init__(self, test: _Optional[_Iterable[str]] = ..., interval_ns: _Optional[int] = ..., timeout_ns: _Optional[int] = ..., retries: _Optional[int] = ..., start_period_ns: _Optional[int] = ..., start_interval_ns: _Optional[int] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("cpu_nano", "memory_bytes", "pids")
    CPU_NANO_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    cpu_nano: int
    memory_bytes: int
    pids: int
    def __init__(self, cpu_nano: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., pids: _Optional[int] = ...) -> None: ...

class RestartPolicy(_message.Message):
    __slots__ = ("condition", "delay_ns", "max_attempts", "window_ns")
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    DELAY_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_NS_FIELD_NUMBER: _ClassVar[int]
    condition: RestartCondition
    delay_ns: int
    max_attempts: int
    window_ns: int
    def __init__(self, condition: _Optional[_Union[RestartCondition, str]] = ..., delay_ns: _Optional[int] = ..., max_attempts: _Optional[int] = ..., window_ns: _Optional[int] = ...) -> None: ...

class Platform(_message.Message):
    __slots__ = ("os", "arch")
    OS_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    os: str
    arch: str
    def __init__(self, os: _Optional[str] = ..., arch: _Optional[str] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("constraints", "preferences", "max_replicas_per_node", "platforms")
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    PREFERENCES_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_PER_NODE_FIELD_NUMBER: _ClassVar[int]
    PLATFORMS_FIELD_NUMBER: _ClassVar[int]
    constraints: _containers.RepeatedScalarFieldContainer[str]
    preferences: _containers.RepeatedScalarFieldContainer[str]
    max_replicas_per_node: int
    platforms: _containers.RepeatedCompositeFieldContainer[Platform]
    def __init__(self, constraints: _Optional[_Iterable[str]] = ..., preferences: _Optional[_Iterable[str]] = ..., max_replicas_per_node: _Optional[int] = ..., platforms: _Optional[_Iterable[_Union[Platform, _Mapping]]] = ...) -> None: ...

class UpdatePolicy(_message.Message):
    __slots__ = ("parallelism", "delay_ns", "monitor_ns", "max_failure_ratio", "failure_action", "order", "healthy_deadline_ns")
    PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    DELAY_NS_FIELD_NUMBER: _ClassVar[int]
    MONITOR_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_FAILURE_RATIO_FIELD_NUMBER: _ClassVar[int]
    FAILURE_ACTION_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_DEADLINE_NS_FIELD_NUMBER: _ClassVar[int]
    parallelism: int
    delay_ns: int
    monitor_ns: int
    max_failure_ratio: float
    failure_action: FailureAction
    order: UpdateOrder
    healthy_deadline_ns: int
    def __init__(self, parallelism: _Optional[int] = ..., delay_ns: _Optional[int] = ..., monitor_ns: _Optional[int] = ..., max_failure_ratio: _Optional[float] = ..., failure_action: _Optional[_Union[FailureAction, str]] = ..., order: _Optional[_Union[UpdateOrder, str]] = ..., healthy_deadline_ns: _Optional[int] = ...) -> None: ...

class LogPolicy(_message.Message):
    __slots__ = ("max_bytes", "max_files")
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FILES_FIELD_NUMBER: _ClassVar[int]
    max_bytes: int
    max_files: int
    def __init__(self, max_bytes: _Optional[int] = ..., max_files: _Optional[int] = ...) -> None: ...

class Ulimit(_message.Message):
    __slots__ = ("name", "soft", "hard")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    name: str
    soft: int
    hard: int
    def __init__(self, name: _Optional[str] = ..., soft: _Optional[int] = ..., hard: _Optional[int] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("source", "target", "permissions")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    permissions: str
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ..., permissions: _Optional[str] = ...) -> None: ...

class DeviceRequest(_message.Message):
    __slots__ = ("driver", "count", "device_ids", "capabilities", "options")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_IDS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    driver: str
    count: int
    device_ids: _containers.RepeatedScalarFieldContainer[str]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    options: _containers.ScalarMap[str, str]
    def __init__(self, driver: _Optional[str] = ..., count: _Optional[int] = ..., device_ids: _Optional[_Iterable[str]] = ..., capabilities: _Optional[_Iterable[str]] = ..., options: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BlockLimit(_message.Message):
    __slots__ = ("kind", "path", "rate")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    path: str
    rate: int
    def __init__(self, kind: _Optional[str] = ..., path: _Optional[str] = ..., rate: _Optional[int] = ...) -> None: ...

class ContainerSpec(_message.Message):
    __slots__ = ("hostname", "domainname", "labels", "annotations", "network_mode", "mac_address", "dns", "dns_search", "dns_options", "extra_hosts", "init", "is_read_only", "is_privileged", "is_tty", "is_stdin_open", "cap_add", "cap_drop", "group_add", "security_opt", "sysctls", "ulimits", "devices", "device_requests", "device_cgroup_rules", "shm_bytes", "memory_swap_bytes", "memory_swappiness", "oom_score_adj", "is_oom_kill_disabled", "cpu_shares", "cpu_period", "cpu_quota", "cpu_realtime_period", "cpu_realtime_runtime", "cpuset", "block_weight", "block_limits", "cgroup_parent", "cgroupns_mode", "ipc", "pid", "uts", "userns_mode", "isolation", "runtime", "storage_options", "pull_policy", "log_driver", "log_options")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class StorageOptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LogOptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    DOMAINNAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_MODE_FIELD_NUMBER: _ClassVar[int]
    MAC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DNS_FIELD_NUMBER: _ClassVar[int]
    DNS_SEARCH_FIELD_NUMBER: _ClassVar[int]
    DNS_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    EXTRA_HOSTS_FIELD_NUMBER: _ClassVar[int]
    INIT_FIELD_NUMBER: _ClassVar[int]
    IS_READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    IS_PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    IS_TTY_FIELD_NUMBER: _ClassVar[int]
    IS_STDIN_OPEN_FIELD_NUMBER: _ClassVar[int]
    CAP_ADD_FIELD_NUMBER: _ClassVar[int]
    CAP_DROP_FIELD_NUMBER: _ClassVar[int]
    GROUP_ADD_FIELD_NUMBER: _ClassVar[int]
    SECURITY_OPT_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    ULIMITS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CGROUP_RULES_FIELD_NUMBER: _ClassVar[int]
    SHM_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SWAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SWAPPINESS_FIELD_NUMBER: _ClassVar[int]
    OOM_SCORE_ADJ_FIELD_NUMBER: _ClassVar[int]
    IS_OOM_KILL_DISABLED_FIELD_NUMBER: _ClassVar[int]
    CPU_SHARES_FIELD_NUMBER: _ClassVar[int]
    CPU_PERIOD_FIELD_NUMBER: _ClassVar[int]
    CPU_QUOTA_FIELD_NUMBER: _ClassVar[int]
    CPU_REALTIME_PERIOD_FIELD_NUMBER: _ClassVar[int]
    CPU_REALTIME_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    CPUSET_FIELD_NUMBER: _ClassVar[int]
    BLOCK_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_LIMITS_FIELD_NUMBER: _ClassVar[int]
    CGROUP_PARENT_FIELD_NUMBER: _ClassVar[int]
    CGROUPNS_MODE_FIELD_NUMBER: _ClassVar[int]
    IPC_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    UTS_FIELD_NUMBER: _ClassVar[int]
    USERNS_MODE_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    STORAGE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PULL_POLICY_FIELD_NUMBER: _ClassVar[int]
    LOG_DRIVER_FIELD_NUMBER: _ClassVar[int]
    LOG_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    domainname: str
    labels: _containers.ScalarMap[str, str]
    annotations: _containers.ScalarMap[str, str]
    network_mode: str
    mac_address: str
    dns: _containers.RepeatedScalarFieldContainer[str]
    dns_search: _containers.RepeatedScalarFieldContainer[str]
    dns_options: _containers.RepeatedScalarFieldContainer[str]
    extra_hosts: _containers.RepeatedScalarFieldContainer[str]
    init: bool
    is_read_only: bool
    is_privileged: bool
    is_tty: bool
    is_stdin_open: bool
    cap_add: _containers.RepeatedScalarFieldContainer[str]
    cap_drop: _containers.RepeatedScalarFieldContainer[str]
    group_add: _containers.RepeatedScalarFieldContainer[str]
    security_opt: _containers.RepeatedScalarFieldContainer[str]
    sysctls: _containers.ScalarMap[str, str]
    ulimits: _containers.RepeatedCompositeFieldContainer[Ulimit]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    device_requests: _containers.RepeatedCompositeFieldContainer[DeviceRequest]
    device_cgroup_rules: _containers.RepeatedScalarFieldContainer[str]
    shm_bytes: int
    memory_swap_bytes: int
    memory_swappiness: int
    oom_score_adj: int
    is_oom_kill_disabled: bool
    cpu_shares: int
    cpu_period: int
    cpu_quota: int
    cpu_realtime_period: int
    cpu_realtime_runtime: int
    cpuset: str
    block_weight: int
    block_limits: _containers.RepeatedCompositeFieldContainer[BlockLimit]
    cgroup_parent: str
    cgroupns_mode: str
    ipc: str
    pid: str
    uts: str
    userns_mode: str
    isolation: str
    runtime: str
    storage_options: _containers.ScalarMap[str, str]
    pull_policy: PullPolicy
    log_driver: str
    log_options: _containers.ScalarMap[str, str]
    def __init__(self, hostname: _Optional[str] = ..., domainname: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., annotations: _Optional[_Mapping[str, str]] = ..., network_mode: _Optional[str] = ..., mac_address: _Optional[str] = ..., dns: _Optional[_Iterable[str]] = ..., dns_search: _Optional[_Iterable[str]] = ..., dns_options: _Optional[_Iterable[str]] = ..., extra_hosts: _Optional[_Iterable[str]] = ..., init: _Optional[bool] = ..., is_read_only: _Optional[bool] = ..., is_privileged: _Optional[bool] = ..., is_tty: _Optional[bool] = ..., is_stdin_open: _Optional[bool] = ..., cap_add: _Optional[_Iterable[str]] = ..., cap_drop: _Optional[_Iterable[str]] = ..., group_add: _Optional[_Iterable[str]] = ..., security_opt: _Optional[_Iterable[str]] = ..., sysctls: _Optional[_Mapping[str, str]] = ..., ulimits: _Optional[_Iterable[_Union[Ulimit, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., device_requests: _Optional[_Iterable[_Union[DeviceRequest, _Mapping]]] = ..., device_cgroup_rules: _Optional[_Iterable[str]] = ..., shm_bytes: _Optional[int] = ..., memory_swap_bytes: _Optional[int] = ..., memory_swappiness: _Optional[int] = ..., oom_score_adj: _Optional[int] = ..., is_oom_kill_disabled: _Optional[bool] = ..., cpu_shares: _Optional[int] = ..., cpu_period: _Optional[int] = ..., cpu_quota: _Optional[int] = ..., cpu_realtime_period: _Optional[int] = ..., cpu_realtime_runtime: _Optional[int] = ..., cpuset: _Optional[str] = ..., block_weight: _Optional[int] = ..., block_limits: _Optional[_Iterable[_Union[BlockLimit, _Mapping]]] = ..., cgroup_parent: _Optional[str] = ..., cgroupns_mode: _Optional[str] = ..., ipc: _Optional[str] = ..., pid: _Optional[str] = ..., uts: _Optional[str] = ..., userns_mode: _Optional[str] = ..., isolation: _Optional[str] = ..., runtime: _Optional[str] = ..., storage_options: _Optional[_Mapping[str, str]] = ..., pull_policy: _Optional[_Union[PullPolicy, str]] = ..., log_driver: _Optional[str] = ..., log_options: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("kind", "target", "source", "is_read_only", "is_movable", "propagation", "creates_host_path", "is_no_copy", "subpath", "driver", "driver_options", "labels", "size_bytes", "mode")
    class DriverOptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    IS_READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    IS_MOVABLE_FIELD_NUMBER: _ClassVar[int]
    PROPAGATION_FIELD_NUMBER: _ClassVar[int]
    CREATES_HOST_PATH_FIELD_NUMBER: _ClassVar[int]
    IS_NO_COPY_FIELD_NUMBER: _ClassVar[int]
    SUBPATH_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    DRIVER_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    kind: MountKind
    target: str
    source: str
    is_read_only: bool
    is_movable: bool
    propagation: str
    creates_host_path: bool
    is_no_copy: bool
    subpath: str
    driver: str
    driver_options: _containers.ScalarMap[str, str]
    labels: _containers.ScalarMap[str, str]
    size_bytes: int
    mode: int
    def __init__(self, kind: _Optional[_Union[MountKind, str]] = ..., target: _Optional[str] = ..., source: _Optional[str] = ..., is_read_only: _Optional[bool] = ..., is_movable: _Optional[bool] = ..., propagation: _Optional[str] = ..., creates_host_path: _Optional[bool] = ..., is_no_copy: _Optional[bool] = ..., subpath: _Optional[str] = ..., driver: _Optional[str] = ..., driver_options: _Optional[_Mapping[str, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., size_bytes: _Optional[int] = ..., mode: _Optional[int] = ...) -> None: ...

class FileUse(_message.Message):
    __slots__ = ("name", "id", "target", "uid", "gid", "mode")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: str
    target: str
    uid: str
    gid: str
    mode: int
    def __init__(self, name: _Optional[str] = ..., id: _Optional[str] = ..., target: _Optional[str] = ..., uid: _Optional[str] = ..., gid: _Optional[str] = ..., mode: _Optional[int] = ...) -> None: ...

class ConfigSpec(_message.Message):
    __slots__ = ("name", "data", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    labels: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SecretSpec(_message.Message):
    __slots__ = ("name", "data", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    labels: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RunSpec(_message.Message):
    __slots__ = ("image", "command", "args", "env", "working_dir", "user", "stop_signal", "stop_grace_ns", "health", "log", "image_digest", "mounts", "configs", "secrets", "container")
    class EnvEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIR_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    STOP_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    STOP_GRACE_NS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    IMAGE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    CONFIGS_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    image: str
    command: _containers.RepeatedScalarFieldContainer[str]
    args: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.ScalarMap[str, str]
    working_dir: str
    user: str
    stop_signal: str
    stop_grace_ns: int
    health: HealthCheck
    log: LogPolicy
    image_digest: str
    mounts: _containers.RepeatedCompositeFieldContainer[Mount]
    configs: _containers.RepeatedCompositeFieldContainer[FileUse]
    secrets: _containers.RepeatedCompositeFieldContainer[FileUse]
    container: ContainerSpec
    def __init__(self, image: _Optional[str] = ..., command: _Optional[_Iterable[str]] = ..., args: _Optional[_Iterable[str]] = ..., env: _Optional[_Mapping[str, str]] = ..., working_dir: _Optional[str] = ..., user: _Optional[str] = ..., stop_signal: _Optional[str] = ..., stop_grace_ns: _Optional[int] = ..., health: _Optional[_Union[HealthCheck, _Mapping]] = ..., log: _Optional[_Union[LogPolicy, _Mapping]] = ..., image_digest: _Optional[str] = ..., mounts: _Optional[_Iterable[_Union[Mount, _Mapping]]] = ..., configs: _Optional[_Iterable[_Union[FileUse, _Mapping]]] = ..., secrets: _Optional[_Iterable[_Union[FileUse, _Mapping]]] = ..., container: _Optional[_Union[ContainerSpec, _Mapping]] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("run", "engine", "limits", "reservations", "restart", "placement", "force_update", "networks")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    FORCE_UPDATE_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    run: RunSpec
    engine: str
    limits: Resources
    reservations: Resources
    restart: RestartPolicy
    placement: Placement
    force_update: int
    networks: _containers.RepeatedCompositeFieldContainer[NetworkUse]
    def __init__(self, run: _Optional[_Union[RunSpec, _Mapping]] = ..., engine: _Optional[str] = ..., limits: _Optional[_Union[Resources, _Mapping]] = ..., reservations: _Optional[_Union[Resources, _Mapping]] = ..., restart: _Optional[_Union[RestartPolicy, _Mapping]] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., force_update: _Optional[int] = ..., networks: _Optional[_Iterable[_Union[NetworkUse, _Mapping]]] = ...) -> None: ...

class ServiceSpec(_message.Message):
    __slots__ = ("name", "task", "labels", "mode", "replicas", "ports", "update", "rollback", "endpoint_mode", "exposed")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_MODE_FIELD_NUMBER: _ClassVar[int]
    EXPOSED_FIELD_NUMBER: _ClassVar[int]
    name: str
    task: TaskSpec
    labels: _containers.ScalarMap[str, str]
    mode: ServiceMode
    replicas: int
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    update: UpdatePolicy
    rollback: UpdatePolicy
    endpoint_mode: EndpointMode
    exposed: _containers.RepeatedCompositeFieldContainer[ExposedPort]
    def __init__(self, name: _Optional[str] = ..., task: _Optional[_Union[TaskSpec, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., mode: _Optional[_Union[ServiceMode, str]] = ..., replicas: _Optional[int] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ..., update: _Optional[_Union[UpdatePolicy, _Mapping]] = ..., rollback: _Optional[_Union[UpdatePolicy, _Mapping]] = ..., endpoint_mode: _Optional[_Union[EndpointMode, str]] = ..., exposed: _Optional[_Iterable[_Union[ExposedPort, _Mapping]]] = ...) -> None: ...

class StackSpec(_message.Message):
    __slots__ = ("name", "services", "networks")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    services: _containers.RepeatedCompositeFieldContainer[ServiceSpec]
    networks: _containers.RepeatedCompositeFieldContainer[NetworkSpec]
    def __init__(self, name: _Optional[str] = ..., services: _Optional[_Iterable[_Union[ServiceSpec, _Mapping]]] = ..., networks: _Optional[_Iterable[_Union[NetworkSpec, _Mapping]]] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "name", "block", "feature_level", "task_history_limit", "address_pools", "subnet_prefix", "default_engine")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    TASK_HISTORY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_POOLS_FIELD_NUMBER: _ClassVar[int]
    SUBNET_PREFIX_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ENGINE_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    name: str
    block: int
    feature_level: int
    task_history_limit: int
    address_pools: _containers.RepeatedScalarFieldContainer[str]
    subnet_prefix: int
    default_engine: str
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., name: _Optional[str] = ..., block: _Optional[int] = ..., feature_level: _Optional[int] = ..., task_history_limit: _Optional[int] = ..., address_pools: _Optional[_Iterable[str]] = ..., subnet_prefix: _Optional[int] = ..., default_engine: _Optional[str] = ...) -> None: ...

class NodeDescription(_message.Message):
    __slots__ = ("hostname", "address", "mesh_address", "os", "arch", "cpu_nano", "memory_bytes", "engines", "notes", "plane")
    class NotesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MESH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OS_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    CPU_NANO_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    PLANE_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    address: str
    mesh_address: str
    os: str
    arch: str
    cpu_nano: int
    memory_bytes: int
    engines: _containers.RepeatedScalarFieldContainer[str]
    notes: _containers.ScalarMap[str, str]
    plane: str
    def __init__(self, hostname: _Optional[str] = ..., address: _Optional[str] = ..., mesh_address: _Optional[str] = ..., os: _Optional[str] = ..., arch: _Optional[str] = ..., cpu_nano: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., engines: _Optional[_Iterable[str]] = ..., notes: _Optional[_Mapping[str, str]] = ..., plane: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "name", "role", "description", "labels", "availability", "state", "message", "control_address", "runs_tasks", "ingress_address")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CONTROL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RUNS_TASKS_FIELD_NUMBER: _ClassVar[int]
    INGRESS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    name: str
    role: NodeRole
    description: NodeDescription
    labels: _containers.ScalarMap[str, str]
    availability: Availability
    state: NodeState
    message: str
    control_address: str
    runs_tasks: bool
    ingress_address: str
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., name: _Optional[str] = ..., role: _Optional[_Union[NodeRole, str]] = ..., description: _Optional[_Union[NodeDescription, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., availability: _Optional[_Union[Availability, str]] = ..., state: _Optional[_Union[NodeState, str]] = ..., message: _Optional[str] = ..., control_address: _Optional[str] = ..., runs_tasks: _Optional[bool] = ..., ingress_address: _Optional[str] = ...) -> None: ...

class UpdateStatus(_message.Message):
    __slots__ = ("state", "revision", "base_revision", "policy", "started_ns", "ended_ns", "message", "failed_slots")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BASE_REVISION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    STARTED_NS_FIELD_NUMBER: _ClassVar[int]
    ENDED_NS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FAILED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    state: UpdateState
    revision: int
    base_revision: int
    policy: UpdatePolicy
    started_ns: int
    ended_ns: int
    message: str
    failed_slots: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, state: _Optional[_Union[UpdateState, str]] = ..., revision: _Optional[int] = ..., base_revision: _Optional[int] = ..., policy: _Optional[_Union[UpdatePolicy, _Mapping]] = ..., started_ns: _Optional[int] = ..., ended_ns: _Optional[int] = ..., message: _Optional[str] = ..., failed_slots: _Optional[_Iterable[int]] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "name", "spec", "stack_id", "is_ingress", "vni", "subnet", "gateway", "message", "is_removing")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STACK_ID_FIELD_NUMBER: _ClassVar[int]
    IS_INGRESS_FIELD_NUMBER: _ClassVar[int]
    VNI_FIELD_NUMBER: _ClassVar[int]
    SUBNET_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    IS_REMOVING_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    name: str
    spec: NetworkSpec
    stack_id: str
    is_ingress: bool
    vni: int
    subnet: str
    gateway: str
    message: str
    is_removing: bool
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., name: _Optional[str] = ..., spec: _Optional[_Union[NetworkSpec, _Mapping]] = ..., stack_id: _Optional[str] = ..., is_ingress: _Optional[bool] = ..., vni: _Optional[int] = ..., subnet: _Optional[str] = ..., gateway: _Optional[str] = ..., message: _Optional[str] = ..., is_removing: _Optional[bool] = ...) -> None: ...

class Vip(_message.Message):
    __slots__ = ("network_id", "index", "address")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    network_id: str
    index: int
    address: str
    def __init__(self, network_id: _Optional[str] = ..., index: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class Attachment(_message.Message):
    __slots__ = ("network_id", "address")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    network_id: str
    address: str
    def __init__(self, network_id: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "name", "spec", "revision", "task_revision", "stack_id", "ports", "is_removing", "previous_revision", "update", "vips")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TASK_REVISION_FIELD_NUMBER: _ClassVar[int]
    STACK_ID_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    IS_REMOVING_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_REVISION_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    VIPS_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    name: str
    spec: ServiceSpec
    revision: int
    task_revision: int
    stack_id: str
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    is_removing: bool
    previous_revision: int
    update: UpdateStatus
    vips: _containers.RepeatedCompositeFieldContainer[Vip]
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., name: _Optional[str] = ..., spec: _Optional[_Union[ServiceSpec, _Mapping]] = ..., revision: _Optional[int] = ..., task_revision: _Optional[int] = ..., stack_id: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ..., is_removing: _Optional[bool] = ..., previous_revision: _Optional[int] = ..., update: _Optional[_Union[UpdateStatus, _Mapping]] = ..., vips: _Optional[_Iterable[_Union[Vip, _Mapping]]] = ...) -> None: ...

class Revision(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "service_id", "number", "spec", "task_revision", "note")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    TASK_REVISION_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    service_id: str
    number: int
    spec: ServiceSpec
    task_revision: int
    note: str
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., service_id: _Optional[str] = ..., number: _Optional[int] = ..., spec: _Optional[_Union[ServiceSpec, _Mapping]] = ..., task_revision: _Optional[int] = ..., note: _Optional[str] = ...) -> None: ...

class TaskStatus(_message.Message):
    __slots__ = ("state", "since_ns", "message", "error", "exit_code", "pid", "is_healthy", "counter", "session_id")
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    IS_HEALTHY_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    state: TaskState
    since_ns: int
    message: str
    error: str
    exit_code: int
    pid: int
    is_healthy: bool
    counter: int
    session_id: str
    def __init__(self, state: _Optional[_Union[TaskState, str]] = ..., since_ns: _Optional[int] = ..., message: _Optional[str] = ..., error: _Optional[str] = ..., exit_code: _Optional[int] = ..., pid: _Optional[int] = ..., is_healthy: _Optional[bool] = ..., counter: _Optional[int] = ..., session_id: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "service_id", "service_name", "revision", "slot", "desired_state", "status", "node_id", "address", "attempt", "start_at_ns", "healthy_ns", "ended_ns", "sick_ns", "attachments")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    DESIRED_STATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    START_AT_NS_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_NS_FIELD_NUMBER: _ClassVar[int]
    ENDED_NS_FIELD_NUMBER: _ClassVar[int]
    SICK_NS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    service_id: str
    service_name: str
    revision: int
    slot: int
    desired_state: DesiredState
    status: TaskStatus
    node_id: str
    address: str
    attempt: int
    start_at_ns: int
    healthy_ns: int
    ended_ns: int
    sick_ns: int
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., service_id: _Optional[str] = ..., service_name: _Optional[str] = ..., revision: _Optional[int] = ..., slot: _Optional[int] = ..., desired_state: _Optional[_Union[DesiredState, str]] = ..., status: _Optional[_Union[TaskStatus, _Mapping]] = ..., node_id: _Optional[str] = ..., address: _Optional[str] = ..., attempt: _Optional[int] = ..., start_at_ns: _Optional[int] = ..., healthy_ns: _Optional[int] = ..., ended_ns: _Optional[int] = ..., sick_ns: _Optional[int] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ...) -> None: ...

class Stack(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "name", "spec", "revision")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    name: str
    spec: StackSpec
    revision: int
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., name: _Optional[str] = ..., spec: _Optional[_Union[StackSpec, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class Config(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "name", "spec", "stack", "family")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    name: str
    spec: ConfigSpec
    stack: str
    family: str
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., name: _Optional[str] = ..., spec: _Optional[_Union[ConfigSpec, _Mapping]] = ..., stack: _Optional[str] = ..., family: _Optional[str] = ...) -> None: ...

class Secret(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "name", "spec", "stack", "family")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    name: str
    spec: SecretSpec
    stack: str
    family: str
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., name: _Optional[str] = ..., spec: _Optional[_Union[SecretSpec, _Mapping]] = ..., stack: _Optional[str] = ..., family: _Optional[str] = ...) -> None: ...

class VolumePlace(_message.Message):
    __slots__ = ("service_name", "slot", "node_id")
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    service_name: str
    slot: int
    node_id: str
    def __init__(self, service_name: _Optional[str] = ..., slot: _Optional[int] = ..., node_id: _Optional[str] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "name", "places")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    name: str
    places: _containers.RepeatedCompositeFieldContainer[VolumePlace]
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., name: _Optional[str] = ..., places: _Optional[_Iterable[_Union[VolumePlace, _Mapping]]] = ...) -> None: ...

class Registry(_message.Message):
    __slots__ = ("id", "namespace", "version", "created_ns", "updated_ns", "name", "username", "password")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_NS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    version: int
    created_ns: int
    updated_ns: int
    name: str
    username: str
    password: str
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., version: _Optional[int] = ..., created_ns: _Optional[int] = ..., updated_ns: _Optional[int] = ..., name: _Optional[str] = ..., username: _Optional[str] = ..., password: _Optional[str] = ...) -> None: ...
