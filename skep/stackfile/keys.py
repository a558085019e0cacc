"""Which keys Skep knows, section by section, and what it says of those it can't do.

Never is a key dropped in silence: it is supported, or it needs a container engine, or it changes
nothing in a cluster and that is told, or it isn't supported yet, or it is unknown and perhaps
misspelt. The names are those of compose-spec.json and of Docker's config_schema_v3.13.json.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Section:
    """The keys of one kind of mapping. `container` are those that only containers can have.
    `later` maps a key to what to do instead ("" for nothing), `ignored` one that changes nothing in
    a cluster to why; `extensions` are keys of Skep's own."""

    name: str
    supported: frozenset[str]
    container: frozenset[str] = frozenset()
    later: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    extensions: frozenset[str] = frozenset()

    def known(self) -> frozenset[str]:
        """Every key of this section that is not a misspelling."""
        return (
            self.supported
            | self.container
            | self.later.keys()
            | self.ignored.keys()
            | self.extensions
        )


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _later(text: str) -> dict[str, str]:
    return dict.fromkeys(text.split(), "")


TOP = Section(
    "the file",
    supported=_set("version name services networks volumes configs secrets"),
    later=_later("include models"),
    extensions=_set("x-engine"),
)

_NAMES = "tasks reach other services by their names, whatever node they are on"
SERVICE = Section(
    "a service",
    supported=_set(
        "image command entrypoint environment env_file working_dir user stop_signal "
        "stop_grace_period healthcheck ports expose deploy logging labels networks platform "
        "cpus mem_limit mem_reservation pids_limit scale restart profiles"
    ),
    container=_set(
        "annotations blkio_config build cap_add cap_drop cgroup cgroup_parent cgroupns_mode "
        "configs cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpuset "
        "device_cgroup_rules devices dns dns_opt dns_search domainname extra_hosts gpus group_add "
        "hostname init ipc isolation label_file mac_address mem_swappiness memswap_limit "
        "network_mode oom_kill_disable oom_score_adj pid privileged pull_policy read_only runtime "
        "secrets security_opt shm_size stdin_open storage_opt sysctls tmpfs tty ulimits "
        "userns_mode uts volumes"
    ),
    later=_later("extends models post_start pre_stop provider")
    | {
        "credential_spec": "nodes run Linux, and this is for Windows",
        "cpu_count": "use deploy.resources.limits.cpus",
        "cpu_percent": "use deploy.resources.limits.cpus",
        "pull_refresh_after": "use pull_policy: always",
        "use_api_socket": "mount /var/run/docker.sock under 'volumes'",
        "volumes_from": "name a volume under 'volumes' of both services",
    },
    ignored={
        "attach": "output is read with 'skep service logs'",
        "container_name": "a name fits one container, and a service may have many",
        "depends_on": "services start at the same time; let a program try again, or end and be "
        "restarted, until what it needs is there",
        "develop": "it is for a single machine",
        "external_links": _NAMES,
        "links": _NAMES,
    },
    extensions=_set("x-engine"),
)

DEPLOY = Section(
    "deploy",
    supported=_set(
        "mode replicas labels resources restart_policy placement endpoint_mode update_config "
        "rollback_config"
    ),
)
UPDATE_CONFIG = Section(
    "update_config",
    supported=_set("parallelism delay monitor failure_action max_failure_ratio order"),
    extensions=_set("x-healthy-deadline"),
)
ROLLBACK_CONFIG = replace(UPDATE_CONFIG, name="rollback_config")
RESOURCES = Section("resources", supported=_set("limits reservations"))
LIMITS = Section("limits", supported=_set("cpus memory pids"))
RESERVATIONS = Section(
    "reservations",
    supported=_set("cpus memory"),
    container=_set("devices"),
    later=_later("generic_resources"),
)
DEVICES = Section(
    "a reservation of devices",
    supported=_set("capabilities count device_ids driver options"),
)
ENV_FILE = Section("a file of variables", supported=_set("path required format"))
ULIMIT = Section("a limit", supported=_set("soft hard"))
DEVICE = Section("a device", supported=_set("source target permissions"))
BLKIO = Section(
    "blkio_config",
    supported=_set(
        "weight weight_device device_read_bps device_read_iops device_write_bps device_write_iops"
    ),
)
BLKIO_WEIGHT = Section("a device's weight", supported=_set("path weight"))
BLKIO_RATE = Section("a device's rate", supported=_set("path rate"))
MOUNT = Section(
    "a mount",
    supported=_set("type source target read_only bind volume tmpfs"),
    ignored={
        "consistency": "it is for desktops, where containers run in another machine",
    },
    extensions=_set("x-movable"),
)
BIND = Section(
    "bind",
    supported=_set("propagation create_host_path"),
    later=dict.fromkeys(("recursive",), "what is mounted below comes along"),
    ignored={"selinux": "nodes' folders keep their labels"},
)
MOUNT_VOLUME = Section("volume", supported=_set("nocopy subpath"), later=_later("labels"))
TMPFS = Section("tmpfs", supported=_set("size mode"))
VOLUME = Section(
    "a volume",
    supported=_set("name driver driver_opts external labels"),
    extensions=_set("x-movable"),
)
CONFIG = Section(
    "a config",
    supported=_set("file content environment external name labels"),
    later={"template_driver": "put variables of the stack file into 'content'"},
)
SECRET = Section(
    "a secret",
    supported=_set("file content environment external name labels"),
    later=_later("driver driver_opts")
    | {"template_driver": "secrets are given to tasks as they are"},
)
FILE_USE = Section("a file for a service", supported=_set("source target uid gid mode"))
RESTART_POLICY = Section("restart_policy", supported=_set("condition delay max_attempts window"))
PLACEMENT = Section(
    "placement",
    supported=_set("constraints preferences max_replicas_per_node"),
)
PREFERENCE = Section("a preference", supported=_set("spread"))
NETWORK = Section(
    "a network",
    supported=_set(
        "name driver driver_opts attachable internal labels ipam external enable_ipv4 enable_ipv6"
    ),
)
EXTERNAL = Section("external", supported=_set("name"))
IPAM = Section("ipam", supported=_set("driver config"), later=_later("options"))
SUBNET = Section(
    "a subnet",
    supported=_set("subnet gateway"),
    later=dict.fromkeys(("ip_range", "aux_addresses"), "give the network a subnet of its own"),
)
NETWORK_USE = Section(
    "a service's network",
    supported=_set("aliases"),
    later=_later("driver_opts gw_priority interface_name link_local_ips mac_address priority")
    | dict.fromkeys(
        ("ipv4_address", "ipv6_address"), "addresses are given out; use the service's name"
    ),
)
HEALTHCHECK = Section(
    "healthcheck",
    supported=_set("test interval timeout retries start_period start_interval disable"),
)
PORT = Section(
    "a port",
    supported=_set("target published protocol mode name"),
    later=_later("app_protocol") | {"host_ip": "a port listens on all addresses of a node"},
    extensions=_set("x-balance x-proxy-protocol"),
)
PROXY_PROTOCOL = Section("x-proxy-protocol", supported=_set("send accept"))
LOGGING = Section("logging", supported=_set("driver options"))
LOG_OPTIONS = Section("options", supported=_set("max-size max-file"))
# What Docker's own drivers of local files take besides, and nothing here has a use for.
LOG_NOTES = _set("compress env env-regex labels labels-regex max-buffer-size mode tag")

EXTENSIONS = SERVICE.extensions | UPDATE_CONFIG.extensions | PORT.extensions | VOLUME.extensions


def did_you_mean(word: str, known: Collection[str]) -> str:
    """ "; did you mean 'x'?", or nothing where nothing is near."""
    near = difflib.get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.7)
    return f"; did you mean '{near[0]}'?" if near else ""
