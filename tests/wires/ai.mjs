// The client of the package ai, as useChat has it, driven by steps; writes what it ends with as JSON.
//   node ai.mjs VERSION '{"url"|"file", "headers", "steps": [["send", "Hi"], ["answer", true], ["resume"], ["stop", PART], ["cancel", PART]]}'
import { readFile } from "node:fs/promises"

const [version, job] = [process.argv[2], JSON.parse(process.argv[3])]
const { AbstractChat, DefaultChatTransport, ...ai } = await import(`ai${version}`)
const data = [], errors = []
let requests = 0

class State {
  status = "ready"
  error = undefined
  messages = job.messages ?? []
  pushMessage = message => { this.messages = [...this.messages, message] }
  popMessage = () => { this.messages = this.messages.slice(0, -1) }
  replaceMessage = (index, message) => {
    this.messages = [...this.messages.slice(0, index), message, ...this.messages.slice(index + 1)]
  }
  snapshot = thing => structuredClone(thing)
}

class NodeChat extends AbstractChat {
  constructor(options) { super({ ...options, state: new State() }) }
}

async function answerFromFile() {
  const bytes = await readFile(job.file)
  return new Response(bytes, { headers: { "content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1" } })
}

const chat = new NodeChat({
  id: job.id ?? "chat-1",
  transport: new DefaultChatTransport({
    api: `${job.url}?v=${version}${job.query ?? ""}`,
    prepareReconnectToStreamRequest: ({ id }) => ({ api: `${job.url}/${id}/stream?v=${version}${job.query ?? ""}` }),
    headers: job.headers,
    fetch: async (...request) => { requests++; return job.file ? answerFromFile() : fetch(...request) },
  }),
  onData: part => data.push(part),
  onError: error => errors.push(String(error)),
  sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithApprovalResponses,
})

async function settle() {
  for (let quiet = 0; quiet < 5; ) {
    await new Promise(resolve => setTimeout(resolve, 20))
    quiet = ["submitted", "streaming"].includes(chat.status) ? 0 : quiet + 1
  }
}

/** What a button does that ends the run itself; the stream goes on and tells how each part ended. */
async function cancel(run) {
  const headers = { "content-type": "application/json", ...job.headers }
  const answer = await fetch(`${job.url.replace(/chat$/, "runs")}/${run}/cancel`, { method: "POST", headers, body: "{}" })
  if (!answer.ok) throw new Error(`cancel was answered with ${answer.status}`)
}

for (const [step, argument] of job.steps) {
  if (step === "send") await chat.sendMessage({ text: argument })
  if (step === "resume") await chat.resumeStream()
  if (step === "stop" || step === "cancel") {
    chat.sendMessage({ text: "Go" })
    while (!chat.lastMessage?.parts.some(part => part.type === argument && part.state !== "input-streaming"))
      await new Promise(resolve => setTimeout(resolve, 10))
    if (step === "stop") await chat.stop()
    else await cancel(chat.lastMessage.metadata.run)
  }
  if (step === "answer") {
    const asked = chat.lastMessage.parts.filter(part => part.state === "approval-requested")
    for (const part of asked)
      await chat.addToolApprovalResponse({ id: part.approval.id, approved: argument, reason: argument ? undefined : "no" })
  }
  await settle()
}
console.log(JSON.stringify({ messages: chat.messages, status: chat.status, data, errors, requests }))
process.exit(0)
