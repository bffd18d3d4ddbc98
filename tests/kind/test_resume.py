"""A training that lost a pod ends in the very weights of one that was left alone."""

from __future__ import annotations

import pytest
import torch
from laptop import Laptop
from stores import PLAIN
from story import SALT, train

from runonce.store.url import open_store


@pytest.fixture
def laptop(story, tmp_path):
    return Laptop(story, tmp_path)


def test_a_lost_pod_costs_no_bit_of_the_weights(story, laptop, monkeypatch):
    often = {"RUNONCE_CHECKPOINT_S": "0.5"}
    long = {"epochs": 120, "env": often, "retries": 0}
    laptop.submit(laptop.digits("whole", **long, cacheKeyExtra=[SALT, "whole"]))
    laptop.submit(laptop.digits("robbed", **long, cacheKeyExtra=[SALT, "robbed"]))
    for name, value in PLAIN.credentials().items():
        monkeypatch.setenv(name, value)
    with PLAIN.forwarded(story.cluster, story.namespace) as url:
        backend = open_store(url)
        key = story.wait("its key", lambda: _key(story, "robbed"))
        prefix = f"w/{key}/"
        story.wait("a checkpoint", lambda: any("/k/" in entry.name for entry in backend.list(prefix)))
        (job,) = (job for job in story.all("jobs") if job["metadata"]["annotations"]["runonce.dev/cache-key"] == key)
        pods = story.all("pods", labelSelector=f"batch.kubernetes.io/job-name={job['metadata']['name']}")
        story.evict(pods[0])
        robbed, whole = story.succeeded("robbed", seconds=800), story.succeeded("whole", seconds=800)
        assert (train(robbed)["attempt"], train(whole)["attempt"]) == (2, 1)
        weights = []
        for name in ("whole", "robbed"):
            laptop.runonce("pull", name, name, "--mode", "train", "--store", url)
            weights.append(torch.load(laptop.folder / name / "weights.pt", weights_only=True))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][part], weights[1][part]) for part in weights[0])


def _key(story, name):
    return story.experiment(name).get("status", {}).get("modes", {}).get("train", {}).get("cacheKey")
