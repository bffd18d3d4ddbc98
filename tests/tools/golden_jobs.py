"""The files of tests/samples/jobs: an Experiment, and the Job and Service that its last mode becomes.

The Experiment is written by hand, with the row of the table that it stands for; what follows is made by `make generate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from runonce.controller.reconcile import ModeOf
from runonce.experiment.contract import Input
from runonce.experiment.job import JobPlan, Owner, Round
from runonce.experiment.spec import parse_experiment
from runonce.kube.cluster import Cluster, parse_cluster
from runonce.kube.resources import build_job, build_service

SAMPLES = Path(__file__).parents[1] / "samples"
FOLDER = SAMPLES / "jobs"
FILES = sorted(FOLDER.glob("*.yaml"))
_MARK = "---\n# Made by `make generate`.\n"


def cluster() -> Cluster:
    return parse_cluster((SAMPLES / "cluster.yaml").read_bytes())


def plan_of(resource: dict[str, Any], settled: Cluster) -> JobPlan:
    """The plan of an Experiment's last mode, in a first attempt of a round."""
    experiment = parse_experiment(resource)
    spec = experiment.spec
    mode = list(spec.modes())[-1]
    parts, key = spec.keys()[mode]
    trained = mode != "train" and "train" in spec.modes()
    inputs = {"train": Input(cache_key=spec.keys()["train"][1], manifest="2" * 64)} if trained else {}
    of_mode = ModeOf(
        name=experiment.name,
        spec=spec,
        mode=mode,
        parts=parts,
        cache_key=key,
        owner=Owner(uid="00000000-0000-4000-8000-000000000001", name=experiment.name),
        store=settled.store(spec).url_for(experiment.metadata.namespace),
        inputs=inputs,
        local=False,
        gpu=settled.shape(spec, mode).gpu_resource or ModeOf.gpu,
    )
    return of_mode.plan(Round(round="000000000000-round", machine="3" * 64))


def experiment_of(path: Path) -> str:
    """The part of the file that is written by hand."""
    return path.read_text(encoding="utf-8").split(_MARK)[0]


def made(path: Path) -> str:
    """The whole text of the file as it has to be."""
    settled, by_hand = cluster(), experiment_of(path)
    resource = yaml.safe_load(by_hand)
    namespace = resource["metadata"]["namespace"]
    plan = plan_of(resource, settled)
    objects = [build_job(plan, namespace=namespace, cluster=settled)]
    if plan.shape.coupled:
        objects.append(build_service(namespace))
    texts = [yaml.safe_dump(one, sort_keys=False, allow_unicode=True, width=1000) for one in objects]
    return by_hand + "".join(_MARK + text for text in texts)
