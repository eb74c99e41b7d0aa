// The conversation: what was said, thinking folded, a card for each call.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import type { Call, Run, Turn } from "../core/index.js"
import { board, useBoard } from "./board.js"
import { Cards, Clock } from "./card.js"
import { canFork, Fork } from "./fork.js"
import { State } from "./inspector.js"
import { act, explain } from "./server.js"
import { Fold, Value } from "./values.js"
import type { Watched } from "./watched.js"
import { say, showCost, showSeconds } from "./words.js"

/** How near the end one has to be for the page to follow. */
const NEAR = 64

export function Chat() {
  const { shown, current, runs } = useBoard()
  const box = useRef<HTMLDivElement>(null)
  const [isFollowing, setFollowing] = useState(true)
  const toEnd = () => box.current && (box.current.scrollTop = box.current.scrollHeight)
  useLayoutEffect(() => {
    if (isFollowing) toEnd()
    else onScroll() // a replay may have made it short
  })
  useEffect(() => setFollowing(true), [current])
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current!
    setFollowing(scrollHeight - scrollTop - clientHeight < NEAR)
  }
  return (
    <div class="chat">
      <div class="log" role="log" aria-live="off" aria-label={say("chat")} tabIndex={0} ref={box} onScroll={onScroll}>
        {!shown.length && <p class="empty">{say("nothing")}</p>}
        {shown.map(watched => (
          <Exchange key={watched.id} watched={watched} title={runs.find(run => run.run === watched.id)?.title} />
        ))}
      </div>
      {!isFollowing && <button class="newer" onClick={() => (toEnd(), setFollowing(true))}>↓ {say("newer")}</button>}
    </div>
  )
}

function Exchange({ watched, title }: { watched: Watched; title?: string }) {
  const { run } = watched
  const turnOf = new Map<string, number>()
  for (const turn of run.turns) for (const id of turn.calls) turnOf.set(id, turn.turn)
  const top = run.calls.filter(call => !call.parent)
  const message = run.message ?? watched.said ?? (run.model ? title : undefined)
  return (
    <section class={watched === board.current ? "exchange current" : "exchange"} onClick={() => watched !== board.current && board.select(undefined, watched)}>
      {message && <p class="said"><span class="hidden">{say("message")}: </span>{message}</p>}
      {!run.model && run.inputs !== null && <div class="said"><Value value={run.inputs} /></div>}
      <Cards calls={top.filter(call => !turnOf.has(call.id))} watched={watched} run={run} />
      {run.turns.map((turn, index) => (
        <Answer key={turn.turn} turn={turn} calls={top.filter(call => turnOf.get(call.id) === turn.turn)} watched={watched} run={run} isLast={index === run.turns.length - 1} />
      ))}
      {!run.model && run.status === "done" && run.output !== null && <section class="output"><h3>{say("output")}</h3><Value value={run.output} /></section>}
      {run.model && run.partial != null && <section class="output"><h3>{say("output")}</h3><Value value={run.partial} /></section>}
      <Ending watched={watched} run={run} />
    </section>
  )
}

function Answer({ turn, calls, watched, run, isLast }: { turn: Turn; calls: Call[]; watched: Watched; run: Run; isLast: boolean }) {
  const isOpen = isLast && run.status === "running" && turn.tEnd === undefined
  const isThinking = isOpen && !turn.text && !calls.length
  return (
    <>
      {turn.thinking && (
        <div class="thinking">
          <Fold title={isThinking ? <>{say("thinking")} … <Clock start={turn.tStart} watched={watched} /></> : say("thought", { s: showSeconds((turn.tThought ?? turn.tStart) - turn.tStart) })}>
            {() => <p class="text">{turn.thinking}</p>}
          </Fold>
        </div>
      )}
      {isThinking && !turn.thinking && <p class="dots" aria-hidden="true">● ● ●</p>}
      {turn.text && <p class="answer text">{turn.text}{isOpen && <span class="caret" aria-hidden="true" />}</p>}
      {turn.error && <p class="error">{turn.error}</p>}
      <Cards calls={calls} watched={watched} run={run} />
      {canFork(watched) && <Fork watched={watched} at={turn.turn} />}
    </>
  )
}

/** How the run stands, and what a person may do about it. */
function Ending({ watched, run }: { watched: Watched; run: Run }) {
  const [isBusy, setBusy] = useState(false)
  const press = async (action: "resume" | "resolve", body?: object) => {
    setBusy(true)
    try {
      await act(watched.id, action, body)
      void watched.watch()
    } catch (error) {
      watched.error = explain(error)
    }
    setBusy(false)
  }
  const last = watched.events.at(-1)
  const isLive = !board.isFile && !watched.replay && !watched.isWatching
  if (watched.isMissing) return <p class="error">{say("missing")}</p>
  return (
    <footer class="ending small">
      {run.status !== "running" && <State state={run.status} />}
      {run.error && <p class="error">{run.error}</p>}
      {watched.error && <p class="error">{watched.error}</p>}
      {last?.type === "turn.retried" && run.status === "running" && <span>{say("retrying", { s: showSeconds(last.delay_s) })} {last.error}</span>}
      {watched.cuts > 0 && <span>{say("reconnecting", { n: watched.cuts })}</span>}
      <span>{run.status === "running" ? watched.isWatching && <Clock start={0} watched={watched} /> : showSeconds(run.seconds)}</span>
      {run.usage.input_tokens > 0 && <span>{run.usage.input_tokens + run.usage.output_tokens} {say("tokens")}</span>}
      {run.cost.usd > 0 && <span>{showCost(run.cost)}</span>}
      {run.tips.length > 0 && <Fold title={say("tips")}>{() => <ul>{run.tips.map(tip => <li>{tip}</li>)}</ul>}</Fold>}
      {isLive && (run.status === "stopped" || (run.status === "waiting" && !run.calls.some(isAsked))) && (
        <>
          {run.status === "stopped" && <span>{say("stoppedHint")}</span>}
          <button disabled={isBusy} onClick={() => press("resume")}>{say("goOn")}</button>
        </>
      )}
      {isLive && run.calls.filter(call => call.state === "in_doubt").map(call => (
        <p>
          {say("inDoubtHint", { name: call.name })}{" "}
          <button disabled={isBusy} onClick={() => press("resolve", { call: call.id, resolution: "done" })}>{say("happened")}</button>{" "}
          <button disabled={isBusy} onClick={() => press("resolve", { call: call.id, resolution: "retry" })}>{say("notHappened")}</button>
        </p>
      ))}
    </footer>
  )
}

export const isAsked = (call: Call) => call.asked !== undefined && !call.decision && call.status === "pending"
