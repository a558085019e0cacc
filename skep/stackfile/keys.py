"""Which keys Skep knows, section by section, and what it says of those it can't do.

Never is a key dropped in silence: it is supported, or it needs a container engine, or it isn't
supported yet, or it is unknown and perhaps misspelt. The names are those of compose-spec.json and
of Docker's config_schema_v3.13.json.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Section:
    """The keys of one kind of mapping. `later` maps a key to what to do instead ("" for
    nothing); `extensions` are keys of Skep's own."""

    name: str
    supported: frozenset[str]
    container: frozenset[str] = frozenset()
    later: Mapping[str, str] = field(default_factory=dict)
    extensions: frozenset[str] = frozenset()

    def known(self) -> frozenset[str]:
        """Every key of this section that is not a misspelling."""
        return self.supported | self.container | self.later.keys() | self.extensions


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _later(text: str) -> dict[str, str]:
    return dict.fromkeys(text.split(), "")


TOP = Section(
    "the file",
    supported=_set("version name services networks"),
    container=_set("volumes"),
    later=_later("configs secrets include models"),
)

SERVICE = Section(
    "a service",
    supported=_set(
        "image command entrypoint environment working_dir user stop_signal stop_grace_period "
        "healthcheck ports expose deploy logging labels networks platform"
    ),
    container=_set(
        "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent "
        "cgroupns_mode container_name cpu_period cpu_quota cpu_rt_period cpu_rt_runtime "
        "cpu_shares cpuset credential_spec device_cgroup_rules devices dns dns_opt dns_search "
        "domainname external_links extra_hosts gpus group_add hostname init ipc isolation "
        "label_file links mac_address mem_swappiness memswap_limit network_mode "
        "oom_kill_disable oom_score_adj pid privileged pull_policy pull_refresh_after "
        "read_only runtime security_opt shm_size stdin_open storage_opt sysctls tmpfs tty ulimits "
        "use_api_socket userns_mode uts volumes volumes_from"
    ),
    later=_later(
        "configs cpu_count cpu_percent depends_on develop env_file extends models "
        "post_start pre_stop profiles provider secrets"
    )
    | {
        "cpus": "use deploy.resources.limits.cpus",
        "mem_limit": "use deploy.resources.limits.memory",
        "mem_reservation": "use deploy.resources.reservations.memory",
        "pids_limit": "use deploy.resources.limits.pids",
        "restart": "use deploy.restart_policy",
        "scale": "use deploy.replicas",
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
    container=_set("interface_name link_local_ips mac_address"),
    later=_later("driver_opts gw_priority priority")
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

EXTENSIONS = SERVICE.extensions | UPDATE_CONFIG.extensions | PORT.extensions


def did_you_mean(word: str, known: Collection[str]) -> str:
    """ "; did you mean 'x'?", or nothing where nothing is near."""
    near = difflib.get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.7)
    return f"; did you mean '{near[0]}'?" if near else ""
