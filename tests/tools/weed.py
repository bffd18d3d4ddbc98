"""A real S3 server for tests: SeaweedFS as one process on loopback, with its data in a folder.

Two buckets, one of them versioned; who tests takes a prefix and never a bucket of its own, since every bucket claims
volumes. It is ended by SIGKILL alone: its polite end takes seconds and is not what a store is trusted for.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RECORDS, BLOBS = "records", "blobs"
KEY, SECRET = "testkeyofrunonce", "testsecretofrunonce"  # of everything on the server
REGION = "us-east-1"
READY_S = 60.0


class Weed:
    """The server and its ports. It can be killed and started again over the same data.

    volumes: how many it may make at most, of `volume_mib` each; as many as the disk has room for if not given.
    """

    def __init__(
        self,
        folder: Path,
        *,
        identities: Sequence[dict[str, Any]] = (),
        policies: Sequence[dict[str, Any]] = (),
        volumes: int = 0,
        volume_mib: int = 128,
    ) -> None:
        self._folder = folder
        self.volumes, self._volume_mib = volumes, volume_mib
        (folder / "data").mkdir(parents=True)
        everything = {
            "name": "all",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "keys.json").write_text(json.dumps({"identities": [everything, *identities], "policies": policies}))
        self._ports = dict(zip(("s3", "master", "volume", "filer", "admin"), _free_ports(5), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def port(self) -> int:
        return self._ports["s3"]

    def url(self, prefix: str, *, versioned: bool = True) -> str:
        """Of a store of its own below `prefix`; its blobs in the versioned bucket, or all in the plain one."""
        query = f"endpoint={self.endpoint}&region={REGION}"
        return f"s3://{RECORDS}/{prefix}?{query}" + (f"&blobs={BLOBS}/{prefix}" if versioned else "")

    def start(self) -> None:
        ports = self._ports
        arguments = [
            "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self._folder / 'data'}",
            f"-s3.config={self._folder / 'keys.json'}", "-master.telemetry=false", "-webdav=false", "-admin.ui=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", f"-bucket={RECORDS}",
            "-s3.concurrentUploadLimitMB=64", "-filer.concurrentUploadLimitMB=64", "-volume.concurrentUploadLimitMB=64",
            f"-volume.max={self.volumes}", f"-master.volumeSizeLimitMB={self._volume_mib}",
            *(f"-{name}.port={port}" for name, port in ports.items()),
            *(f"-{name}.port.grpc={port + 10000}" for name, port in ports.items() if name != "volume"),
        ]  # fmt: skip
        env = {**os.environ, "GOMEMLIMIT": "1000MiB", "TMPDIR": str(self._folder)}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([_program("weed"), *arguments], stdout=log, stderr=log, env=env)
        self._wait()

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def another_gateway(self) -> Iterator[int]:
        """One more door to the same store; its port."""
        (port,) = _free_ports(1)
        arguments = [
            "s3", "-ip.bind=127.0.0.1", f"-port={port}", f"-port.grpc={port + 10000}", "-port.iceberg=0", "-port.lance=0",
            f"-filer=127.0.0.1:{self._ports['filer']}", f"-config={self._folder / 'keys.json'}", "-autoCreateBucket=false",
        ]  # fmt: skip
        with (self._folder / "log2").open("ab") as log:
            process = subprocess.Popen([_program("weed"), *arguments], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + READY_S
            while True:
                assert process.poll() is None, (self._folder / "log2").read_text()[-2000:]
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield port
        finally:
            process.kill()
            process.wait()

    def client(self, key: str = KEY, secret: str = SECRET) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret,
            config=config,
        )  # fmt: skip

    def flip(self, bucket: str, key: str) -> None:
        """At rest, behind the writer's back: other bytes under all that the store says of the object."""
        client = self.client()
        found = client.head_object(Bucket=bucket, Key=key)
        client.put_object(Bucket=bucket, Key=key, Body=bytes(found["ContentLength"]), Metadata=found["Metadata"])
        client.close()

    def _wait(self) -> None:
        """Until it takes an object into both buckets."""
        deadline = time.monotonic() + READY_S
        client = self.client()
        while True:
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            try:
                with contextlib.suppress(
                    client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou
                ):
                    client.create_bucket(Bucket=BLOBS)
                client.put_bucket_versioning(Bucket=BLOBS, VersioningConfiguration={"Status": "Enabled"})
                for bucket in (RECORDS, BLOBS):
                    client.put_object(Bucket=bucket, Key="ready", Body=b"x")
                break
            except Exception:  # of many kinds while it starts
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        client.close()


@contextlib.contextmanager
def running(folder: Path, **given: Any) -> Iterator[Weed]:
    server = Weed(folder, **given)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    """A program that a wheel put beside the interpreter."""
    return str(Path(sys.executable).with_name(name))


def _free_ports(number: int) -> list[int]:
    """Ports that are free now, and free 10000 above, where the server's other protocol listens.

    Below those that the system gives to whoever connects (from 32768 on): one of them may be taken at any moment.
    """
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(12000, 22700)
        with contextlib.suppress(OSError):
            for one in (port, port + 10000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", one))
            if port not in found:
                found.append(port)
    return found
