import { render } from "preact"
import { useEffect } from "preact/hooks"
import { board, useBoard } from "./board.js"
import type { Pane } from "./board.js"
import { Chat } from "./chat.js"
import { Composer } from "./composer.js"
import { Dock } from "./dock.js"
import { Gantt } from "./gantt.js"
import { Graph } from "./graph.js"
import { Inspector, State } from "./inspector.js"
import { Replay } from "./replay.js"
import { Runs } from "./runs.js"
import { findToken } from "./server.js"
import { getLanguage, say, setLanguage } from "./words.js"

const PANES: Pane[] = ["runs", "chat", "graph"]

function App() {
  const { error, isFile, pane, current, polite, urgent } = useBoard()
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "Escape" || event.isComposing) return
      if (board.call) board.select(undefined)
      else if (board.isBusy) void board.stop()
    }
    addEventListener("keydown", onKey)
    return () => removeEventListener("keydown", onKey)
  }, [])
  // All in one place: a language has no part of the page that keeps the other one.
  return (
    <>
      <main class={`page on-${pane}${isFile ? " file" : ""}`} key={getLanguage()}>
        <header class="top">
          <h1>{current?.newest.name ?? "flowkit"}</h1>
          {!isFile && <button onClick={() => (board.clear(), (board.pane = "chat"))}>+ {say("newChat")}</button>}
          <button lang={getLanguage() === "ko" ? "en" : "ko"} onClick={() => board.switchLanguage()}>{say("language")}</button>
        </header>
        <nav class="panes" aria-label="flowkit">
          {PANES.filter(each => !isFile || each !== "runs").map(each => (
            <button aria-pressed={pane === each} onClick={() => ((board.pane = each), board.changed())}>{say(each)}</button>
          ))}
        </nav>
        {!isFile && <Runs />}
        <div class="talk">
          {error && <p class="error" role="alert">{error}</p>}
          <Chat />
          <Dock />
          <Composer />
        </div>
        <Details />
      </main>
      <p class="hidden" role="status" aria-live="polite">{polite}</p>
      <p class="hidden" role="alert">{urgent}</p>
    </>
  )
}

/** The picture of the run that is chosen, and of one call in it. */
function Details() {
  const { current } = useBoard()
  if (!current?.events.length) return <section class="details" />
  const run = current.run
  return (
    <section class="details" aria-label={run.name}>
      <header>
        <h2>{run.name}</h2>
        <State state={run.status} />
        <span class="small">{run.model}</span>
      </header>
      <div class="pictures">
        <Graph key={current.id} run={run} />
        <Gantt watched={current} run={run} />
      </div>
      {board.call && <Inspector watched={current} run={run} />}
      <Replay watched={current} />
    </section>
  )
}

function open(log: HTMLElement | null) {
  setLanguage(getLanguage())
  if (log) board.openLog(JSON.parse(log.textContent!))
  else {
    findToken()
    void board.open()
  }
  render(<App />, document.getElementById("app")!)
}

open(document.getElementById("log"))
