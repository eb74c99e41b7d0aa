// The dataflow graph of a run. Layout happens when calls or edges come, never for a state; the view moves only by hand.

import { useMemo, useRef, useState } from "preact/hooks"
import type { Call, Run } from "../core/index.js"
import { board } from "./board.js"
import { arrange, BOX, INPUTS } from "./layout.js"
import type { Box, Layout } from "./layout.js"
import { say, sayState, SHAPES, showSeconds } from "./words.js"
import { memo } from "./memo.js"
import { shorten, useSome } from "./values.js"

/** What a call is shown as: a person's question stands before its state. */
export function stateOf(call: Call): string {
  return call.asked !== undefined && !call.decision && call.status === "pending" ? "asked" : call.state
}

const NOTHING: ReadonlySet<string> = new Set()

export function Graph({ run }: { run: Run }) {
  const [folded, setFolded] = useState(NOTHING)
  const [zoom, setZoom] = useState(1)
  const box = useRef<HTMLDivElement>(null)
  const layout = useLayout(run.calls, folded)
  const byId = useMemo(() => new Map(run.calls.map(call => [call.id, call])), [run.calls])
  if (!run.calls.length) return null
  const toggle = (id: string) => {
    const next = new Set(folded)
    if (!next.delete(id)) next.add(id)
    setFolded(next)
  }
  return (
    <section class="graph" aria-label={say("graph")}>
      <div class="zoom">
        <button aria-label={say("zoomOut")} onClick={() => setZoom(Math.max(0.3, zoom / 1.25))}>−</button>
        <button aria-label={say("zoomIn")} onClick={() => setZoom(Math.min(2, zoom * 1.25))}>+</button>
        <button aria-label={say("fit")} onClick={() => setZoom(Math.min(1, (box.current!.clientWidth - 4) / layout.width))}>⤢</button>
      </div>
      <div class="scroll" ref={box} tabIndex={0} role="group" aria-label={say("graph")}>
        <svg width={layout.width * zoom} height={layout.height * zoom} viewBox={`0 0 ${layout.width} ${layout.height}`} aria-hidden="true">
          {layout.turns.length > 1 && layout.turns.map(({ turn, x }) => (
            <text key={turn} class="turn" x={x} y={14}>{say("turn", { n: turn })}</text>
          ))}
          {layout.edges.map(edge => (
            <path key={`${edge.from}>${edge.to}`} class={edge.isHolding ? "edge holds" : "edge"} d={edge.path} data-from={edge.from} data-to={edge.to} />
          ))}
          {layout.boxes.map(box => (
            <Node key={box.id} box={box} calls={box.calls.map(id => byId.get(id)!)} isFolded={folded.has(box.id)} onFold={() => toggle(box.id)} />
          ))}
        </svg>
      </div>
      <Listed calls={run.calls} />
    </section>
  )
}

/** The same calls for whoever doesn't see the picture. */
function Listed({ calls }: { calls: readonly Call[] }) {
  const [shown] = useSome(calls, 0, true)
  return <ul class="hidden" aria-label={say("calls")}>{shown.map(call => <Line key={call.id} call={call} />)}</ul>
}

const Line = memo(({ call }: { call: Call }) => (
  <li>
    <button tabIndex={-1} onClick={() => board.select(call.id)}>{call.name}, {sayState(stateOf(call))}{call.deps.length ? `, ${say("needs")}: ${call.deps.join(", ")}` : ""}</button>
  </li>
), (before, after) => before.call === after.call)

/** The layout, made again only when there are other calls or edges. */
function useLayout(calls: readonly Call[], folded: ReadonlySet<string>): Layout {
  const last = useRef<{ calls: readonly Call[]; folded: ReadonlySet<string>; layout: Layout }>(undefined)
  const before = last.current
  const isSame = before && before.folded === folded && before.calls.length === calls.length &&
    (before.calls === calls || before.calls.every((call, index) => call.id === calls[index]!.id && call.deps === calls[index]!.deps && call.holder === calls[index]!.holder))
  if (!isSame) last.current = { calls, folded, layout: arrange(calls, folded, before?.layout) }
  else before.calls = calls
  return last.current!.layout
}

function Node({ box, calls, isFolded, onFold }: { box: Box; calls: Call[]; isFolded: boolean; onFold(): void }) {
  if (box.id === INPUTS)
    return (
      <g class="node inputs" transform={`translate(${box.x},${box.y})`}>
        <rect width={BOX.width} height={BOX.height} rx={8} />
        <text x={12} y={28}>{say("inputs")}</text>
      </g>
    )
  const call = calls[0]!
  const count = calls.length
  const state = count > 1 ? summarise(calls) : stateOf(call)
  const done = count > 1 ? calls.filter(inner => inner.tEnd !== undefined).length : 0
  const isChosen = calls.some(inner => inner.id === board.call)
  const progress = call.progress?.total ? Math.min(1, call.progress.done / call.progress.total) : 0
  return (
    <g class={`node ${state}${isChosen ? " chosen" : ""}`} data-call={box.id} data-state={state} transform={`translate(${box.x},${box.y})`} onClick={() => board.select(call.id)}>
      {count > 1 && <rect class="below" x={4} y={4} width={BOX.width} height={BOX.height} rx={8} />}
      <rect width={BOX.width} height={BOX.height} rx={8} />
      {state === "running" && progress > 0 && <rect class="progress" y={BOX.height - 4} width={BOX.width * progress} height={4} />}
      <text class="shape" x={12} y={28}>{SHAPES[state]}</text>
      <text x={32} y={20}>{shorten(box.label, 19)}</text>
      <text class="small" x={32} y={36}>{count > 1 ? `${done} / ${count}` : describe(call, state)}</text>
      {box.inside > 0 && (
        <text class="fold" x={BOX.width - 10} y={20} text-anchor="end" onClick={event => (event.stopPropagation(), onFold())}>
          {isFolded ? `▸${box.inside}` : "▾"}
        </text>
      )}
    </g>
  )
}

function describe(call: Call, state: string): string {
  if (state !== "finished") return sayState(state) + (call.attempt > 1 ? ` · ${call.attempt}` : "")
  if (call.source === "cache" || call.source === "flight") return say(`f_${call.source}`)
  return call.tEnd !== undefined && call.tStart !== undefined ? showSeconds(call.tEnd - call.tStart) : sayState(state)
}

function summarise(calls: Call[]): string {
  for (const state of ["asked", "failed", "in_doubt", "running", "waiting", "new", "sealed"]) if (calls.some(call => stateOf(call) === state)) return state
  return "finished"
}
