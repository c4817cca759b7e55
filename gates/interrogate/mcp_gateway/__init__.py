"""The MCP gateway: `POST /mcp`, and the client of the MCP servers behind it."""
