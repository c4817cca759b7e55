// The official TypeScript SDK of the line before, which begins with a handshake: `node handshake_client.mjs URL KEY`.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { exercise } from './exercise.mjs';

const [url, key] = process.argv.slice(2);
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { 'X-API-Key': key } } });
const client = new Client({ name: 'handshake-client', version: '1' });
await client.connect(transport);
console.log(JSON.stringify(await exercise(client)));
await client.close();
