"""`metagate dev` has the console, and it tells of every value of a packet where it comes from."""

import httpx
import pytest
from tests.integration.console.visiting import hidden, page_text
from tests.integration.dev.running import DeclaredFolder, Dev, binding, manifest

pytestmark = pytest.mark.timeout(120)


def test_a_packet_told_by_layers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A startup's page says what it was told then, the principal's what it would be told now, history what came between."""
    folder = tmp_path_factory.mktemp("console")
    world = DeclaredFolder(folder / "resources")
    world.write("bindings.yaml", binding("ada", overrides={"capabilities": {"write": True}}))
    dev = Dev(world.folder, folder / "data")
    try:
        dev.ready()
        session = dev.bootstrap(world.key).json()["startup"]["startup_id"]
        world.write("manifest.yaml", manifest("north"))
        dev.until(lambda: dev.region(world.key) == "north", 10)
        with httpx.Client(base_url=dev.url, timeout=10, trust_env=False) as client:
            form = {"token": hidden(client.get("/console/sign-in"), "token"), "credential": world.admin.key}
            assert client.post("/console/sign-in", data=form).status_code == 303
            then = page_text(client.get(f"/console/startups/{session}"))
            now = page_text(client.get("/console/principals/ada"))
            past = page_text(client.get("/console/history"))
    finally:
        if dev.process.poll() is None:
            assert dev.stop() == 0
    assert '/environment/region "eu" manifest /spec/environment/region' in then
    assert '/environment/region "north" manifest /spec/environment/region' in now
    for page in (then, now):
        assert "/capabilities/write true override /spec/overrides/capabilities/write" in page
        assert "/capabilities/read true profile /spec/capabilities/read" in page
        assert "equal to the byte" in page
        assert "Manifest default/world" in page
    assert "changed default Manifest world" in past
    assert 'Value Before After /environment/region "eu" "north"' in past, "each value that a publish changed"
    assert '/type not there "component"' in past, "of what is new, every value"
    assert f'/apiKeys/0/id not there "{world.key.id}"' in past
    assert world.key.sha256 not in past, "no list shows digests of API keys (EXT-10)"
