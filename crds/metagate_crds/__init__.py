"""The language that people declare: models, rules, and the pure function from a declared world to what is served.

`kinds` and `models` are what can be declared, `rules` what no declaration may hold, `validation` what is wrong with one
spec. `compile` makes of many objects what is served, `plan` compares two worlds and explains a packet. `packet` is what
a component gets, `reasons` and `verdict` what a status says, `crd_yaml` the definitions for Kubernetes. Nothing here
does I/O.
"""
