// A card for each call, which fills in as it happens.

import { memo } from "./memo.js"
import type { Call, Run } from "../core/index.js"
import { board, useClock } from "./board.js"
import { stateOf } from "./graph.js"
import { Result, State } from "./inspector.js"
import { label } from "./layout.js"
import { Fold, findColumns, sayArguments, useSome } from "./values.js"
import type { Watched } from "./watched.js"
import { say, showSeconds } from "./words.js"

interface CardProps {
  call: Call
  inside: Call[]
  watched: Watched
  run: Run
}

export const Card = memo(({ call, inside, watched, run }: CardProps) => {
  const state = stateOf(call)
  const isSelected = board.call === call.id
  const open = () => board.select(isSelected ? undefined : call.id, watched)
  return (
    <article class={`card ${state}`} data-call={call.id} data-state={state} aria-label={`${call.name}`}>
      <header>
        <button class="title" onClick={open}>{label(call)}</button>
        <State state={state} />
        <span class="small">{call.early && `${say("early")} `}{call.source === "cache" && say("f_cache")} <Time call={call} watched={watched} /></span>
      </header>
      {call.state === "new"
        ? call.raw && <p class="args writing">{call.raw}</p>
        : sayArguments(call.arguments) && <p class="args">{sayArguments(call.arguments)}</p>}
      {state === "running" && call.progress && <Progress call={call} />}
      {call.error && <p class="error">{call.error}</p>}
      {call.result !== undefined && call.result !== null && (
        <Fold title={say("result")} isOpen={isShort(call) && !inside.some(inner => inner.holder)}>{() => <Result run={watched.id} call={call} />}</Fold>
      )}
      {inside.length > 0 && (
        <Fold title={say("steps", { n: inside.length })} isOpen={inside.length < 6}>
          {() => <Cards calls={inside} watched={watched} run={run} />}
        </Fold>
      )}
    </article>
  )
}, (before, after) =>
  before.call === after.call && before.inside.length === after.inside.length && before.inside.every((call, index) => call === after.inside[index]) && !after.inside.length)

/** Cards of these calls, those that they made inside them. */
export function Cards({ calls, watched, run }: { calls: readonly Call[]; watched: Watched; run: Run }) {
  const [shown, more] = useSome(calls, MOST)
  const children = childrenOf(run)
  return <div class="cards">{shown.map(call => <Card key={call.id} call={call} inside={children.get(call.id) ?? NONE} watched={watched} run={run} />)}{more}</div>
}

/** How many cards are drawn before somebody asks for all. */
const MOST = 100

const NONE: Call[] = []
const known = new WeakMap<readonly Call[], Map<string, Call[]>>()

function childrenOf(run: Run): Map<string, Call[]> {
  const found = known.get(run.calls)
  if (found) return found
  const children = new Map<string, Call[]>()
  for (const call of run.calls)
    if (call.parent) {
      const list = children.get(call.parent)
      if (list) list.push(call)
      else children.set(call.parent, [call])
    }
  known.set(run.calls, children)
  return children
}

function Time({ call, watched }: { call: Call; watched: Watched }) {
  if (call.tStart === undefined) return null
  if (call.tEnd === undefined) return call.status === "executing" ? <Clock start={call.tStart} watched={watched} /> : null
  return <>{showSeconds(call.tEnd - call.tStart)}</>
}

export function Clock({ start, watched }: { start: number; watched: Watched }) {
  return <time>{showSeconds(Math.max(0, Math.floor((useClock(watched) - start) * 10) / 10))}</time>
}

function Progress({ call }: { call: Call }) {
  const { done, total, note } = call.progress!
  // An early call says the beginning of its result this way: that isn't how far it is.
  if (done === 1 && total === 1 && note) return <p class="args">{note}</p>
  return <p class="small"><progress value={total ? done : undefined} max={total ?? undefined} aria-label={note || call.name} /> {note}</p>
}

function isShort(call: Call): boolean {
  const value = call.result!
  return findColumns(value) ? (value as unknown[]).length <= 5 : JSON.stringify(value).length < 240
}
