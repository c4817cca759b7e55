"""The writer: declared objects in, one database transaction out.

`sources` read what is declared (files here, custom resources in `cluster`), `reconcile` compiles it and publishes the
difference, `issuers` keeps the public keys of token issuers, `ledger` mirrors the witness record, `cluster` is the
process that runs on Kubernetes and its admission webhook. `retention` and `overdue` look after the stored startups.
"""
