"""Jobs on Kubernetes: calls on the API server, caches that follow it, the resources that a plan becomes."""
