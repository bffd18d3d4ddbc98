"""What the surroundings decide. The only reader of os.environ, but for the contract of a worker's process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """home: where everything of this user lies. store: URL of the default store.

    signing_key_file: keys of commit records. require_signed: a result that none of them has signed is none. transfers:
    how many requests to a store are under way at a time.
    """

    home: Path
    store: str
    signing_key_file: Path | None = None
    require_signed: bool = False
    transfers: str = ""

    def jobs(self, store: str) -> Path:
        """What runs, or ran, for the store of this URL: a Job of another store makes no result there."""
        within = store.removeprefix(f"{self.home}/")  # home may be moved
        return self.home / "jobs" / hashlib.sha256(within.encode()).hexdigest()[:12]

    @property
    def sources(self) -> Path:
        """Module lists by code digest, so that a mismatch can name the modules."""
        return self.home / "sources"

    @property
    def known(self) -> Path:
        """What files said, by their digest; see api.known."""
        return self.home / "known"

    @property
    def restored(self) -> Path:
        """Files of results in a store that is no folder, by the digest of their manifest."""
        return self.home / "restored"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """RUNONCE_HOME: else the user's data directory. RUNONCE_STORE: else a folder in it.

        RUNONCE_SIGNING_KEY_FILE; RUNONCE_REQUIRE_SIGNED: anything but 0, false, no. RUNONCE_TRANSFERS: 1 to
        32, 8 unless set.
        """
        given = env.get("RUNONCE_HOME")
        if given:
            home = Path(given).absolute()
        else:
            from platformdirs import user_data_path

            home = user_data_path("runonce", appauthor=False)
        keys = env.get("RUNONCE_SIGNING_KEY_FILE")
        return cls(
            home=home,
            store=env.get("RUNONCE_STORE") or str(home / "store"),
            signing_key_file=Path(keys).expanduser() if keys else None,
            transfers=env.get("RUNONCE_TRANSFERS", ""),
            require_signed=env.get("RUNONCE_REQUIRE_SIGNED", "").lower() not in ("", "0", "false", "no"),
        )
