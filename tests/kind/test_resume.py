"""A training that lost a pod ends in the very weights of one that was left alone."""

from __future__ import annotations

import json

import pytest
import torch
from laptop import Laptop
from stores import PLAIN
from story import SALT, train

from runonce.store.url import open_store
from runonce.worker.checkpoint import Checkpoints


@pytest.fixture
def laptop(story, tmp_path):
    return Laptop(story, tmp_path)


def test_a_lost_pod_costs_no_bit_of_the_weights(story, laptop, monkeypatch, tmp_path):
    """One is evicted where no checkpoint was due: what it goes on from it saved when it was told to end, in its grace
    period. Of another a process is killed.
    """
    names = ("whole", "evicted", "killed")

    def submit(name, checkpoint_s):
        env, extra = {"RUNONCE_CHECKPOINT_S": checkpoint_s}, [SALT, name]
        laptop.submit(laptop.digits(name, epochs=60, tests=0, env=env, retries=1, cacheKeyExtra=extra))

    for name, value in PLAIN.credentials().items():
        monkeypatch.setenv(name, value)
    with PLAIN.forwarded(story.cluster, story.namespace) as url:
        submit("whole", "1000")
        submit("evicted", "1000")
        first, _ = _run(story, "evicted")
        story.tell(first, "until [ -s /tmp/runonce-*/output/metrics.jsonl ]; do sleep 0.1; done")
        story.evict(first)
        submit("killed", "0.5")
        _, second = _run(story, "killed")
        saved = _checkpoints(story, "killed", url, tmp_path)
        newest = story.wait("a checkpoint", lambda: next(saved.newest(), None))
        story.kill(second)
        done = {name: train(story.succeeded(name, seconds=800)) for name in names}
        assert [one["attempt"] for one in done.values()] == [1, 2, 2]
        assert story.resumed(done["evicted"]["job"]) > 0
        assert story.resumed(done["killed"]["job"]) >= newest.step
        for name in names:
            laptop.runonce("pull", name, name, "--mode", "train", "--store", url)
    whole, *others = (torch.load(laptop.folder / name / "weights.pt", weights_only=True) for name in names)
    for other in others:
        assert whole.keys() == other.keys()
        assert all(torch.equal(whole[part], other[part]) for part in whole)


def _run(story, name):
    """Both processes of the training, once they run."""

    def there():
        job = story.experiment(name).get("status", {}).get("modes", {}).get("train", {}).get("job")
        pods = story.pods_of(job, fieldSelector="status.phase=Running") if job else ()
        return pods if len(pods) == 2 else None

    return story.wait(f"the processes of {name}", there)


def _checkpoints(story, name, url, scratch):
    status = train(story.experiment(name))
    return Checkpoints(
        open_store(url),
        cache_key=status["cacheKey"],
        round_=json.loads(status["round"])["round"],
        total=2,
        attempt="",
        index=0,
        scratch=scratch,
    )
