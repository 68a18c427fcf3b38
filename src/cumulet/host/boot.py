"""Which boot this is: what was seen of devices and guests in an earlier one counts no more."""

from hashlib import blake2b
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id(run_dir: Path, kernel: Path = BOOT_ID) -> str:
    """Another text after each boot of the host, or of the node if that ended its guests.

    Who ends the guests of a running host writes a new text into ``guests.epoch`` in the node's run directory.
    """
    epoch = run_dir / "guests.epoch"
    text = kernel.read_text() + (epoch.read_text() if epoch.exists() else "")
    return blake2b(text.encode(), digest_size=16).hexdigest()
