// The official TypeScript client of the current line: `node modern_client.mjs URL KEY`. It prints one JSON document.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { exercise } from './exercise.mjs';

const [url, key] = process.argv.slice(2);
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { 'X-API-Key': key } } });
const client = new Client({ name: 'modern-client', version: '1' });
await client.connect(transport);
console.log(JSON.stringify(await exercise(client)));
await client.close();
