// Everything that is known of one call.

import { useState } from "preact/hooks"
import type { Call, Json, Run, RunEvent } from "../core/index.js"
import { board } from "./board.js"
import { canFork, Fork } from "./fork.js"
import { stateOf } from "./graph.js"
import { getCall } from "./server.js"
import { isPlain, Value } from "./values.js"
import type { Watched } from "./watched.js"
import { say, sayState, SHAPES, showCost, showSeconds } from "./words.js"
import type { Word } from "./words.js"

export function Inspector({ watched, run }: { watched: Watched; run: Run }) {
  const call = run.calls.find(call => call.id === board.call)
  if (!call) return null
  const state = stateOf(call)
  const { cost, tokens } = sumUsage(watched.events, call.id)
  return (
    <aside class="inspector" aria-label={call.name} data-call={call.id}>
      <header>
        <h2>{call.name}</h2>
        <State state={state} />
        <button aria-label={say("close")} onClick={() => board.select(undefined)}>✕</button>
      </header>
      <p class="small">{call.id}{call.early && ` · ${say("early")}`}</p>
      <Facts call={call} run={run} cost={showCost(cost)} tokens={tokens} />
      {call.error && <Part title={say("error")}><p class="text">{call.error}</p></Part>}
      {call.decision && (
        <p>{say(call.decision.approved ? "approvedBy" : "deniedBy", { name: call.decision.by ?? say("aPerson") })}{call.decision.reason && `: ${call.decision.reason}`}</p>
      )}
      {(call.raw || !isPlain(call.arguments)) && (
        <Part title={say("arguments")} value={call.arguments}>
          {call.state === "new" && call.raw ? <pre>{call.raw}</pre> : <Value value={call.arguments} />}
        </Part>
      )}
      {call.decision?.arguments != null && <Part title={`${say("arguments")} · ${say("approve")}`} value={call.decision.arguments}><Value value={call.decision.arguments} /></Part>}
      {call.repaired.length > 0 && <Part title={say("repaired")}><ul>{call.repaired.map(what => <li>{what}</li>)}</ul></Part>}
      {call.thinking && <Part title={say("thinking")}><p class="text">{call.thinking}</p></Part>}
      {call.text && <Part title={say("message")}><p class="text">{call.text}</p></Part>}
      {call.result !== undefined && <Part title={say("result")} value={call.result}><Result key={call.id} run={watched.id} call={call} /></Part>}
      {call.result !== undefined && run.turns.some(turn => turn.calls.includes(call.id)) && canFork(watched) && <Fork key={call.id} watched={watched} at={call.turn + 1} call={call.id} value={call.result} />}
    </aside>
  )
}

export function State({ state }: { state: string }) {
  return <span class={`state ${state}`}><span aria-hidden="true">{SHAPES[state]}</span> {sayState(state)}</span>
}

function Part({ title, value, children }: { title: string; value?: Json; children: any }) {
  const [isCopied, setCopied] = useState(false)
  const copy = async () => {
    await navigator.clipboard?.writeText(JSON.stringify(value, null, 2))
    setCopied(true)
  }
  return (
    <section>
      <h3>{title} {value !== undefined && <button class="link" onClick={copy}>{say(isCopied ? "copied" : "copy")}</button>}</h3>
      {children}
    </section>
  )
}

/** Its result; of one that was cut the whole, when somebody asks. */
export function Result({ run, call }: { run: string; call: Call }) {
  const [whole, setWhole] = useState<Json>()
  return (
    <>
      <Value value={whole ?? call.result!} />
      {call.truncated && whole === undefined && !board.isFile && (
        <button class="link" onClick={async () => setWhole((await getCall(run, call.id)).value)}>{say("showAll")} ({Math.round(call.truncated / 1024)} KiB)</button>
      )}
    </>
  )
}

function Facts({ call, run, cost, tokens }: { call: Call; run: Run; cost: string; tokens: number }) {
  const facts: [string, any][] = []
  if (call.deps.length) facts.push([say("needs"), call.deps.map(id => <Link id={id} run={run} />)])
  for (const wait of call.waits) {
    const length = wait.end === undefined ? "" : ` ${showSeconds(wait.end - wait.start)}`
    facts.push([say("waits"), <>{say(`w_${wait.for}` as Word)}{length} {wait.for === "calls" ? "" : wait.on.join(", ")}</>])
  }
  call.attempts.forEach((attempt, index) => {
    const length = attempt.end === undefined ? "" : showSeconds(attempt.end - attempt.start)
    facts.push([say("attempt", { n: index + 1 }), <>{showSeconds(attempt.start)} + {length} {attempt.error}</>])
  })
  if (call.source && call.source !== "run")
    facts.push([say("source"), say(`f_${call.source}` as Word) + (call.age === undefined ? "" : `, ${say("age", { s: showSeconds(call.age) })}`)])
  if (call.progress && call.status === "executing") facts.push(["", <>{call.progress.done}{call.progress.total && ` / ${call.progress.total}`} {call.progress.note}</>])
  if (tokens) facts.push([say("tokens"), tokens])
  if (cost) facts.push([say("cost"), cost])
  return <dl class="facts">{facts.map(([name, value]) => <div><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
}

function Link({ id, run }: { id: string; run: Run }) {
  return run.calls.some(call => call.id === id) ? <button class="link" onClick={() => board.select(id)}>{id}</button> : <code>{id}</code>
}

/** What the models inside this call used. */
function sumUsage(events: RunEvent[], call: string) {
  let usd = 0
  let tokens = 0
  let atLeast = false
  for (const event of events)
    if (event.type === "usage" && event.call && (event.call === call || event.call.startsWith(`${call}/`))) {
      usd += event.cost_usd ?? 0
      atLeast ||= event.cost_usd == null
      tokens += event.usage.input_tokens + event.usage.output_tokens
    }
  return { cost: { usd, atLeast }, tokens }
}
