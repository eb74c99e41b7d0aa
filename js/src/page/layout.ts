// Where the boxes of a graph stand: a column for each step of what waits for what, left to right as time runs.
//
// A box keeps its place while others come: a layout begins with the places of the one before it, and a box moves only
// to another column, once it is told what it needs. All boxes stand on one grid, so the gaps between rows and columns are free, and an edge runs in those alone.

import type { Call } from "../core/index.js"

export const BOX = { width: 186, height: 46 }
const GAP = { x: 46, y: 22 }
const EDGE = 12

/** From how many calls on equal ones of a column are one box. */
export const STACK_FROM = 150

export interface Box {
  id: string
  label: string
  x: number
  y: number
  /** The calls it stands for; none for the inputs. */
  calls: string[]
  /** How many calls it holds. */
  inside: number
}

export interface Edge {
  from: string
  to: string
  isHolding: boolean
  path: string
}

export interface Layout {
  /** Where each box stands on the grid; what is laid out next keeps it. */
  places: ReadonlyMap<string, Place>
  boxes: Box[]
  edges: Edge[]
  turns: { turn: number; x: number }[]
  width: number
  height: number
}

export const INPUTS = "inputs"

export function arrange(calls: readonly Call[], folded: ReadonlySet<string>, before?: Layout): Layout {
  const known = new Map(calls.map(call => [call.id, call]))
  const visible = calls.filter(call => !isHidden(call, known, folded))
  const shown = new Set(visible.map(call => call.id))
  const inside = new Map<string, number>()
  for (const call of calls) if (call.holder) inside.set(call.holder, (inside.get(call.holder) ?? 0) + 1)

  // A reference to a call that is folded away goes to the box that holds it.
  const lift = (id: string): string | undefined => {
    for (let call = known.get(id); call; call = known.get(call.holder ?? "")) if (shown.has(call.id)) return call.id
    return undefined
  }
  const sources = new Map<string, Set<string>>(visible.map(call => [call.id, new Set()]))
  for (const call of calls) {
    const target = lift(call.id)
    if (!target) continue
    for (const name of call.deps.flatMap(name => resolve(name, known))) {
      const source = name === INPUTS ? INPUTS : lift(name)
      if (source && source !== target) sources.get(target)!.add(source)
    }
  }

  const hasInputs = [...sources.values()].some(names => names.has(INPUTS))
  const columns = findColumns(visible, sources, hasInputs)
  const stackOf = stack(visible, columns)
  const placed = place(visible, sources, columns, stackOf, hasInputs, before?.places)
  const at = (column: number, row: number) => ({ x: EDGE + column * (BOX.width + GAP.x), y: GAP.y + row * (BOX.height + GAP.y) })

  const boxes: Box[] = []
  if (hasInputs) boxes.push({ id: INPUTS, label: INPUTS, ...at(0, 0), calls: [], inside: 0 })
  const members = new Map<string, string[]>()
  for (const call of visible) {
    const id = stackOf.get(call.id)!
    if (members.has(id)) members.get(id)!.push(call.id)
    else members.set(id, [call.id])
  }
  for (const [id, ids] of members) {
    const { column, row } = placed.get(id)!
    const count = ids.reduce((sum, name) => sum + (inside.get(name) ?? 0), 0)
    boxes.push({ id, label: label(known.get(id)!), ...at(column, row), calls: ids, inside: count })
  }

  const edges = new Map<string, Edge>()
  const draw = (from: string, to: string, isHolding: boolean) => {
    const source = placed.get(from)
    const target = placed.get(to)
    if (source && target && target.column > source.column && !edges.has(`${from}>${to}`))
      edges.set(`${from}>${to}`, { from, to, isHolding, path: route(source, target, at) })
  }
  for (const call of visible) {
    const to = stackOf.get(call.id)!
    for (const from of sources.get(call.id)!) draw(stackOf.get(from) ?? from, to, false)
    if (call.holder && shown.has(call.holder)) draw(stackOf.get(call.holder)!, to, true)
  }

  const turns = new Map<number, number>()
  for (const call of visible)
    if (call.turn && !call.parent) turns.set(call.turn, Math.min(turns.get(call.turn) ?? Infinity, columns.get(call.id)!))
  const places = [...placed.values()]
  const corner = at(Math.max(0, ...places.map(place => place.column)) + 1, Math.max(0, ...places.map(place => place.row)) + 1)
  return {
    places: placed, boxes, edges: [...edges.values()], width: corner.x, height: corner.y,
    turns: [...turns].map(([turn, column]) => ({ turn, x: at(column, 0).x })),
  }
}

/** What a person knows a call by: a step's own name, the tool's for a call that a model made. */
export function label(call: Call): string {
  if (/^(turn|prefetch)\//.test(call.id)) return call.name
  if (call.parent && call.id.startsWith(`${call.parent}/`)) return call.id.slice(call.parent.length + 1)
  return call.id
}

function isHidden(call: Call, known: Map<string, Call>, folded: ReadonlySet<string>): boolean {
  for (let at: Call | undefined = call; at?.holder; at = known.get(at.holder)) if (folded.has(at.holder)) return true
  return false
}

/** The calls that a name in a log stands for: inputs and items are names without a call; one never seen is nothing. */
function resolve(name: string, known: Map<string, Call>): string[] {
  if (known.has(name)) return [name]
  if (name === INPUTS) return [INPUTS]
  // `offers/0/item`: what the `each` called offers iterates over.
  if (!name.endsWith("/item")) return []
  for (let prefix = name; prefix.includes("/"); ) {
    prefix = prefix.slice(0, prefix.lastIndexOf("/"))
    if (known.has(prefix)) return known.get(prefix)!.deps.flatMap(inner => resolve(inner, known))
  }
  return []
}

function findColumns(calls: Call[], sources: Map<string, Set<string>>, hasInputs: boolean): Map<string, number> {
  const byId = new Map(calls.map(call => [call.id, call]))
  const columns = new Map<string, number>()
  const first = hasInputs ? 1 : 0
  let base = first
  const column = (call: Call, path: Set<string>): number => {
    const found = columns.get(call.id)
    if (found !== undefined) return found
    if (path.has(call.id)) return base
    path.add(call.id)
    let at = base
    for (const name of [...sources.get(call.id)!, call.holder ?? ""]) {
      const source = byId.get(name)
      if (source) at = Math.max(at, column(source, path) + 1)
    }
    path.delete(call.id)
    columns.set(call.id, at)
    return at
  }
  // The calls of a turn stand behind those of the turn before; what was begun before the first turn runs beside it.
  let turn = 0
  for (const call of calls) {
    if (call.turn > turn) {
      if (turn) base = Math.max(base, ...columns.values()) + 1
      turn = call.turn
    }
    column(call, new Set())
  }
  return columns
}

/** For each call the one whose box it shares. */
function stack(calls: Call[], columns: Map<string, number>): Map<string, string> {
  const firsts = new Map<string, string>()
  const isStacked = calls.length > STACK_FROM
  return new Map(calls.map(call => {
    if (!isStacked) return [call.id, call.id]
    const key = `${columns.get(call.id)} ${call.name}`
    if (!firsts.has(key)) firsts.set(key, call.id)
    return [call.id, firsts.get(key)!]
  }))
}

export interface Place {
  column: number
  row: number
}

function place(
  calls: Call[], sources: Map<string, Set<string>>, columns: Map<string, number>, stackOf: Map<string, string>, hasInputs: boolean,
  before?: ReadonlyMap<string, Place>,
): Map<string, Place> {
  const placed = new Map<string, Place>()
  const taken = new Map<number, Set<number>>()
  if (hasInputs) placed.set(INPUTS, { column: 0, row: 0 })
  const order = calls.map((call, index) => ({ call, index, column: columns.get(call.id)! }))
  order.sort((a, b) => a.column - b.column || a.index - b.index)
  const keeps: typeof order = []
  const rest: typeof order = []
  for (const each of order)
    if (stackOf.get(each.call.id) === each.call.id) (before?.get(each.call.id)?.column === each.column ? keeps : rest).push(each)
  for (const { call, column } of [...keeps, ...rest]) {
    const rows = taken.get(column) ?? new Set()
    taken.set(column, rows)
    const old = before?.get(call.id)
    if (old?.column === column && !rows.has(old.row)) {
      rows.add(old.row)
      placed.set(call.id, old)
      continue
    }
    const wanted = [...sources.get(call.id)!, call.holder ?? ""].map(name => placed.get(stackOf.get(name) ?? name)?.row ?? -1).filter(row => row >= 0)
    let row = wanted.length ? Math.min(...wanted) : 0
    while (rows.has(row)) row++
    rows.add(row)
    placed.set(call.id, { column, row })
  }
  return placed
}

/** From the right side of a box to the left side of another, in the gaps between columns and rows. */
function route(source: Place, target: Place, at: (column: number, row: number) => { x: number; y: number }): string {
  const from = at(source.column, source.row)
  const to = at(target.column, target.row)
  const half = BOX.height / 2
  const [x1, y1, x2, y2] = [from.x + BOX.width, from.y + half, to.x, to.y + half]
  const bend = (x: number, y: number, nextX: number, nextY: number) => `C${x + GAP.x / 2},${y} ${nextX - GAP.x / 2},${nextY} ${nextX},${nextY}`
  if (target.column === source.column + 1) return `M${x1},${y1}${bend(x1, y1, x2, y2)}`
  // Over several columns: along the gap above the target's row.
  const lane = to.y - GAP.y / 2
  return `M${x1},${y1}${bend(x1, y1, x1 + GAP.x, lane)}H${x2 - GAP.x}${bend(x2 - GAP.x, lane, x2, y2)}`
}
