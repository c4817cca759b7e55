"""kubectl apply to a packet in the database and an honest status, on a real API server."""

from tests.operator.machinery import Operator, Tenancy


async def test_what_is_applied_is_served_and_says_so(tenancy: Tenancy, operator: Operator) -> None:
    """A Principal with its Profile, Manifest and Binding becomes Ready, and the packet is in the database."""
    tenancy.apply(*tenancy.world())
    tenancy.wait_ready("pb/indexer", "principal/indexer", "profile/worker", "manifest/prod")
    packet = await tenancy.packet()
    assert packet is not None
    assert packet["environment"] == {"tier": "prod"}
    binding = tenancy.get("PrincipalBinding", "indexer")
    assert binding["status"]["observedGeneration"] == binding["metadata"]["generation"]
    assert binding["status"]["snapshot"]["generation"] == 1
    assert tenancy.get("Manifest", "prod")["status"]["uses"] == 1
