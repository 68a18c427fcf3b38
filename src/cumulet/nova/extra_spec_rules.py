"""What a flavor's extra specs may say, from 2.86 on.  Pure.

Upstream's names and upstream's values.  A name in a namespace that is known is one of these; namespaces that
nobody knows, and names without one, may say anything.  Whether this cloud does anything about a spec is another
matter: flavors come from other clouds, and go there.  Of traits only the form is checked, not whether there is one.
"""

import re
from collections.abc import Callable

from cumulet.core.errors import BadRequest
from cumulet.nova.paging import boolean

Check = Callable[[str], str]
"""Says what is wrong with a value; nothing if it is good."""


def _text(value: str) -> str:
    return ""


def _flag(value: str) -> str:
    try:
        boolean(value, "")
    except BadRequest:
        return "is not a valid boolean-like value"
    return ""


def _number(least: int | None = None, most: int | None = None) -> Check:
    def check(value: str) -> str:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value, re.ASCII):
            return "is not a valid integer value"
        if least is not None and int(value) < least:
            return f"is less than the min value of '{least}'"
        if most is not None and int(value) > most:
            return f"is greater than the max value of '{most}'"
        return ""

    return check


def _one_of(*words: str) -> Check:
    return lambda value: "" if value in words else f"is not one of: {', '.join(words)}"


def _like(pattern: str) -> Check:
    form = re.compile(pattern, re.ASCII)
    return lambda value: "" if form.fullmatch(value) else f"is not of the format '{pattern}'"


_CPUS = _like(r"\^?\d+(-\d+)?(,\^?\d+(-\d+)?)*")
_LEVEL = _one_of("custom", "high", "normal", "low")
_AMOUNT, _COUNT, _ANY_NUMBER = _number(0), _number(1), _number()
_HW: dict[str, Check] = {
    **dict.fromkeys(
        (
            "boot_menu", "cpu_realtime", "ephemeral_encryption", "hide_hypervisor_id", "locked_memory",
            "mem_encryption", "pmu", "vif_multiqueue_enabled", "virtio_packed_ring",
        ),
        _flag,
    ),
    **dict.fromkeys(
        (
            "cpu_cores", "cpu_max_cores", "cpu_max_sockets", "cpu_max_threads", "cpu_sockets", "cpu_threads",
            "numa_nodes",
        ),
        _COUNT,
    ),
    **dict.fromkeys(("cpu_dedicated_mask", "cpu_realtime_mask"), _CPUS),
    "cpu_policy": _one_of("dedicated", "shared", "mixed"),
    "cpu_thread_policy": _one_of("prefer", "isolate", "require"),
    "emulator_threads_policy": _one_of("isolate", "share"),
    "ephemeral_encryption_format": _one_of("plain", "luks", "luksv2"),
    "mem_encryption_model": _one_of("amd-sev", "amd-sev-es", "amd-sev-snp"),
    "mem_page_size": _like(r"(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)"),
    "pci_numa_affinity_policy": _one_of("required", "preferred", "legacy", "socket"),
    "pmem": _like(r"[a-zA-Z0-9_]+(,[a-zA-Z0-9_]+)*,?"),
    "redirected_usb_ports": _number(0, 15),
    "serial_port_count": _AMOUNT,
    "sound_model": _one_of("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"),
    "tpm_model": _one_of("tpm-tis", "tpm-crb"),
    "tpm_secret_security": _one_of("user", "host", "deployment"),
    "tpm_version": _one_of("1.2", "2.0"),
    "usb_model": _one_of("none", "nec-xhci", "qemu-xhci"),
    "viommu_model": _one_of("intel", "smmuv3", "virtio", "auto"),
    "watchdog_action": _one_of("none", "pause", "poweroff", "reset", "disabled"),
}  # fmt: skip
_QUOTA: dict[str, Check] = {
    **dict.fromkeys(
        (
            "cpu_limit", "cpu_period", "cpu_shares", "cpu_shares_share", "disk_io_limit", "disk_io_shares_share",
            "disk_read_bytes_sec", "disk_read_iops_sec", "disk_total_bytes_sec", "disk_total_iops_sec",
            "disk_write_bytes_sec", "disk_write_iops_sec", "memory_limit", "memory_shares_share",
            "vif_inbound_average", "vif_inbound_burst", "vif_inbound_peak", "vif_limit", "vif_outbound_average",
            "vif_outbound_burst", "vif_outbound_peak", "vif_shares_share",
        ),
        _AMOUNT,
    ),
    **dict.fromkeys(
        ("cpu_quota", "cpu_reservation", "disk_io_reservation", "memory_reservation", "vif_reservation"),
        _ANY_NUMBER,
    ),
    **{f"{what}_shares_level": _LEVEL for what in ("cpu", "disk_io", "memory", "vif")},
}  # fmt: skip
_PLAIN_CAPABILITIES = (
    "aggregates", "cell_uuid", "cpu_allocation_ratio", "current_workload", "disk_allocation_ratio",
    "disk_available_least", "disk_mb_used", "failed_builds", "free_disk_gb", "free_disk_mb", "free_ram_mb", "host",
    "host_ip", "hypervisor_hostname", "hypervisor_type", "hypervisor_version", "id", "local_gb", "local_gb_used",
    "mapped", "memory_mb", "memory_mb_used", "num_instances", "num_io_ops", "ram_allocation_ratio", "running_vms",
    "service_id", "total_usable_disk_gb", "total_usable_ram_mb", "updated", "uuid", "vcpus", "vcpus_total",
    "vcpus_used",
)  # fmt: skip
_DEEP_CAPABILITIES = (
    "cpu_info", "instances", "limits", "metrics", "nodename", "numa_topology", "pci_device_pools", "pci_stats",
    "stats", "supported_hv_specs", "supported_instances",
)  # fmt: skip
_RESOURCES = (
    "VCPU", "MEMORY_MB", "DISK_GB", "PCI_DEVICE", "SRIOV_NET_VF", "NUMA_SOCKET", "NUMA_CORE", "NUMA_THREAD",
    "NUMA_MEMORY_MB", "IPV4_ADDRESS", "VGPU", "VGPU_DISPLAY_HEAD", "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC", "PCPU", "MEM_ENCRYPTION_CONTEXT", "FPGA", "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC", "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
)  # fmt: skip
NAMED: dict[str, Check] = {
    "accel:device_profile": _text,
    **{f"capabilities:{name}": _text for name in _PLAIN_CAPABILITIES},
    **{f"hw:{name}": check for name, check in _HW.items()},
    "hw_rng:allowed": _flag,
    "hw_rng:rate_bytes": _AMOUNT,
    "hw_rng:rate_period": _AMOUNT,
    "hw_video:ram_max_mb": _AMOUNT,
    "hide_hypervisor_id": _flag,
    "group_policy": _one_of("isolate", "none"),
    "os:secure_boot": _one_of("disabled", "required"),
    "pci_passthrough:alias": _like(r"[^:]+:\d+(\s*,\s*[^:]+:\d+)*"),
    **{f"quota:{name}": check for name, check in _QUOTA.items()},
    "vmware:hw_version": _text,
    "vmware:storage_policy": _text,
}
PATTERNS: tuple[tuple[re.Pattern[str], Check], ...] = tuple(
    (re.compile(pattern, re.ASCII), check)
    for pattern, check in (
        (r"aggregate_instance_extra_specs:.+", _text),
        (rf"capabilities:({'|'.join(_DEEP_CAPABILITIES)})(:\w+)*", _text),
        (r"hw:numa_cpus\.\d+", _CPUS),
        (r"hw:numa_mem\.\d+", _COUNT),
        (rf"resources([a-zA-Z0-9_-]{{1,64}})?:({'|'.join(_RESOURCES)}|CUSTOM_[A-Z0-9_]+)", _ANY_NUMBER),
        (r"trait([a-zA-Z0-9_-]{1,64})?:[A-Z0-9_]+", _one_of("required", "forbidden")),
    )
)
_NAMESPACES = re.compile(
    r"accel|aggregate_instance_extra_specs|capabilities|hw|hw_rng|hw_video|os|pci_passthrough|quota|vmware"
    r"|(resources|trait)([a-zA-Z0-9_-]{1,64})?"
)


def check_spec(name: str, value: str) -> None:
    """BadRequest if a spec of this name cannot be, or not be this."""
    check = NAMED.get(name) or next((check for pattern, check in PATTERNS if pattern.fullmatch(name)), None)
    if check is None:
        namespace, separator, _ = name.partition(":")
        if separator and _NAMESPACES.fullmatch(namespace):
            raise _refused(f"extra spec '{name}' does not appear to be a valid extra spec")
    elif wrong := check(value):
        raise _refused(f"'{value}' {wrong}")


def _refused(reason: str) -> BadRequest:
    return BadRequest(f"Validation failed; {reason}.", kind="ValidationError")
