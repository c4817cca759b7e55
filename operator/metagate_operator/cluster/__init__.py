"""Kubernetes as the writer's door: declared objects are custom resources, verdicts are their status and events.

`bell` (kopf) tells that something changed, `source` says what is declared, `reporter` writes status after the commit,
`leadership` keeps a second replica waiting, `preflight` refuses to start without what is needed, `rbac` is the one list
of rights. The admission webhook (`admission`, `review`, `certificates`) is a process of its own that shares nothing
with them but the rules.
"""
