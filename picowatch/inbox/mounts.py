"""Where file events cannot be trusted."""

from pathlib import Path

# Events of other machines never arrive on these (watching.md): network file systems, and the
# shared folders of virtual machines and of Docker Desktop.
WITHOUT_EVENTS = {
    "9p", "acfs", "afs", "ceph", "cifs", "fakeowner", "glusterfs", "grpcfuse", "lustre", "ncpfs",
    "nfs", "nfs4", "osxfs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
}  # fmt: skip
# FUSE file systems on local disks, whose own changes do raise events.
LOCAL_FUSE = {"fuse.ext4", "fuse.ntfs", "fuse.ntfs-3g", "fuse.exfat", "fuse.gocryptfs", "fuseblk"}


def file_system_type(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that holds `folder`, or "" where the system does not tell."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best, kind = Path(), ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " ").replace("\\011", "\t"))
        # Of several mounts on one point the last is the one that is seen.
        if folder.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, fields[2]
    return kind


def events_are_reliable(kind: str) -> bool:
    """Whether inotify tells of every change on a file system of this type."""
    if kind.startswith("fuse.") or kind == "fuse":
        return kind in LOCAL_FUSE
    return kind not in WITHOUT_EVENTS
