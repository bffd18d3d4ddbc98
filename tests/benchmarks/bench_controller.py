"""A controller on a real API server: from the moment an object is applied to what is waited for, and what it costs to stay.

    bench_controller.py [--resident 1000,10000] [--rate 50] [--no-latencies]
    bench_controller.py --command 'manager --kubeconfig {kubeconfig}' --crds FOLDER --resource /apis/G/V/namespaces/{namespace}/KINDS
        --template object.json --field status.phase --value Succeeded

The second form times another controller by the same script on the same server: object.json is one object, in which every
{name} and {number} is replaced; the field is watched on that object; Jobs are found by their owner's name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tools")]

from control_plane import CONTROLLER, ControlPlane, wait_for  # noqa: E402
from kubelet import Kubelet  # noqa: E402
from place import Place, grant, spec  # noqa: E402
from programs import find  # noqa: E402

from runonce.errors import ApiError  # noqa: E402
from runonce.kube.objects import JobObject, ListOf  # noqa: E402
from runonce.kube.transport import Api  # noqa: E402

BURST = 500
TICKS = os.sysconf("SC_CLK_TCK")


class Seen:
    """When an object of a path was first seen to be as wanted, by name."""

    def __init__(self, api: Api, path: str, name_of: Callable[[dict[str, Any]], str | None]) -> None:
        self.at: dict[str, float] = {}
        self._api, self._path, self._name_of = api, path, name_of
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while True:
            with contextlib.suppress(ApiError):
                for line in self._api.lines(self._path, silence_s=3600, watch="true"):
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED") and (name := self._name_of(event["object"])):
                        self.at.setdefault(name, time.monotonic())


class Controller:
    """The process under test."""

    def __init__(self, command: str, kubeconfig: Path, namespace: str) -> None:
        line = command.format(kubeconfig=kubeconfig, namespace=namespace)
        self._process = subprocess.Popen(shlex.split(line), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def rss_mib(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def field_is(path: str, value: str) -> Callable[[dict[str, Any]], str | None]:
    def name_of(found: dict[str, Any]) -> str | None:
        at: Any = found
        for part in path.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        return found["metadata"]["name"] if str(at) == value else None

    return name_of


def owner_of(job: dict[str, Any]) -> str | None:
    owners = job["metadata"].get("ownerReferences") or [{}]
    return owners[0].get("name")


def timed(post: Callable[[str, int], None], seen: Seen, label: str, count: int, rate: float | None) -> list[float]:
    """Seconds from each POST's begin to when it was seen; one after the other, or so many a second."""
    begun: dict[str, float] = {}
    start = time.monotonic()
    for number in range(count):
        name = f"{label}-{number}"
        if rate is not None:
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
        begun[name] = time.monotonic()
        post(name, number)
        if rate is None:
            wait_for(name, lambda name=name: name in seen.at, within_s=120)
    wait_for(label, lambda: all(name in seen.at for name in begun), within_s=600)
    return [seen.at[name] - since for name, since in begun.items()]


def row(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{what:44} {p50 * 1e3:9.0f} {p99 * 1e3:9.0f}  ({len(ordered)})", flush=True)


@contextlib.contextmanager
def ours(plane: ControlPlane, namespace: str, folder: Path) -> Iterator[tuple[str, Place]]:
    grant(plane)
    (folder / "store").mkdir()
    place = Place(plane, namespace, folder / "store", Kubelet(plane.api()))
    config = folder / "controller.json"
    cluster = place.cluster().model_copy(update={"workers": 8})
    config.write_text(cluster.model_dump_json(by_alias=True, exclude_none=True))
    run = f"{sys.executable} -m runonce controller --config {config} --no-election --host 127.0.0.1 --port 0"
    yield run + " --kubeconfig {kubeconfig} -n {namespace}", place


def latencies(plane: ControlPlane, place: Place, command: str, rate: float) -> None:
    """The cold ones are suspended by a queue, so that the Job controller makes no pods: the POST is what is timed."""
    path = place.experiments
    seen = Seen(Api.connect(kubeconfig=str(plane.kubeconfig())), path, field_is("status.phase", "Succeeded"))
    jobs = Seen(Api.connect(kubeconfig=str(plane.kubeconfig())), place.jobs_path, owner_of)
    api = plane.api()

    def post(name: str, **changes: Any) -> None:
        body = {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": name}}
        api.must("POST", path, body | {"spec": spec(**changes)})

    def hit(name: str, number: int) -> None:
        post(name)

    def cold(name: str, number: int) -> None:
        post(name, params={"lr": hash(name) % 10**9 + 0.5}, queueName="bench")

    controller = Controller(command, plane.kubeconfig(CONTROLLER), place.namespace)
    try:
        timed(hit, seen, "warm", 1, None)  # its caches are filled
        print(f"{'':44} {'p50 ms':>9} {'p99 ms':>9}  objects")
        row("applied -> Succeeded on a hit, idle", timed(hit, seen, "hit", 60, None))
        row(f"applied -> Succeeded on a hit, {rate:g} a second", timed(hit, seen, "hits", int(rate * 8), rate))
        row("applied -> Job created, idle", timed(cold, jobs, "cold", 40, None))
        row(f"applied -> Job created, {rate:g} a second", timed(cold, jobs, "colds", int(rate * 4), rate))
        spent, begun = controller.cpu_s, time.monotonic()
        timed(hit, seen, "burst", BURST, 1e9)
        wall, cpu = time.monotonic() - begun, controller.cpu_s - spent
        told = f"{BURST / wall:9.0f}, {cpu / BURST * 1e3:.1f} ms of CPU each"
        print(f"{f'hits a second, {BURST} as fast as one applies them':44} {told}", flush=True)
    finally:
        controller.stop()
    bare(plane, place)
    for what, one, watch in (("hits", hit, seen), ("Jobs", cold, jobs)):
        there(what, one, watch, lambda: Controller(command, plane.kubeconfig(CONTROLLER), place.namespace))


def there(what: str, post: Callable[[str, int], None], seen: Seen, start: Callable[[], Controller]) -> None:
    """How fast those are worked off that stand there when a controller starts."""
    names = [f"{what.lower()}-there-{number}" for number in range(BURST)]
    for number, name in enumerate(names):
        post(name, 10**6 + number)
    controller = start()
    try:
        wait_for(what, lambda: seen.at.keys() >= set(names), within_s=600)
        cpu = controller.cpu_s
    finally:
        controller.stop()
    times = sorted(seen.at[name] for name in names)
    told = f"{(BURST - 1) / (times[-1] - times[0]):9.0f}, {cpu / BURST * 1e3:.1f} ms of CPU each, its start included"
    print(f"{f'{what} a second, {BURST} there when it starts':44} {told}", flush=True)


def bare(plane: ControlPlane, place: Place) -> None:
    """The writes alone, of a hit's status and of a Job, as eight threads make them that know what to write."""
    api, status = Api.connect(kubeconfig=str(plane.kubeconfig(CONTROLLER))), place.status("first")
    found = [one for one in place.api.must("GET", place.experiments)["items"] if one["metadata"]["name"] != "first"][
        :BURST
    ]

    def write(first: int) -> None:
        for one in found[first::8]:
            meta = {name: one["metadata"][name] for name in ("name", "namespace", "resourceVersion")}
            body = {"apiVersion": one["apiVersion"], "kind": one["kind"], "metadata": meta}
            changed = status | {"uid": one["metadata"]["uid"], "message": "written by the benchmark"}
            api.apply(f"{place.experiments}/{meta['name']}/status", body | {"status": changed})

    job = job_template(place)

    def make(first: int) -> None:
        for number in range(first, BURST, 8):
            api.post(place.jobs_path, job | {"metadata": job["metadata"] | {"name": f"alone-{number}"}})

    for what, work, count in (("such a status", write, len(found)), ("such a Job", make, BURST)):
        threads, begun = [threading.Thread(target=work, args=(first,)) for first in range(8)], time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told = f"{count / (time.monotonic() - begun):9.0f}"
        print(f"{f'{what} alone, written by 8 threads':44} {told} a second", flush=True)
    api.close()


def job_template(place: Place) -> dict[str, Any]:
    """A Job as the controller makes it, of nobody and suspended."""
    found = place.jobs()[0]
    meta = {name: found["metadata"][name] for name in ("labels", "annotations")} | {"ownerReferences": []}
    given = {name: value for name, value in found["spec"].items() if name != "selector"} | {"suspend": True}
    given["template"]["metadata"]["labels"] = {}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": given}


def first_result(plane: ControlPlane, place: Place, command: str) -> None:
    """What the hits are hits of."""
    controller = Controller(command, plane.kubeconfig(CONTROLLER), place.namespace)
    try:
        place.apply("first")
        with place.working():
            place.until("first", "Succeeded", within_s=120)
    finally:
        controller.stop()


def resident(plane: ControlPlane, place: Place, command: str, count: int) -> None:
    """count Experiments that are done and as many Jobs, and a controller that is started beside them."""
    api, alive = plane.api(), set(range(8))
    job = job_template(place)
    have = len(api.must("GET", place.experiments)["items"])

    def make(first: int) -> None:
        for number in range(have + first, count, len(alive)):
            body = {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": f"r-{number}"}}
            api.must("POST", place.experiments, body | {"spec": spec()})
            api.must("POST", place.jobs_path, job | {"metadata": job["metadata"] | {"name": f"resident-{number}"}})

    makers = [threading.Thread(target=make, args=(first,)) for first in alive]
    controller = Controller(command, plane.kubeconfig(CONTROLLER), place.namespace)
    seen = Seen(
        Api.connect(kubeconfig=str(plane.kubeconfig())), place.experiments, field_is("status.phase", "Succeeded")
    )
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    names = {f"r-{number}" for number in range(have, count)}
    wait_for("all to be done", lambda: names <= seen.at.keys(), within_s=1800)
    controller.stop()
    begun = time.monotonic()
    controller = Controller(command, plane.kubeconfig(CONTROLLER), place.namespace)
    try:
        body = {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": f"after-{count}"}}
        api.must("POST", place.experiments, body | {"spec": spec()})
        wait_for("the sync", lambda: f"after-{count}" in seen.at, within_s=300)
        sync_s = time.monotonic() - begun
        time.sleep(10)  # so that the passes over all are done
        before, since = controller.cpu_s, time.monotonic()
        time.sleep(20)  # the length of the measurement
        idle = (controller.cpu_s - before) / (time.monotonic() - since)
        jobs = len(api.must("GET", place.jobs_path)["items"])
        told = f"{count} Experiments and {jobs} Jobs resident"
        print(
            f"{told:44} sync {sync_s:.1f} s, {controller.rss_mib:.0f} MiB, idle {idle * 100:.1f} % of a core",
            flush=True,
        )
    finally:
        controller.stop()


def decoding(place: Place) -> None:
    from kubernetes import client

    template = place.jobs()[0]
    data = json.dumps({"metadata": {"resourceVersion": "1"}, "items": [template] * 1000}).encode()
    typed = client.ApiClient()

    class Answer:
        def __init__(self) -> None:
            self.data = data.decode()

    def best(work: Callable[[], object]) -> float:
        out = []
        for _ in range(5):
            begun = time.perf_counter()
            work()
            out.append(time.perf_counter() - begun)
        return statistics.median(out)

    lean = best(lambda: ListOf[JobObject].model_validate_json(data))
    full = best(lambda: typed.deserialize(Answer().data, "V1JobList", "application/json"))
    what = f"decoding 1,000 Jobs ({len(data) / 1e6:.1f} MB): lean, typed"
    print(f"{what:44} {lean * 1e3:.0f} ms, {full * 1e3:.0f} ms: {full / lean:.1f} times", flush=True)


def another(plane: ControlPlane, namespace: str, options: argparse.Namespace) -> None:
    """By the same script: any controller, object and field."""
    if options.crds:
        plane.apply_crds(Path(options.crds))
    path, text, api = options.resource.format(namespace=namespace), Path(options.template).read_text(), plane.api()
    watch = Api.connect(kubeconfig=str(plane.kubeconfig()))
    seen = Seen(watch, path, field_is(options.field, options.value))
    jobs = Seen(watch, f"/apis/batch/v1/namespaces/{namespace}/jobs", owner_of)

    def post(name: str, number: int) -> None:
        api.must("POST", path, json.loads(text.replace("{name}", name).replace("{number}", str(number))))

    controller = Controller(options.command, plane.kubeconfig(), namespace)
    try:
        print(f"{'':44} {'p50 ms':>9} {'p99 ms':>9}  objects")
        for what, place in ((f"applied -> {options.field} = {options.value}", seen), ("applied -> Job created", jobs)):
            if what.endswith("created") or options.value:
                label = "a" if place is seen else "b"
                row(f"{what}, idle", timed(post, place, f"{label}-idle", 40, None))
                count = int(options.rate * 4)
                row(f"{what}, {options.rate:g} a second", timed(post, place, f"{label}-rate", count, options.rate))
        print(f"{'memory':44} {controller.rss_mib:9.0f} MiB")
    finally:
        controller.stop()
    there("Jobs", post, jobs, lambda: Controller(options.command, plane.kubeconfig(), namespace))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resident", default="1000")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--no-latencies", dest="latencies", action="store_false")
    parser.add_argument("--command")
    parser.add_argument("--crds")
    parser.add_argument("--resource")
    parser.add_argument("--template")
    parser.add_argument("--field", default="status.phase")
    parser.add_argument("--value", default="", help="empty: only the Job is waited for")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with ControlPlane(find()) as plane, plane.namespace() as namespace, tempfile.TemporaryDirectory() as folder:
        if options.command:
            another(plane, namespace, options)
            return
        with ours(plane, namespace, Path(folder)) as (command, place):
            first_result(plane, place, command)
            if options.latencies:
                latencies(plane, place, command, options.rate)
            decoding(place)
            for count in sorted(int(part) for part in options.resident.split(",") if part):
                resident(plane, place, command, count)


if __name__ == "__main__":
    main()
