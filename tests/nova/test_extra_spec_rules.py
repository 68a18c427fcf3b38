"""From 2.86 on a flavor's extra specs are what upstream knows, in the namespaces that upstream knows."""

import pytest

from cumulet.core.errors import BadRequest
from cumulet.nova.extra_spec_rules import NAMED, PATTERNS, check_spec
from tests.nova.api_cloud import Cloud

GOOD = {
    "hw:cpu_policy": ("dedicated", "mixed"),
    "hw:cpu_cores": ("1", "16"),
    "hw:numa_cpus.0": ("0-3,^2,7", "1"),
    "hw:numa_mem.11": ("512",),
    "hw:mem_page_size": ("large", "2048", "1GiB", "2MB", "1Gbit"),
    "hw:boot_menu": ("true", "0", "Yes"),
    "hw_rng:allowed": ("True",),
    "quota:cpu_quota": ("-1", "5000"),
    "quota:disk_io_shares_level": ("custom",),
    "resources:VCPU": ("0", "2"),
    "resources1:CUSTOM_GOLD": ("1",),
    "resources_x-1:VGPU": ("1",),
    "trait:HW_CPU_X86_AVX2": ("required",),
    "traitgroup:CUSTOM_X": ("forbidden",),
    "capabilities:cpu_info:features": ("<in> avx",),
    "capabilities:hypervisor_type": ("QEMU",),
    "aggregate_instance_extra_specs:any thing": ("x",),
    "pci_passthrough:alias": ("a1:2", "a1:2, b:1"),
    "hide_hypervisor_id": ("true",),
    # nobody's names may say anything
    "colour": ("red",),
    "mine:colour": ("red", ""),
}
BAD = {
    "hw:cpu_policy": ("", "none", "DEDICATED"),
    "hw:cpu_cores": ("0", "-1", "one", "1.5", ""),
    "hw:numa_cpus.0": ("a", "1-", "1,,2", "^"),
    "hw:numa_cpus.x": ("1",),
    "hw:numa_mem.1": ("0",),
    "hw:redirected_usb_ports": ("16", "-1"),
    "hw:mem_page_size": ("huge", "2X"),
    "hw:boot_menu": ("perhaps",),
    "hw:cpu_policies": ("dedicated",),
    "hw:": ("x",),
    "hw_rng:rate_bytes": ("-1",),
    "quota:cpu_limit": ("-1",),
    "quota:colour": ("red",),
    "resources:VCPUS": ("1",),
    "resources:VCPU": ("many",),
    "trait:HW_CPU_X86_AVX2": ("wanted",),
    "trait:lower": ("required",),
    "capabilities:colour": ("red",),
    "capabilities:cpu_info:": ("x",),
    "pci_passthrough:alias": ("a1", "a1:x"),
    "os:secure_boot": ("optional",),
    "group_policy": ("all",),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_ones(name: str) -> None:
    for value in GOOD[name]:
        check_spec(name, value)


@pytest.mark.parametrize("name", BAD)
def test_bad_ones(name: str) -> None:
    for value in BAD[name]:
        with pytest.raises(BadRequest, match="Validation failed"):
            check_spec(name, value)


def test_no_value_takes_long() -> None:
    """No pattern goes back and forth: for any name, each value is judged by itself in the end."""
    for value in ("1" * 254 + "x", "1," * 127, "a" * 254 + "!", "a:1," * 63, " " * 255, "_," * 127 + "!"):
        for name in (*NAMED, "hw:numa_cpus.0", "hw:numa_mem.0", "resources:VCPU", "trait:X"):
            try:
                check_spec(name, value)
            except BadRequest:
                continue
    assert len(PATTERNS) == 6


def test_on_a_flavor() -> None:
    cloud = Cloud()
    url = f"/flavors/{cloud.flavor}/os-extra_specs"
    wrong = {"extra_specs": {"hw:cpu_policy": "none"}}
    assert cloud.refused("admin", "POST", url, wrong, "2.86")[1] == (
        "Validation failed; 'none' is not one of: dedicated, shared, mixed."
    )
    cloud.good("admin", "POST", url, wrong, "2.85")
    right = {"hw:cpu_policy": "shared"}
    assert cloud.good("admin", "PUT", f"{url}/hw:cpu_policy", right, "2.86") == right
    assert cloud.refused("admin", "PUT", f"{url}/hw:colour", {"hw:colour": "red"}, "2.86")[0] == 400
