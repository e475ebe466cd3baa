"""How much memory there is."""

import os

import jax


def total_memory() -> int:
    """Bytes of all machines and devices of this program together; 2**63 where it is unknown."""
    unknown = 2**63
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return unknown
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return machine * jax.process_count()
    of_device = (device.memory_stats() or {}).get("bytes_limit")
    return machine * jax.process_count() + of_device * jax.device_count() if of_device else unknown


__all__ = ["total_memory"]
