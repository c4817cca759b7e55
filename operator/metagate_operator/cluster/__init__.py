"""The operator on Kubernetes: declared objects are custom resources, verdicts become their status and events.

`watcher` (kopf) delivers watch events, `cluster_source` lists what is declared, `reporter` writes status after the
commit, `leader_election` keeps a second replica waiting, `preflight` refuses to start without what is needed, `rbac` is
the only list of rights. The admission webhook (`admission`) is a process of its own that shares only the rules with
them.
"""
