// Boots one component with Node's fetch as it is.
async function send(method, path, body) {
  const response = await fetch(process.env.GATE_URL + path, {
    method,
    headers: { 'X-API-Key': process.env.GATE_KEY, 'Content-Type': 'application/json' },
    body,
  });
  const text = await response.text();
  console.log(response.status, 'HTTP/1.1', text);
  return text;
}

const packet = JSON.parse(await send('POST', '/v1/bootstrap', JSON.stringify({ component_key: 'indexer_1' })));
const report = { startup_id: packet.startup.startup_id, build_version: '1' };
await send('POST', '/v1/startup/ready', JSON.stringify(report));
await send('GET', '/health');
