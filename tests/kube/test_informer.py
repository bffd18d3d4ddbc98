"""The cache that follows the API server, and each of the ways in which one that is less careful goes deaf."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable

import pytest
from conftest_kube import bookmark, job, listing, says, told, watching

from runonce.errors import SpecError
from runonce.experiment.spec import parse_experiment
from runonce.kube.caches import Caches
from runonce.kube.informer import Informer
from runonce.kube.objects import ExperimentObject, JobObject, shallow

PATH = "/apis/batch/v1/namespaces/n/jobs"


def until(condition: Callable[[], object], seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return value


@pytest.fixture
def follow(api):
    """A started informer of Jobs and the list of the changes that it told of."""
    started = []

    def start(**options):
        changes: list[tuple[str | None, str | None]] = []

        def note(old: JobObject | None, new: JobObject | None) -> None:
            changes.append((old and old.metadata.resource_version, new and new.metadata.resource_version))

        informer = Informer(api, PATH, JobObject, on_change=note, **({"min_backoff_s": 0.01} | options))
        informer.start()
        started.append(informer)
        return informer, changes

    yield start
    for informer in started:
        informer.stop()


def names(informer) -> list[str]:
    return sorted(object_.metadata.name for object_ in informer.all())


def test_it_lists_by_pages_and_then_watches_from_there_with_bookmarks(server, follow):
    server.script("get", listing(10, job("a", 3), more="next"), listing(10, job("b", 4)))
    server.script("watch", watching(told("ADDED", job("c", 11)), told("MODIFIED", job("a", 12)), bookmark(20)))
    informer, changes = follow()
    until(lambda: len(changes) == 4)
    assert (names(informer), informer.synced.is_set()) == (["a", "b", "c"], True)
    assert changes == [(None, "3"), (None, "4"), (None, "11"), ("3", "12")]
    first, second = server.of("get")
    assert (first.query, second.query) == ({"limit": "500"}, {"limit": "500", "continue": "next"})
    asked = until(lambda: server.of("watch"))[0].query
    assert (asked["resourceVersion"], asked["allowWatchBookmarks"]) == ("10", "true")
    assert 240 <= int(asked["timeoutSeconds"]) <= 360


def test_a_watch_that_ends_in_time_goes_on_from_the_newest_version_without_a_list(server, follow):
    server.script("get", listing(10))
    server.script("watch", watching(told("ADDED", job("a", 11)), bookmark(15), then="ends"), watching())
    follow()
    watches = until(lambda: (asked := server.of("watch")) and len(asked) >= 2 and asked)
    assert watches[1].query["resourceVersion"] == "15"
    assert len(server.of("get")) == 1


def test_a_deleted_object_is_gone_and_told_of(server, follow):
    server.script("get", listing(10, job("a", 3)))
    server.script("watch", watching(told("DELETED", job("a", 11))))
    informer, changes = follow()
    until(lambda: ("3", None) in changes)
    assert names(informer) == []


def test_silence_is_the_end_of_a_watch_and_then_all_is_listed_without_a_version(server, follow):
    """After a restore of etcd a watch from a version of the future stays silent for ever."""
    server.script("get", listing(10, job("a", 3)), listing(20, job("b", 15)))
    server.script("watch", watching(), watching())
    informer, changes = follow(silence_s=0.3)
    until(lambda: names(informer) == ["b"])
    assert {"resourceVersion", "resourceVersionMatch"}.isdisjoint(server.of("get")[-1].query)
    assert changes[:3] == [(None, "3"), ("3", None), (None, "15")]


def test_a_list_that_went_back_in_time_is_taken_and_told_of(server, follow):
    server.script("get", listing(100, job("a", 90)), listing(50, job("a", 40)))
    server.script("watch", watching(then="breaks"), watching())
    restored = threading.Event()
    informer, _ = follow(on_restore=restored.set)
    assert restored.wait(20)
    assert informer.get("n/a").version == 40
    until(lambda: server.of("watch")[-1].query["resourceVersion"] == "50")


def test_one_restore_drops_what_another_informer_knows(server, follow):
    server.script("get", listing(100, job("a", 90)), listing(40))
    server.script("watch", watching())
    informer, _ = follow()
    until(lambda: server.of("watch"))
    informer.relist()
    until(lambda: len(server.of("get")) == 2 and informer.synced.is_set())
    assert names(informer) == []


@pytest.mark.parametrize("code", [401, 403, 429, 500, 503])
def test_a_server_that_starts_is_asked_again(server, follow, code):
    server.script("get", says(code), says(code), listing(10, job("a", 3)))
    server.script("watch", says(code), watching())
    informer, _ = follow()
    until(lambda: len(server.of("watch")) == 2)
    assert names(informer) == ["a"]


def test_the_time_that_a_server_asks_for_is_waited(server, follow):
    server.script("get", says(503, Retry_After="1"), listing(10))
    server.script("watch", watching())
    follow()
    first, second = until(lambda: (asked := server.of("get")) and len(asked) == 2 and asked)
    assert second.at - first.at >= 1.0


@pytest.mark.parametrize(
    "gone", [says(410), watching(told("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"}), then="ends")]
)
def test_a_version_that_is_too_old_is_listed_anew_with_back_off(server, follow, gone):
    server.script("get", listing(10, job("a", 3)))
    server.script("watch", gone)
    follow(min_backoff_s=0.1)
    asked = until(lambda: (asked := server.of("get")) and len(asked) >= 4 and asked)
    pauses = [later.at - earlier.at for earlier, later in itertools.pairwise(asked)]
    assert pauses[2] > 0.2 > 0.04 < pauses[0]


@pytest.mark.parametrize("broken", [watching(then="ends"), watching(then="breaks"), says(403), says(500)])
def test_a_watch_that_ends_at_once_is_not_asked_for_again_and_again(server, follow, broken):
    server.script("get", listing(10))
    server.script("watch", broken)
    follow(min_backoff_s=0.2)
    watches = until(lambda: (asked := server.of("watch")) and len(asked) >= 4 and asked)
    assert watches[3].at - watches[0].at >= (0.2 + 0.4 + 0.8) / 2


def test_an_object_that_cannot_be_read_does_not_end_the_watching(server, follow):
    server.script("get", listing(10), listing(12, job("a", 11)))
    server.script("watch", watching(told("ADDED", {"metadata": {}})), watching())
    informer, _ = follow()
    until(lambda: names(informer) == ["a"])


@pytest.mark.parametrize("levels", [129, 300, 9_000, 200_000])
def test_an_object_that_is_nested_too_deeply_hides_no_other_and_is_refused_by_who_reads_its_spec(server, api, levels):
    """The parser of JSON ends at 200 levels, the API server at 10,000."""

    def experiment(name, version, params):
        return job(name, version) | {"spec": {"config": "m:C", "params": params}}

    deep = {"x": f"{levels} levels"}
    server.script("get", listing(10, experiment("a", 3, deep), experiment("b", 4, {})))
    server.script("watch", watching(told("ADDED", experiment("c", 11, deep)), told("ADDED", experiment("d", 12, {}))))
    informer = Informer(api, PATH, ExperimentObject, min_backoff_s=0.01)
    informer.start()
    try:
        until(lambda: names(informer) == ["a", "b", "c", "d"])
    finally:
        informer.stop()
    assert len(server.of("get")) == 1
    for name in ("a", "c"):
        with pytest.raises(
            SpecError, match=r"^spec\.params\.x\[0\].*: is nested more than 128 levels deep\. Flatten it\."
        ):
            parse_experiment(informer.get(f"n/{name}").document())


def test_what_no_parser_follows_is_emptied_and_all_else_stays_as_it_is():
    flat = json.dumps({'"]\\"[': ["]\\", {"}": '{[\\"'}], "é": [[], {}]}).encode()
    assert shallow(flat) == flat
    deep = b"[" * 1_000 + b'"]]"' + b"]" * 1_000
    told = b'{"a":' + flat + b',"b":' + deep + b',"c":' + flat + b"}"
    assert json.loads(shallow(told))["a"] == json.loads(shallow(told))["c"] == json.loads(flat)
    assert shallow(deep) == b"[" * 131 + b"]" * 131


# --- what one wrote oneself ---


def test_what_a_write_gave_back_is_there_before_the_watch_tells_of_it(server, follow):
    server.script("get", listing(10, job("a", 3)))
    go = threading.Event()

    def late(handler):
        go.wait(20)
        watching(told("MODIFIED", job("a", 11)), told("ADDED", job("b", 12)))(handler)

    server.script("watch", late)
    informer, changes = follow()
    until(informer.synced.is_set)
    informer.learn(JobObject.model_validate(job("b", 12)))
    assert names(informer) == ["a", "b"]
    go.set()
    until(lambda: ("3", "11") in changes)
    assert changes == [(None, "3"), (None, "12"), ("3", "11")]


@pytest.mark.parametrize("namespaces", [(), ("n",)])
def test_also_where_nothing_was_known_before(api, namespaces):
    caches = Caches(namespaces, lambda namespace: Informer(api, PATH, JobObject))
    caches.learn(JobObject.model_validate(job("a", 3)))
    assert caches.get("n/a").uid == caches.all()[0].uid


def test_an_old_answer_does_not_bring_back_what_is_gone(server, follow):
    server.script("get", listing(10, job("a", 3)))
    server.script("watch", watching(told("DELETED", job("a", 12))))
    informer, changes = follow()
    until(lambda: ("3", None) in changes)
    informer.learn(JobObject.model_validate(job("a", 11)))
    assert names(informer) == []


def test_an_object_is_found_by_its_index_until_that_changes(server, follow):
    def owner(uid):
        return {"metadata": {"ownerReferences": [{"kind": "Experiment", "name": "x", "uid": uid}]}}

    server.script("get", listing(10, job("a", 3, **owner("u"))))
    server.script("watch", watching(told("MODIFIED", job("a", 12, **owner("v")))))
    informer, changes = follow(index=lambda found: [one.uid for one in found.metadata.owner_references])
    until(lambda: ("3", "12") in changes)
    assert ([o.metadata.name for o in informer.find("v")], informer.find("u")) == (["a"], [])


def test_the_thread_ends_when_it_is_told_to_though_the_server_is_silent(server, follow):
    server.script("get", listing(10))
    server.script("watch", watching())
    informer, _ = follow()
    until(lambda: server.of("watch"))
    informer.stop()
    assert informer.idle_s() < 30
