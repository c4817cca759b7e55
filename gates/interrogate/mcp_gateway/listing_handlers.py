"""GET /v1/problematas/{problemata_id}/tools: what the MCP servers behind a Problemata list now (GW-07)."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from interrogate.admission_gate import AdmissionGate
from interrogate.evaluation_handlers import authenticated
from interrogate.mcp_gateway.tool_comparison import compare_tools
from interrogate.mcp_gateway.upstream import Upstreams, UpstreamTarget
from interrogate.mcp_gateway.upstream_transport import UpstreamFailure
from interrogate.problem_codes import Code
from interrogate.problemata import Problemata
from interrogate.ruleset import TargetRule
from legivellum.base.json_digest import json_digest
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problems import refuse
from legivellum.identity.request_authenticator import require_caller
from legivellum.receipts.rights import role_of

_LISTING_SECONDS: Final = 10.0


class ListingHandlers:
    def __init__(self, gate: AdmissionGate, upstreams: Upstreams) -> None:
        self._gate = gate
        self._upstreams = upstreams

    async def tools(self, exchange: Exchange) -> Response:
        """For admins: it makes the gate ask servers, and shows what agents must not read before it is reviewed."""
        caller = require_caller(await authenticated(self._gate, exchange))
        if role_of(caller.type, caller.rights) != "admin":
            raise refuse(Code.ROLE_REQUIRED, "Only an admin may list the tools of MCP servers.")
        name = exchange.path_parameters["problemata_id"]
        problemata = self._gate.problematas.of(caller.tenant).get(name)
        if problemata is None or not self._gate.surfaces.matches(problemata.surface_id):
            raise refuse(Code.NOT_FOUND, "There is no such Problemata, or it is not served here.")
        targets = await asyncio.gather(*(self._listed(problemata, rule) for rule in self._rules(problemata)))
        body = {"problemata_id": problemata.name, "version": problemata.version, "targets": targets}
        return json_response(200, strict_json.encode(body))

    def _rules(self, problemata: Problemata) -> list[TargetRule]:
        """The MCP servers of its surface, also those of which nothing is declared yet. Raises PoliciesUnknown."""
        ruleset = self._gate.policies.find(problemata.tenant, problemata.policy_profile)
        surface = None if ruleset is None else ruleset.surfaces.get(problemata.surface_id)
        return [] if surface is None else [rule for rule in surface.targets.values() if rule.kind == "Mcp"]

    async def _listed(self, problemata: Problemata, rule: TargetRule) -> dict[str, Any]:
        target = UpstreamTarget(problemata.tenant, problemata.namespace, rule)
        shown: dict[str, Any] = {"target": rule.name, "reason": None, "detail": None, "tools": []}
        try:
            listed = await self._upstreams.listing(target, bearer=self._token(target), seconds=_LISTING_SECONDS)
        except UpstreamFailure as failure:
            return {**shown, "reason": failure.reason, "detail": failure.detail}
        tools = compare_tools(problemata, rule.name, listed)
        return {**shown, "tools": [tool.rendered() for tool in tools]}

    def _token(self, target: UpstreamTarget) -> str | None:
        """The gate's token for a server that knows it, as for a call of nothing: no admission stands behind it."""
        if self._gate.tokens is None or target.rule.audience is None:
            return None
        return self._gate.tokens.token(
            namespace=target.namespace,
            audience=target.rule.audience,
            admission="",
            task="",
            payload_sha256=json_digest({}),
        )
