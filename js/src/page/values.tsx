// JSON as a person reads it: a table where it is a list of objects, else a tree. Values are text, never markup.

import { useEffect, useState } from "preact/hooks"
import type { Json } from "../core/index.js"
import { say } from "./words.js"

const FIRST_ROWS = 20
/** How many cards or rows are drawn in one frame: 500 would hold the page for a tenth of a second, on a phone for one. */
const AT_ONCE = 100
const MOST_COLUMNS = 12

/** The first of many items, and a button that shows the others too, over several frames. */
export function useSome<T>(items: readonly T[], first: number, isAll = false): [readonly T[], any] {
  const [isWhole, showWhole] = useState(isAll)
  const [most, setMost] = useState(first)
  useEffect(() => {
    const next = isWhole ? Math.min(most + AT_ONCE, Math.max(first, items.length)) : first
    if (next === most) return
    const handle = setTimeout(setMost, 0, next)
    return () => clearTimeout(handle)
  }, [isWhole, most, items.length])
  const rest = items.length - most
  return [items.slice(0, most), !isWhole && rest > 0 && <button class="link" onClick={() => showWhole(true)}>{say("more", { n: rest })}</button>]
}

export function Value({ value }: { value: Json }) {
  const columns = findColumns(value)
  return columns ? <Table rows={value as { [key: string]: Json }[]} columns={columns} /> : <Tree value={value} depth={0} />
}

/** The keys of a list of objects; undefined for everything else. */
export function findColumns(value: Json): string[] | undefined {
  if (!Array.isArray(value) || !value.length) return
  const columns = new Set<string>()
  for (const row of value) {
    if (!row || typeof row !== "object" || Array.isArray(row)) return
    for (const key of Object.keys(row)) columns.add(key)
  }
  return columns.size && columns.size <= MOST_COLUMNS ? [...columns] : undefined
}

function Table({ rows, columns }: { rows: { [key: string]: Json }[]; columns: string[] }) {
  const [shown, more] = useSome(rows, FIRST_ROWS)
  return (
    <div class="table" tabIndex={0} role="group" aria-label={say("rows", { n: rows.length })}>
      <table>
        <thead><tr>{columns.map(column => <th scope="col">{column}</th>)}</tr></thead>
        <tbody>
          {shown.map(row => (
            <tr>{columns.map(column => <td>{column in row && <Cell value={row[column]!} />}</td>)}</tr>
          ))}
        </tbody>
      </table>
      {more}
    </div>
  )
}

function Cell({ value }: { value: Json }) {
  return isPlain(value) ? <Plain value={value} /> : <Tree value={value} depth={1} />
}

function Tree({ value, depth }: { value: Json; depth: number }) {
  const entries = Object.entries(isPlain(value) ? {} : value!) as [string, Json][]
  const [shown, more] = useSome(entries, FIRST_ROWS)
  if (isPlain(value)) return <Plain value={value} />
  if (isReference(value)) return <Plain value={sayReference(value)} />
  const list = (
    <dl>
      {shown.map(([key, inner]) => (
        <div>
          <dt>{key}</dt>
          <dd>{depth < 1 && findColumns(inner) ? <Value value={inner} /> : <Tree value={inner} depth={depth + 1} />}</dd>
        </div>
      ))}
      {more}
    </dl>
  )
  if (!depth) return list
  return <Fold title={Array.isArray(value) ? say("items", { n: entries.length }) : shorten(JSON.stringify(value), 60)}>{() => list}</Fold>
}

/** Details whose inside is made when it is opened. */
export function Fold({ title, children, isOpen = false }: { title: any; children: () => any; isOpen?: boolean }) {
  const [opened, setOpened] = useState(isOpen)
  return (
    <details open={opened} onToggle={event => setOpened(event.currentTarget.open)}>
      <summary>{title}</summary>
      {opened && children()}
    </details>
  )
}

function Plain({ value }: { value: Json }) {
  if (Array.isArray(value) || (value && typeof value === "object")) return <i>{say("empty")}</i>
  if (typeof value === "string") return <span class="text">{value}</span>
  return <code>{String(value)}</code>
}

export const isPlain = (value: Json) => value === null || typeof value !== "object" || !Object.keys(value).length

export const shorten = (text: string, length: number) => (text.length > length ? text.slice(0, length - 1) + "…" : text)

/** Arguments in one line: `order_id: ORD-1, reason: broken`. */
export function sayArguments(value: Json, length = 120): string {
  if (!value || typeof value !== "object" || Array.isArray(value)) return shorten(JSON.stringify(value), length)
  const told = Object.entries(value).map(([key, inner]) => `${key}: ${isReference(inner) ? sayReference(inner) : typeof inner === "string" ? inner : JSON.stringify(inner)}`)
  return shorten(told.join(", "), length)
}

const sayReference = (value: Reference) => `→ ${value.from_call}${value.path}`

type Reference = { from_call: string; path: string }

function isReference(value: any): value is Reference {
  return typeof value?.from_call === "string" && typeof value.path === "string"
}
