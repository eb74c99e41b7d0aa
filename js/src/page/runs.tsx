// The runs, told apart without opening them.

import { useState } from "preact/hooks"
import { useBoard } from "./board.js"
import { getRuns } from "./server.js"
import type { Summary } from "./server.js"
import { State } from "./inspector.js"
import { getLanguage, say, sayState, showCost, showSeconds } from "./words.js"

const STATES = ["running", "waiting", "done", "failed", "cancelled", "limit", "in_doubt", "stopped"]

export function Runs() {
  const board = useBoard()
  const [words, setWords] = useState("")
  const [state, setState] = useState("")
  const [older, setOlder] = useState<Summary[]>([])
  const [before, setBefore] = useState<number | null>()
  const wanted = words.toLowerCase().split(/\s+/)
  const all = [...board.runs, ...older.filter(old => !board.runs.some(run => run.run === old.run))]
  const found = all.filter(run => {
    const text = [run.name, run.title, run.user, run.run, run.status].join(" ").toLowerCase()
    return (!state || run.status === state) && wanted.every(word => text.includes(word))
  })
  const next = before === undefined ? board.next : before
  const more = async () => {
    const told = await getRuns(next!)
    setOlder([...older, ...told.runs])
    setBefore(told.next)
  }
  return (
    <nav class="runs" aria-label={say("runs")}>
      <p class="filter">
        <input type="search" aria-label={say("filter")} placeholder={say("filter")} value={words} onInput={event => setWords(event.currentTarget.value)} />
        <select aria-label={say("all")} value={state} onChange={event => setState(event.currentTarget.value)}>
          <option value="">{say("all")}</option>
          {STATES.map(each => <option value={each}>{sayState(each)}</option>)}
        </select>
      </p>
      <ul>
        {found.map(run => (
          <li key={run.run}>
            <a href={`#/runs/${run.run}`} aria-current={board.current?.id === run.run ? "page" : undefined} onClick={() => board.show(run.run)}>
              <span class="title">{run.title || run.name}</span>
              <span class="small facts">
                <State state={run.status} />
                {[run.name, run.user, sayWhen(run.began_at), run.status !== "running" && showSeconds(run.changed_at - run.began_at), showCost({ usd: run.cost_usd, atLeast: run.cost_at_least })].map(fact => fact && <span>{fact}</span>)}
              </span>
            </a>
          </li>
        ))}
      </ul>
      {!found.length && <p class="empty">{say(all.length ? "noMatch" : "noRuns")}</p>}
      {next && <button class="link" onClick={more}>{say("showAll")}</button>}
    </nav>
  )
}

function sayWhen(began: number): string {
  const date = new Date(began * 1000)
  const isToday = date.toDateString() === new Date().toDateString()
  return new Intl.DateTimeFormat(getLanguage(), isToday ? { timeStyle: "short" } : { dateStyle: "short", timeStyle: "short" }).format(date)
}
