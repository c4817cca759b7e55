// What an agent does at the gateway, with the official TypeScript client: npm install; Node 22.18 or newer runs it as it is.
//
//     node agent.ts http://127.0.0.1:8005/mcp alice.key
import { readFileSync } from 'node:fs';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [gateway, keyFile] = process.argv.slice(2);
const key = readFileSync(keyFile!, 'utf8').trim();
const transport = new StreamableHTTPClientTransport(new URL(gateway!), { requestInit: { headers: { 'X-API-Key': key } } });
const client = new Client({ name: 'example-agent', version: '1' });
await client.connect(transport);

const { tools } = await client.listTools();
console.log('tools:', tools.map((tool) => tool.name).join(', '));
const times = await client.callTool({ name: 'time.get_current_time', arguments: { timezone: 'Asia/Tokyo' } });
console.log('answered:', times.isError ? 'False' : 'True');
// The policy allows five conversions an hour. A refusal is a result that the model reads, not an exception.
for (let request = 0; request < 6; request++) {
  const converted = await client.callTool({
    name: 'time.convert_time',
    arguments: { source_timezone: 'Etc/UTC', time: '12:00', target_timezone: 'Asia/Tokyo' },
  });
  if (converted.isError) {
    const refusal = converted.structuredContent as Record<string, unknown>;
    console.log('refused:', refusal.outcome, refusal.reason_code);
  }
}
await client.close();
