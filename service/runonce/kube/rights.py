"""What a controller calls, as rules of a Role: the chart's are checked against these. Nothing else is asked for."""

from __future__ import annotations

RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("runonce.dev", "experiments", ("list", "watch")),
    ("runonce.dev", "experiments/status", ("patch",)),
    ("batch", "jobs", ("create", "delete", "get", "list", "patch", "watch")),
    ("", "pods", ("list",)),
    ("", "services", ("create", "get")),  # get: to tell ours from another one of the name
    ("", "events", ("list",)),  # why no pod came
    ("events.k8s.io", "events", ("create",)),
)

# In the controller's own namespace alone.
LEASE_RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("coordination.k8s.io", "leases", ("create", "get", "update")),
)


def rules(entries: tuple[tuple[str, str, tuple[str, ...]], ...]) -> list[dict[str, list[str]]]:
    """As a Role has them."""
    return [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for group, resource, verbs in entries]
