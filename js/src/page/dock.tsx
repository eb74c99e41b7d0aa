// What waits for a person, above the input: the exact arguments as a form; only what was changed is sent.

import { useEffect, useRef, useState } from "preact/hooks"
import type { Call } from "../core/index.js"
import { isAsked } from "./chat.js"
import { useBoard } from "./board.js"
import { findChanges, guessSchema, SchemaForm } from "./form.js"
import type { Values } from "./form.js"
import { decide, explain } from "./server.js"
import type { Watched } from "./watched.js"
import { say } from "./words.js"

export function Dock() {
  const { shown, isFile } = useBoard()
  if (isFile) return null
  const asked = shown.flatMap(watched => (watched.replay || (!watched.wasRead && watched.newest.status === "waiting") ? [] : watched.newest.calls.filter(call => isAsked(call) && !watched.decided.has(call.id)).map(call => ({ watched, call }))))
  if (!asked.length) return null
  return (
    <section class="dock" aria-label={say("approve")}>
      {asked.map(({ watched, call }, index) => <Question key={watched.id + call.id} watched={watched} call={call} isFirst={index === 0} />)}
    </section>
  )
}

function Question({ watched, call, isFirst }: { watched: Watched; call: Call; isFirst: boolean }) {
  const { app } = useBoard()
  const before = (call.asked ?? {}) as Values
  const [values, setValues] = useState(before)
  const [reason, setReason] = useState("")
  const [verdict, setVerdict] = useState<boolean>()
  const [note, setNote] = useState("")
  const form = useRef<HTMLFormElement>(null)
  useEffect(() => {
    // Whoever writes goes on writing; the question stays in view until then.
    const input = document.querySelector<HTMLTextAreaElement>(".message textarea")
    const isWriting = !!input?.value || /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "") && document.activeElement !== input
    if (isFirst && !isWriting) form.current?.querySelector<HTMLElement>("input:not([disabled]), select, textarea, button")?.focus()
  }, [])
  const schema = app?.tools[call.name]?.parameters
  const send = async (approved: boolean) => {
    if (verdict !== undefined || (approved && !form.current!.reportValidity())) return
    setVerdict(approved)
    try {
      const earlier = await decide(watched.id, { call: call.id, approved, reason: reason || undefined, changes: approved ? findChanges(before, values) : undefined })
      if (!earlier) watched.decided.add(call.id)
      setNote(earlier ? (earlier.by ? say("decidedBy", { name: earlier.by }) : say("decided")) : "")
    } catch (error) {
      setVerdict(undefined)
      setNote(explain(error))
    }
    void watched.watch()
  }
  return (
    <form ref={form} class="question" onSubmit={event => (event.preventDefault(), void send(true))}>
      <h2>? {say("waitsForYou", { name: call.name })}</h2>
      <div class="fields"><SchemaForm schema={schema?.properties ? schema : guessSchema(before)} prefix={call.id} values={values} onChange={setValues} /></div>
      <label class="field"><span>{say("reason")}</span><input value={reason} onInput={event => setReason(event.currentTarget.value)} autocomplete="off" /></label>
      <p class="buttons">
        <button class="primary" disabled={verdict !== undefined}>✓ {say("approve")}</button>
        <button type="button" class="deny" disabled={verdict !== undefined} onClick={() => send(false)}>⊘ {say("deny")}</button>
        {note && <span role="status">{note}</span>}
      </p>
    </form>
  )
}
