import { useState } from "react"
import type { FormEvent } from "react"
import { useStreamingAI } from "flowkit-agents"
import type { Call } from "flowkit-agents"

/** A chat with the agent that `flowkit serve` serves; `api` is where its routes are. */
export function Chat({ api, headers }: { api: string; headers?: Record<string, string> }) {
  const [draft, setDraft] = useState("")
  const [seen, setSeen] = useState<string[]>([])
  const { messages, isStreaming, currentThinking, functionCalls, status, error, sendMessage, abort, decide } = useStreamingAI({
    api,
    headers,
    onFunctionCall: call => setSeen(names => [...names, call.name]),
  })

  const send = (event: FormEvent) => {
    event.preventDefault()
    setDraft("")
    void sendMessage(draft)
  }

  return (
    <main>
      {messages.map(message => (
        <article key={message.id} data-role={message.role}>{message.content}</article>
      ))}
      {isStreaming && currentThinking && <aside>{currentThinking}</aside>}
      <ul>
        {functionCalls.filter(call => !call.parent).map(call => (
          <CallLine key={call.id} call={call} onDecide={approved => void decide(call.id, approved)} />
        ))}
      </ul>
      <p id="seen">{seen.join(" ")}</p>
      <p id="status">{status}</p>
      {error && <p role="alert">{error.message}</p>}
      <form onSubmit={send}>
        <input aria-label="Message" value={draft} onChange={event => setDraft(event.target.value)} />
        <button disabled={!draft.trim()}>Send</button>
        {isStreaming && <button type="button" onClick={() => void abort()}>Stop</button>}
      </form>
    </main>
  )
}

function CallLine({ call, onDecide }: { call: Call; onDecide(approved: boolean): void }) {
  return (
    <li data-call={call.name} data-status={call.status}>
      {call.name} {JSON.stringify(call.arguments)} {call.status}
      {call.asked !== undefined && !call.decision && (
        <>
          <button onClick={() => onDecide(true)}>Approve</button>
          <button onClick={() => onDecide(false)}>Deny</button>
        </>
      )}
    </li>
  )
}
