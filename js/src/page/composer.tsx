// Where a person writes: a message for an agent, a form for a recipe.

import { useEffect, useRef, useState } from "preact/hooks"
import { useBoard } from "./board.js"
import type { Json } from "../core/index.js"
import { SchemaForm } from "./form.js"
import type { Values } from "./form.js"
import { say } from "./words.js"

const HANGUL = /[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff]$/

export function Composer() {
  const board = useBoard()
  const { app, runnable } = board
  if (!app || !runnable) return null
  return (
    <div class="composer">
      {app.runnables.length > 1 && (
        <select aria-label={say("choose")} value={board.chosen} onChange={event => (board.chosen = Number(event.currentTarget.value), board.changed())}>
          {app.runnables.map((each, index) => <option value={index}>{each.name}</option>)}
        </select>
      )}
      {runnable.kind === "agent" ? <MessageBox key={runnable.name} name={runnable.name} /> : <Inputs key={runnable.name} />}
    </div>
  )
}

function MessageBox({ name }: { name: string }) {
  const board = useBoard()
  const box = useRef<HTMLTextAreaElement>(null)
  const composed = useRef("")
  const sendsAfter = useRef(false)
  const send = () => {
    const message = box.current!.value.trim()
    // Emptied at once, so that an Enter that the browser tells a second time finds nothing to send.
    box.current!.value = ""
    grow()
    if (message) void board.start({ message })
  }
  const grow = () => {
    const style = box.current!.style
    style.height = "auto"
    style.height = `${Math.min(box.current!.scrollHeight, 180)}px`
  }
  useEffect(() => box.current?.focus(), [])
  const onKeyDown = (event: KeyboardEvent) => {
    const isComposing = event.isComposing || event.keyCode === 229
    if (event.key !== "Enter" && !(isComposing && event.code === "Enter")) return
    if (event.shiftKey) return
    if (!isComposing) {
      event.preventDefault()
      send()
    } else if (HANGUL.test(composed.current)) {
      // In Korean the last syllable is composed when Enter comes: send when it is there, so once and whole.
      // In Japanese and Chinese that Enter only chooses a word.
      event.preventDefault()
      sendsAfter.current = true
    }
  }
  return (
    <form class="message" onSubmit={event => (event.preventDefault(), send())}>
      <textarea
        ref={box} rows={1} aria-label={say("message")} placeholder={say("messageHint", { name })}
        onKeyDown={onKeyDown} onInput={grow}
        onCompositionUpdate={event => (composed.current = event.data)}
        onCompositionEnd={() => {
          composed.current = ""
          // The text is complete only when this event is over.
          if (sendsAfter.current) setTimeout(() => ((sendsAfter.current = false), send()))
        }}
      />
      {board.isBusy ? <button type="button" class="stop" onClick={board.stop}>■ {say("stop")}</button> : <button class="primary">{say("send")}</button>}
    </form>
  )
}

function Inputs() {
  const board = useBoard()
  const schema = board.runnable!.parameters ?? {}
  const properties = (schema.properties ?? {}) as Record<string, Values>
  // Every name from the start, in the order of the schema: the list of runs shows the first ones.
  const [values, setValues] = useState<Values>(() => Object.fromEntries(Object.entries(properties).map(([name, inner]) => [name, inner.default ?? undefined])))
  return (
    <form class="inputs" onSubmit={event => (event.preventDefault(), void board.start({ inputs: values as Json }))}>
      {board.runnable!.description && <p class="small">{board.runnable!.description}</p>}
      <SchemaForm schema={schema} values={values} onChange={setValues} />
      {board.isBusy ? <button type="button" class="stop" onClick={board.stop}>■ {say("stop")}</button> : <button class="primary">▶ {say("run")}</button>}
    </form>
  )
}
