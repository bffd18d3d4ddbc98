"""All that happens to the objects of one path, as a watch tells it: nothing is left out, and the order is the server's."""

from __future__ import annotations

import json
import threading
from typing import Any

from control_plane import CONTROLLER, ControlPlane, wait_for

from runonce.errors import ApiError, Unreachable
from runonce.kube.transport import Api

Event = tuple[str, dict[str, Any]]  # ADDED, MODIFIED, DELETED, and the object


class Recorder:
    """From its making to `close`. A part of the events that is lost is an error there."""

    def __init__(self, plane: ControlPlane, path: str) -> None:
        self._api, self._path = Api.connect(kubeconfig=str(plane.kubeconfig(CONTROLLER))), path
        listed = wait_for("a list", self._listed)
        self._version = str(listed["metadata"]["resourceVersion"])
        self.events: list[Event] = []
        self.faults: list[str] = []
        self._stop = threading.Event()
        self._watch = self._open()
        self._thread = threading.Thread(target=self._follow, name="recorder", daemon=True)  # of a test that failed
        self._thread.start()

    def _listed(self) -> Any:
        try:
            return json.loads(self._api.get(self._path))
        except Unreachable:
            return None  # the storage of a new kind is not there at once: 429

    def _open(self):
        return self._api.watch(
            self._path, resourceVersion=self._version, allowWatchBookmarks="true", timeoutSeconds="3600"
        )

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                for line in self._watch:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        self.faults.append(str(event["object"]))
                        return
                    self._version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self.events.append((event["type"], event["object"]))
                if not self._stop.is_set():
                    self._watch = self._open()
            except ApiError as error:
                if not self._stop.is_set():
                    self.faults.append(str(error))
                return

    def close(self) -> list[Event]:
        """What happened until now."""
        there = json.loads(self._api.get(self._path))["items"]
        wait_for("the watch", lambda: self.faults or all(self._knows(found) for found in there))
        self._stop.set()
        self._watch.close()
        self._thread.join()
        self._api.close()
        assert not self.faults, self.faults
        return self.events

    def _knows(self, found: dict[str, Any]) -> bool:
        return int(self._version) >= int(found["metadata"]["resourceVersion"])
