// A new run that begins with what this one had come to.

import { useState } from "preact/hooks"
import type { Json } from "../core/index.js"
import { board } from "./board.js"
import type { Watched } from "./watched.js"
import { explain } from "./server.js"
import { say } from "./words.js"

/** Whether a new run can begin from a turn of it. */
export const canFork = (watched: Watched) => !board.isFile && !watched.replay && !watched.isWatching && !!watched.newest.model

/** Fork before the turn `at`: with another message, or with another result of `call`. */
export function Fork({ watched, at, call, value }: { watched: Watched; at: number; call?: string; value?: Json }) {
  const [text, setText] = useState<string>()
  const [error, setError] = useState("")
  if (text === undefined)
    return <button class="link fork" onClick={() => setText(call ? JSON.stringify(value, null, 1) : "")}>↳ {say("fork")}</button>
  const go = async (event: Event) => {
    event.preventDefault()
    try {
      await board.fork(watched, { at: `turn/${at}`, ...(call ? { results: { [call]: JSON.parse(text) } } : text && { message: text }) })
    } catch (error) {
      setError(explain(error))
    }
  }
  return (
    <form class="fork" onSubmit={go} ref={form => form?.scrollIntoView({ block: "nearest" })}>
      <textarea rows={call ? 6 : 2} aria-label={say(call ? "result" : "forkHint")} placeholder={say("forkHint")} value={text} onInput={event => setText(event.currentTarget.value)} />
      <button class="primary">↳ {say("fork")}</button>
      {error && <p class="error">{error}</p>}
    </form>
  )
}
