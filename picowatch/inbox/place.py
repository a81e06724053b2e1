"""Which folder the inbox is: another one may be mounted or moved to its path."""

import os
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """A folder, told from others that were at the same path."""

    device: int
    file_system: int
    inode: int

    @property
    def folder(self) -> str:
        """Return the text for the ledger, in which the folder is the same after a reboot."""
        return f"{self.file_system:x}:{self.inode}"


def place_of(root: Path) -> Place:
    """Return which folder this is. Raises OSError.

    The root of each ext4 disk has inode 2, that of each tmpfs 1, and a disk that is mounted in the
    place of another may get its device number. Ids of file systems differ then: those of ext4,
    Btrfs, ZFS, tmpfs and overlays come from a UUID, that of SMB from the volume's number. NFS and
    FUSE have none, so 0 stands here, and only inodes tell their folders. XFS, FAT and macOS give
    the device's number, which may change with a reboot: then the folder is taken for another one,
    and deletions from before are not noticed.
    """
    status = root.stat()
    try:
        file_system = os.statvfs(root).f_fsid
    except OSError:  # some FUSE file systems do not answer
        file_system = 0
    return Place(status.st_dev, file_system, status.st_ino)
