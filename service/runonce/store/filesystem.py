"""Where a folder lies: on a file system of this machine, whose kernel keeps all locks, or on a shared one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Linux: `f_type` of statfs(2), linux/magic.h. What is not here, NFS, SMB, FUSE and 9P among it, may be shared.
_LOCAL = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x3153464A: "jfs",
    0x52654973: "reiserfs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlayfs",
    0xF15F: "ecryptfs",
}
_SHARED = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x5346414F: "afs",
    0x19830326: "beegfs",
}
_LOCAL_NAMES = frozenset((*_LOCAL.values(), "apfs", "hfs"))


class FileSystems:
    """Asks the system, by statfs."""

    def kind(self, path: Path) -> str:
        """The name of the file system on which `path` lies, or will lie; of an unknown one its number."""
        while not path.exists() and path != path.parent:
            path = path.parent
        return _darwin(path) if sys.platform == "darwin" else _linux(path)


SYSTEM = FileSystems()


def is_local(path: Path, systems: FileSystems | None = None) -> bool:
    """Whether locks there hold for all who can see it. False for what is not known: a lease holds everywhere."""
    return (systems or SYSTEM).kind(path) in _LOCAL_NAMES


def _linux(path: Path) -> str:
    number = int.from_bytes(_statfs("statfs", path)[: 4 if sys.maxsize < 2**32 else 8], sys.byteorder) & 0xFFFFFFFF
    return _LOCAL.get(number) or _SHARED.get(number) or f"{number:#x}"


def _darwin(path: Path) -> str:
    # sys/mount.h: f_fstypename is 16 bytes at 72, in the layout with inodes of 64 bits.
    call = "statfs" if os.uname().machine == "arm64" else "statfs$INODE64"
    return _statfs(call, path)[72:88].split(b"\0")[0].decode()


def _statfs(call: str, path: Path) -> bytes:
    import ctypes  # only who is about to write needs it

    answer = ctypes.create_string_buffer(4096)
    if getattr(ctypes.CDLL(None, use_errno=True), call)(os.fsencode(path), answer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return answer.raw
