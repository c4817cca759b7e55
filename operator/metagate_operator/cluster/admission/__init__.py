"""The admission webhook: fast feedback for whoever applies, in a stateless process of its own.

It judges by the rules of the compiler (`metagate_crds.validation`), which judges again: a webhook that is bypassed or
away delays the feedback, never the truth. What one object alone makes wrong is refused; what depends on other objects
is only warned about, because GitOps applies in any order.
"""
