// When everything happened: the turns above, the calls below; what waits is hatched, each attempt is a bar.

import { memo } from "./memo.js"
import type { Call, Run, Turn } from "../core/index.js"
import { board, useClock } from "./board.js"
import { stateOf } from "./graph.js"
import { label, STACK_FROM } from "./layout.js"
import type { Watched } from "./watched.js"
import { say, sayState, showSeconds } from "./words.js"
import { useSome } from "./values.js"

const STEPS = [0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 8, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600]

export function Gantt({ watched, run }: { watched: Watched; run: Run }) {
  const [calls, more] = useSome(run.calls, STACK_FROM)
  if (!run.turns.length && !run.calls.length) return null
  const whole = Math.max(watched.replay ? watched.newest.seconds : run.seconds, 0.01)
  // Whole steps while it runs, so that the bars don't creep with each frame.
  const end = run.status === "running" && !watched.replay ? STEPS.find(step => step > whole * 1.05) ?? Math.ceil(whole / 3600 + 1) * 3600 : whole
  return (
    <section class="gantt" aria-label={say("timeline")}>
      <div class="axis">{[0, 0.25, 0.5, 0.75, 1].map(part => <span style={{ left: `${part * 100}%` }}>{showSeconds(end * part)}</span>)}</div>
      {run.turns.map(turn => <TurnRow key={`turn${turn.turn}`} turn={turn} end={end} watched={watched} />)}
      {calls.map(call => {
        const isLive = call.status !== "completed" && call.status !== "error" && call.tEnd === undefined
        const Row = isLive ? LiveRow : CallRow
        return <Row key={call.id} call={call} end={end} isChosen={board.call === call.id} now={run.seconds} watched={isLive ? watched : undefined} />
      })}
      {more}
    </section>
  )
}

function bar(start: number, stop: number, end: number) {
  return { left: `${(Math.max(0, start) / end) * 100}%`, width: `${(Math.max(0, Math.min(stop, end) - start) / end) * 100}%` }
}

function TurnRow({ turn, end, watched }: { turn: Turn; end: number; watched: Watched }) {
  const now = useClock(turn.tEnd === undefined ? watched : undefined)
  const stop = turn.tEnd ?? now
  return (
    <div class="row">
      <span class="name">{say("turn", { n: turn.turn })}{turn.attempt > 1 && ` · ${say("attempt", { n: turn.attempt })}`}</span>
      <span class="track">
        <i class="bar waits" style={bar(turn.tStart, turn.tFirst ?? stop, end)} />
        {turn.tFirst !== undefined && <i class="bar speaks" style={bar(turn.tFirst, stop, end)} />}
      </span>
    </div>
  )
}

interface RowProps {
  call: Call
  end: number
  isChosen: boolean
  now: number
  watched?: Watched
}

const CallRow = memo(({ call, end, isChosen, now }: RowProps) => {
  const state = stateOf(call)
  const first = call.attempts[0]?.start ?? call.tEnd ?? now
  return (
    <button class={`row ${isChosen ? "chosen" : ""}`} onClick={() => board.select(call.id)} aria-label={`${call.name}, ${sayState(state)}`}>
      <span class={call.parent ? "name inner" : "name"}>{label(call)}</span>
      <span class="track">
        <i class="bar made" style={bar(call.tNew, first, end)} />
        {call.waits.map(wait => <i class="bar waits" style={bar(wait.start, wait.end ?? now, end)} />)}
        {call.attempts.map((attempt, index) => <i class={`bar ${attempt.error && call.attempts[index + 1] ? "failed" : state}`} style={bar(attempt.start, attempt.end ?? now, end)} />)}
        {!call.attempts.length && call.tEnd !== undefined && <i class={`bar point ${state}`} style={bar(call.tEnd, call.tEnd, end)} />}
      </span>
    </button>
  )
}, (before, after) => before.call === after.call && before.end === after.end && before.isChosen === after.isChosen && !after.watched)

function LiveRow(props: RowProps) {
  return <CallRow {...props} now={useClock(props.watched)} />
}
