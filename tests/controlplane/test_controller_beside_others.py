"""Kueue, Argo CD and whoever else edits the same objects: for ten minutes nothing is written that nobody needs.

Kueue is played: its fields, under its own field manager, on the real API server. Minutes pass on a clock of the test.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from control_plane import wait_for
from recorder import Recorder

MERGE = "application/merge-patch+json"
STEP_S = 5.0
PHASES = ["Pending", "Running", "Pending", "Running"]


class Others:
    """What other managers do to the Job and the Experiment, each time something else."""

    def __init__(self, place, name: str) -> None:
        self.place, self._name, self._count = place, name, 0

    @property
    def job(self) -> str:
        return f"{self.place.jobs_path}/{self.place.job()['metadata']['name']}"

    def patch(self, path: str, body: dict, manager: str) -> None:
        self.place.api.must("PATCH", path, body, content=MERGE, fieldManager=manager)

    def edit(self) -> None:
        self._count += 1
        text = str(self._count)
        self.patch(self.job, {"metadata": {"annotations": {"kueue.x-k8s.io/workload": text}}}, "kueue")
        self.patch(self.job, {"metadata": {"labels": {"kueue.x-k8s.io/podset": f"p{text}"}}}, "kueue")
        experiment = f"{self.place.experiments}/{self._name}"
        self.patch(experiment, {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": text}}}, "argocd")
        self.patch(experiment, {"metadata": {"labels": {"team": f"t{text}"}}}, "people")

    def admit(self) -> None:
        template = {"spec": {"nodeSelector": {"pool": "a"}}, "metadata": {"labels": {"kueue.x-k8s.io/tas": "true"}}}
        self.patch(self.job, {"spec": {"suspend": False, "template": template}}, "kueue")

    def evict(self) -> None:
        """Its pods end, and only then is the template as it was."""
        self.patch(self.job, {"spec": {"suspend": True}}, "kueue")

        def restored() -> bool:
            template = {"spec": {"nodeSelector": None}, "metadata": {"labels": {"kueue.x-k8s.io/tas": None}}}
            body = {"spec": {"template": template}}
            return self.place.api.request("PATCH", self.job, body, content=MERGE, fieldManager="kueue").status == 200

        wait_for("the template as it was", restored)


def live(clock, others: Others, controller, minutes: int) -> None:
    """So much time passes, with an edit of others in each step, and a controller that looks at all of them.

    In the first minute the counts of processes may be written once more; in all others nothing is.
    """
    place = others.place
    for minute in range(minutes):
        if minute == 1:
            since = place.position()
        for _ in range(round(60 / STEP_S)):
            others.edit()
            clock.go_on(controller, STEP_S)
        before = controller._world.counted["passes"]
        others.edit()
        wait_for("a pass after it", lambda before=before: controller._world.counted["passes"] > before)
    assert not writes(place, since)


def writes(place, since: int) -> Counter[str]:
    out: Counter[str] = Counter()
    for call in place.calls(since):
        ref = call["objectRef"]
        if call["verb"] not in ("get", "list", "watch"):
            out["/".join(filter(None, (call["verb"], ref["resource"], ref.get("subresource"))))] += 1
    return out


def test_ten_minutes_beside_other_managers_cost_no_needless_write(place, clock):
    since, recorder = place.position(), Recorder(place.plane, place.experiments)
    controller = place.start()
    place.apply("queued", queueName="research")
    wait_for("its Job in the status", lambda: place.status("queued").get("job"))
    others = Others(place, "queued")
    place.kubelet.lingers_s = 1.5
    with place.kubelet.playing(place.namespace, lambda pod: None):
        live(clock, others, controller, 4)
        others.admit()
        place.until("queued", "Running")
        wait_for("both pods", lambda: place.job()["status"].get("ready") == 2)
        live(clock, others, controller, 4)
        assert place.job()["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "a"}
        others.evict()
        place.until("queued", "Pending")
        controller._job_cache.informers[0].relist()  # as after a 410
        live(clock, others, controller, 3)
        assert place.job()["spec"]["suspend"] is True
        others.admit()
        place.until("queued", "Running")
    place.stop()
    made = writes(place, since)
    # Each phase, and the counts of its processes once more.
    assert made.pop("patch/experiments/status") <= 2 * len(PHASES)
    assert made == {"create/services": 1, "create/jobs": 1}
    seen = [found["status"] for _, found in recorder.close() if found["status"].get("phase")]
    assert [phase for phase, _ in groupby(status["phase"] for status in seen)] == PHASES
