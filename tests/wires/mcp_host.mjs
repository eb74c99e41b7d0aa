// A host of the other language: connects to an MCP server on standard input and output, lists and calls.
//
// Its argument is a JSON object: `command`, `args`, `calls` ([name, arguments]), and `approve`, what its user says.
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js"
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js"

const { command, args, calls, approve } = JSON.parse(process.argv[2])
const asked = []
const client = new Client({ name: "host", version: "1" }, { capabilities: { elicitation: {} } })
client.setRequestHandler(ElicitRequestSchema, async request => {
  asked.push(request.params.message)
  return { action: "accept", content: { approved: approve } }
})
await client.connect(new StdioClientTransport({ command, args, stderr: "inherit" }))
const { tools } = await client.listTools()
const results = []
for (const [name, given] of calls) results.push(await client.callTool({ name, arguments: given }))
await client.close()
console.log(JSON.stringify({ tools: tools.map(tool => tool.name), results, asked }))
