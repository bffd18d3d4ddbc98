"""A completion index to what torch's launcher would have set. Pure."""

from __future__ import annotations

from collections.abc import Mapping

MASTER_PORT = 29400


def rank_env(env: Mapping[str, str], *, index: int, total: int, coupled: bool) -> dict[str, str]:
    """RANK and its kin for one process group over all indexes; nothing where the processes are independent.

    The runner of the Job has set MASTER_ADDR (and, where ports are shared, MASTER_PORT). One process a pod, so
    LOCAL_RANK is 0: devices are numbered anew for each process.
    """
    if not coupled:
        return {}
    address = env.get("MASTER_ADDR", "127.0.0.1")
    port = env.get("MASTER_PORT", str(MASTER_PORT))
    return {
        "RANK": str(index),
        "WORLD_SIZE": str(total),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_RANK": str(index),
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "PET_NNODES": str(total),
        "PET_NPROC_PER_NODE": "1",
        "PET_NODE_RANK": str(index),
        "PET_MASTER_ADDR": address,
        "PET_MASTER_PORT": port,
    }
