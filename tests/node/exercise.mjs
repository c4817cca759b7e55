// What each client does at the gateway: list, call, be refused, ask for something unknown, start a task and wait for its end.
export async function exercise(client) {
  const { tools } = await client.listTools();
  const echoed = await client.callTool({ name: 'tools.echo', arguments: { text: 'héllo' } });
  const refused = await client.callTool({ name: 'tools.never', arguments: {} });
  const unknown = await client.callTool({ name: 'tools.unknown', arguments: {} }).then(() => null, (error) => error.code);
  const input = { seconds: 0.2, status: 'success' };
  const started = await client.callTool({
    name: 'problemata.passthrough', arguments: { problemata_id: 'jobs', mode: 'async', input },
  });
  const task_id = started.structuredContent?.task_id;
  let status;
  for (let look = 0; look < 100; look++) {
    status = (await client.callTool({ name: 'problemata.status', arguments: { task_id } })).structuredContent;
    if (!['admitted', 'open'].includes(status?.state)) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return { tools: tools.map((tool) => tool.name), echoed, refused, unknown, started: started.structuredContent, status };
}
