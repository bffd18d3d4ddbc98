"""The chart that a release packages asks for the images that the same release has pushed."""

from __future__ import annotations

import re

import package_chart
import pytest
import yaml
from tests.chart.conftest import CHART, ROOT, of_kind

import runonce

RELEASE = (ROOT / ".github" / "workflows" / "release.yaml").read_text()


@pytest.mark.parametrize("owner", ["runonce-dev", "acme"])
def test_a_packaged_chart_asks_for_the_images_of_its_owner(helm, tmp_path, owner):
    before = (CHART / "values.yaml").read_text()
    package_chart.package(owner, tmp_path, helm=helm.program)
    archive = tmp_path / f"runonce-{runonce.__version__}.tgz"
    objects = [one for one in yaml.safe_load_all(helm.call("template", "lab", str(archive)).stdout) if one]
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"ghcr.io/{owner}/controller:{runonce.__version__}"
    (config,) = (one["data"] for one in of_kind(objects, "ConfigMap") if "config.yaml" in one["data"])
    assert f'workerImage: "ghcr.io/{owner}/worker:{runonce.__version__}"' in config["config.yaml"]
    assert (CHART / "values.yaml").read_text() == before


def test_a_release_pushes_images_and_chart_under_the_owner_that_the_chart_is_packaged_with():
    owner = "${GITHUB_REPOSITORY_OWNER,,}"
    assert f"image=ghcr.io/{owner}/$IMAGE" in RELEASE
    assert f'make chart-package OWNER="{owner}"' in RELEASE
    assert re.search(rf'helm push "dist/runonce-\S+\.tgz" "oci://ghcr\.io/{re.escape(owner)}/charts"', RELEASE)
