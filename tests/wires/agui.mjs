// HttpAgent of @ag-ui/client, driven by steps; writes what it ends with as JSON.
//   node agui.mjs '{"url"|"file", "headers", "steps": [["send", "Hi"], ["answer", true]]}'
import { HttpAgent } from "@ag-ui/client"
import { readFile } from "node:fs/promises"

const job = JSON.parse(process.argv[2])
const events = [], errors = [], warnings = []
console.warn = (...words) => warnings.push(words.join(" "))
console.error = (...words) => warnings.push(words.join(" "))
let result

async function answerFromFile() {
  return new Response(await readFile(job.file), { headers: { "content-type": "text/event-stream" } })
}

const agent = new HttpAgent({
  url: job.url ?? "http://localhost/",
  headers: job.headers,
  threadId: job.id ?? "thread-1",
  initialMessages: job.messages ?? [],
  ...(job.file && { fetch: answerFromFile }),
})
let interrupts = []
const watcher = {
  onEvent: ({ event }) => { events.push(event) },
  onRunFinishedEvent: ({ event }) => { result = event; interrupts = event.outcome?.interrupts ?? [] },
  onRunFailed: ({ error }) => { errors.push(String(error)) },
  onRunErrorEvent: ({ event }) => { errors.push(event.message) },
}
let count = 0
for (const [step, argument] of job.steps) {
  const runId = `client-run-${++count}`
  try {
    if (step === "send") {
      agent.addMessage({ id: `m${count}`, role: "user", content: argument })
      await agent.runAgent({ runId }, watcher)
    }
    if (step === "answer") {
      const resume = interrupts.map(({ id }) => ({ interruptId: id, status: "resolved", payload: { approved: argument } }))
      await agent.runAgent({ runId, resume }, watcher)
    }
  } catch (error) {
    errors.push(String(error))
  }
}
console.log(JSON.stringify({ messages: agent.messages, events, errors, warnings, result, interrupts }))
process.exit(0)
