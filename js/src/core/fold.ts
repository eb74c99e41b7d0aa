// What a run looks like, folded from its events: the one reading of the log, for the hook and for the page.
//
// A log has segments, each from `run.started` to `run.finished`: a run that waited goes on in a new one, which tells
// its calls again under their names. Events may come twice, and pieces of text joined: `seq` tells what is known, and
// a piece of text says where it belongs. So folding any part again changes nothing.

import type { GuardDecided, Json, RunEvent, Usage } from "./events.js"

export type CallState =
  | "new" | "sealed" | "waiting" | "running"
  | "finished" | "failed" | "skipped" | "denied" | "cancelled" | "void" | "in_doubt"
export type CallStatus = "pending" | "executing" | "completed" | "error"
export type RunStatus = "running" | "done" | "waiting" | "limit" | "cancelled" | "in_doubt" | "failed" | "stopped"

/** From `start` to `end`, in seconds since the run began; without an `end` it is going on. */
export interface Span {
  start: number
  end?: number
  error?: string
}

export interface Wait extends Span {
  for: string
  on: string[]
}

export interface Decision {
  approved: boolean
  reason: string
  by: string | null
  arguments: Json
}

/** One call; times are seconds since the run began, its pauses left out. */
export interface Call {
  id: string
  name: string
  /** The call that made it, or that needs it. */
  parent?: string
  /** The call that was running when it made this one: it holds it. */
  holder?: string
  turn: number
  state: CallState
  status: CallStatus
  /** What has been streamed of its arguments. */
  raw: string
  /** `{}` until they are final. */
  arguments: Json
  repaired: string[]
  result?: Json
  /** The size in bytes of a result that was cut. */
  truncated?: number
  error?: string
  source?: string
  age?: number
  attempt: number
  early: boolean
  progress?: { done: number; total: number | null; note: string }
  /** What it can't begin before: calls that it refers to, waits for, or needs. */
  deps: string[]
  attempts: Span[]
  waits: Wait[]
  asked?: Json
  decision?: Decision
  text: string
  thinking: string
  tNew: number
  tStart?: number
  tEnd?: number
}

export interface Turn {
  turn: number
  attempt: number
  model: string
  text: string
  thinking: string
  calls: string[]
  tStart: number
  tFirst?: number
  tThought?: number
  tEnd?: number
  reason?: string
  error?: string
}

export interface Run {
  id: string
  name: string
  model: string | null
  user: string | null
  session: string | null
  message?: string
  inputs: Json
  status: RunStatus
  turns: readonly Turn[]
  calls: readonly Call[]
  output: Json
  /** The answer so far, of an agent whose answer has a type; at the end the whole of it. */
  partial?: Json
  /** What guards have said of requests, calls and answers. */
  guards: readonly GuardDecided[]
  error?: string
  tips: readonly string[]
  usage: Usage
  /** With `atLeast` some answers had no known price. */
  cost: { usd: number; atLeast: boolean }
  seconds: number
  seq: number
}

const FAILED = /^(failed|skipped|denied|cancelled|void|in_doubt)$/

/** A text that grows: `at` counts code points, as Python does, so its length is kept in those. */
interface Growing {
  points: Record<string, number>
}

interface Placed extends Growing {
  place: number
}

export class Fold {
  seq = -1
  #head: Omit<Run, "turns" | "calls" | "seq" | "seconds"> = {
    id: "", name: "", model: null, user: null, session: null, inputs: null, status: "running", output: null,
    tips: [], usage: {} as Usage, guards: [], cost: { usd: 0, atLeast: false },
  }
  #calls = new Map<string, Call & Placed>()
  #turns: (Turn & Growing)[] = []
  #offset = 0
  #seconds = 0
  #changed = new Set<string>()
  #views: Call[] = []
  #view?: Run

  get(id: string): Call | undefined {
    return this.#calls.get(id)
  }

  /** The thinking of the turn that goes on. */
  get thinking(): string {
    return this.#turns.at(-1)?.thinking ?? ""
  }

  /** Take an event; false when it is known already. */
  take(event: RunEvent): boolean {
    if (!(event.seq > this.seq)) return false
    this.seq = event.seq
    this.#view = undefined
    const head = this.#head
    if (event.type === "run.started") {
      this.#offset = this.#seconds
      head.id ||= event.run
      const { name, model, user, session, inputs } = event
      Object.assign(head, { name, model, user, session, status: "running", error: undefined })
      head.inputs ??= inputs
      head.message ??= event.message ?? undefined
      return true
    }
    const t = this.#offset + event.t
    this.#seconds = Math.max(this.#seconds, t)
    const turn = this.#turns.at(-1)
    switch (event.type) {
      case "run.finished":
        head.status = event.status
        head.output = event.output
        if (head.partial !== undefined && event.output != null) head.partial = event.output
        head.error = event.error ?? undefined
        head.tips = event.tips ?? []
        // Nobody asks any more, and what a killed process left open is over.
        if (event.status !== "waiting")
          for (const [call, { status }] of this.#calls)
            if (/ing/.test(status)) this.#takeCall({ type: "call.cancelled", call } as RunEvent & { call: string }, t)
        break
      case "turn.started":
        head.partial = undefined
        this.#startTurn(event.turn, event.attempt, event.model, t)
        break
      case "turn.finished":
        if (turn) {
          turn.tEnd = t
          turn.reason = event.reason
          turn.error = event.error ?? undefined
          turn.model = event.model ?? turn.model
        }
        break
      case "text.delta":
      case "thinking.delta": {
        const kind = event.type === "text.delta" ? "text" : "thinking"
        const target = event.call == null ? turn : this.#calls.get(event.call)
        if (!target) break
        put(target, kind, event.text, event.at, event.turn)
        if (event.call != null) this.#changed.add(event.call)
        else {
          turn!.tFirst ??= t
          if (kind === "thinking") turn!.tThought = t
        }
        break
      }
      case "guard.decided":
        head.guards = [...head.guards, event]
        break
      case "output.partial":
        head.partial = event.output
        break
      case "usage": {
        const { usage, cost_usd } = event
        const sum = { ...head.usage } as unknown as Record<string, number>
        for (const [kind, count] of Object.entries(usage)) if (typeof count === "number") sum[kind] = (sum[kind] ?? 0) + count
        head.usage = sum as unknown as Usage
        head.cost = { usd: head.cost.usd + (cost_usd ?? 0), atLeast: head.cost.atLeast || cost_usd == null }
        break
      }
      default:
        if (typeof (event as { call?: unknown }).call === "string") this.#takeCall(event as RunEvent & { call: string }, t)
    }
    return true
  }

  /** Nobody drives it any more: said by the server, the log can't know. */
  stop() {
    this.#head.status = "stopped"
    this.#view = undefined
  }

  /** The run as it is now; what didn't change since the last time is the same object. */
  snapshot(): Run {
    if (this.#view) return this.#view
    if (this.#changed.size) {
      this.#views = this.#views.slice()
      for (const id of this.#changed) {
        const call = this.#calls.get(id)!
        this.#views[call.place] = { ...call }
      }
      this.#changed.clear()
    }
    return (this.#view = { ...this.#head, turns: this.#turns.map(turn => ({ ...turn })), calls: this.#views, seconds: this.#seconds, seq: this.seq })
  }

  #startTurn(number: number, attempt: number, model: string, t: number) {
    let calls: string[] = []
    // Another attempt takes its text back; its calls stay, as void.
    if (this.#turns.at(-1)?.turn === number) ({ calls, tStart: t } = this.#turns.pop()!)
    this.#turns.push({ turn: number, attempt, model, text: "", thinking: "", calls, tStart: t, points: {} })
  }

  #open(id: string, name: string, parent: string | null | undefined, t: number): Call & Placed {
    const turn = this.#turns.at(-1)
    const call: Call & Placed = {
      id, name, turn: turn?.turn ?? 0, state: "new", status: "pending", raw: "", arguments: {}, repaired: [], attempt: 0,
      early: false, deps: [], attempts: [], waits: [], text: "", thinking: "", tNew: t, points: {},
      place: this.#calls.size,
    }
    if (parent) {
      call.parent = parent
      const maker = this.#calls.get(parent)
      if (maker?.tStart !== undefined) call.holder = parent
      else if (maker) this.#link(maker, [id])
    } else if (turn && id.startsWith("turn/")) {
      turn.calls.push(id)
      turn.tFirst ??= t
    }
    this.#calls.set(id, call)
    return call
  }

  #link(call: Call, names: string[]) {
    const deps = [...new Set([...call.deps, ...names])]
    if (deps.length > call.deps.length) call.deps = deps
    this.#changed.add(call.id)
  }

  #takeCall(event: RunEvent & { call: string }, t: number) {
    const known = this.#calls.get(event.call)
    const opened = event as { name?: string; parent?: string | null }
    // Unknown types may name a call too; only those of a call make one.
    if (!known && !/^(call|approval)\./.test(event.type)) return
    const call = known ?? this.#open(event.call, opened.name ?? event.call, opened.parent, t)
    this.#changed.add(call.id)
    const state = (state: CallState) => {
      call.waits = close(call.waits, t)
      call.state = state
      call.status = state === "running" ? "executing" : state === "finished" ? "completed" : FAILED.test(state) ? "error" : "pending"
    }
    /** Only this run of it is over; also by a killed process, whose log has no end. */
    const pause = (as: CallState) => {
      call.attempts = close(call.attempts, t)
      state(as)
    }
    const end = (as: CallState, error?: string, at: number | null = null) => {
      const ended = at == null ? t : this.#offset + at
      call.attempts = close(call.attempts, ended, error)
      call.tEnd = ended
      call.error = error
      state(as)
    }
    switch (event.type) {
      case "call.new":
        if (known) {
          call.raw = ""
          call.points = {}
          pause("new")
        }
        break
      case "call.arguments":
        put(call, "raw", event.fragment)
        break
      case "call.sealed":
        call.arguments = event.arguments
        call.repaired = event.repaired
        if (call.state === "new") state("sealed")
        this.#link(call, references(event.arguments))
        break
      case "call.waiting":
        state("waiting")
        call.waits = [...call.waits, { for: event.waiting_for, on: event.on, start: t }]
        if (event.waiting_for === "calls") this.#link(call, event.on)
        break
      case "call.started":
        state("running")
        call.attempt = event.attempt
        call.early ||= event.early
        call.tStart ??= t
        call.tEnd = call.error = undefined
        call.attempts = [...call.attempts, { start: t }]
        break
      case "call.progress":
        call.progress = { done: event.done, total: event.total, note: event.note }
        break
      case "call.retried":
        end("waiting", event.error)
        call.tEnd = undefined
        break
      case "call.finished":
        call.result = event.value
        call.truncated = event.truncated
        if (event.source === "journal" && call.tEnd !== undefined && call.source) {
          // It is told again: what is known of its run stands.
          call.error = undefined
          state("finished")
          break
        }
        call.source = event.source
        call.age = event.age_s ?? undefined
        end("finished", undefined, event.ended_s)
        break
      case "approval.asked":
        call.asked = event.arguments ?? null
        call.decision = undefined
        break
      case "approval.decided": {
        const { approved, reason, by, arguments: changed } = event
        call.decision = { approved, reason, by, arguments: changed }
        break
      }
      case "call.cancelled":
        // Of a call that waits for a person, itself or with one made for it, only this run of it is over.
        if (event.waits) {
          pause("waiting")
          break
        }
      // falls through: the other ends are told alike
      default: {
        const ended = event.type.slice(5) as CallState
        const { error, because, reason, ended_s } = event as { error?: string; because?: string; reason?: string; ended_s?: number }
        if (FAILED.test(ended)) end(ended, error ?? because ?? reason, ended_s)
      }
    }
  }
}

function close<S extends Span>(spans: S[], end: number, error?: string): S[] {
  return spans.map(span => (span.end === undefined ? { ...span, end, error } : span))
}

/** Fold a whole log. */
export function fold(events: Iterable<RunEvent>): Run {
  const folded = new Fold()
  for (const event of events) folded.take(event)
  return folded.snapshot()
}

function put<K extends "text" | "thinking" | "raw">(
  target: Growing & { [key in K]: string }, kind: K, piece: string, at?: number, turn?: number,
) {
  let old: string = target[kind]
  let points = target.points[kind] ?? 0
  if (at != null) {
    // A call may hold an agent of several turns, each of which counts from 0.
    at += target.points[kind + turn] ??= points
    if (at < points) {
      old = [...old].slice(0, at).join("")
      points = at
    }
  }
  target.points[kind] = points + [...piece].length
  target[kind] = (old + piece) as typeof target[K]
}

/** The names of the calls that arguments refer to: `{"from_call": …, "path": …}` and nothing besides. */
function references(value: Json | undefined): string[] {
  if (!value || typeof value !== "object") return []
  const { from_call } = value as { from_call?: Json }
  if (typeof from_call === "string" && Object.keys(value).sort().join() === "from_call,path") return [from_call]
  return Object.values(value).flatMap(inner => references(inner as Json))
}
