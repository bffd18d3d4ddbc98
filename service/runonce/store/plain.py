"""Files as plain objects of S3, one object a file under its own name, for those who have no store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boto3.s3.transfer import TransferConfig

from runonce.store.backend import THREADS
from runonce.store.location import S3Location
from runonce.store.moved import Tell, nobody
from runonce.store.s3_client import connect
from runonce.store.s3_errors import named_errors

# The other client of boto3 ignores the endpoint. Large files go in parts: a single request ends at 5 GiB.
_CONFIG = TransferConfig(
    preferred_transfer_client="classic", multipart_threshold=64 << 20, multipart_chunksize=64 << 20, max_concurrency=2
)


class PlainObjects:
    """A prefix that is no store."""

    def __init__(self, location: S3Location) -> None:
        self._location, self.url = location, location.url
        with named_errors("open", "the bucket", self.url):
            self._client = connect(location)

    def has_any(self) -> bool:
        with named_errors("list", self._location.prefix, self.url):
            answer = self._client.list_objects_v2(Bucket=self._location.bucket, Prefix=self._location.prefix, MaxKeys=1)
        return bool(answer.get("Contents"))

    def put_folder(self, folder: Path, *, last: str, moved: Tell = nobody) -> None:
        """Every file below `folder`; `last` when all others are there."""
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: self._put(folder, name, moved), [name for name in names if name != last]))
        self._put(folder, last, nobody)

    def _put(self, folder: Path, name: str, moved: Tell) -> None:
        with named_errors("write", name, self.url):
            self._client.upload_file(
                str(folder / name),
                self._location.bucket,
                self._location.prefix + name,
                Config=_CONFIG,
                Callback=moved,
            )
