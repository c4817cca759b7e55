"""The language that people declare: models, rules, and the pure function from a declared world to what is served.

Where to look: `kinds` and `models` for what can be declared, `validation` for what is wrong with one spec, `world` and
`compiling` for many of them together, `packet` for what a component gets, `reasons` for what is said, `crd_yaml` for
Kubernetes. Nothing here does I/O.
"""
