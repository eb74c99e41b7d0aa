// How many events a second the fold takes, at 5, 50 and 500 calls, with a snapshot for each 100 events.
import { Fold } from "./dist/core/index.js"

export function makeLog(calls) {
  const log = [{ type: "run.started", name: "a", model: "m", user: null, session: null, inputs: null }, { type: "turn.started", turn: 1, model: "m", attempt: 1 }]
  for (let index = 0; index < calls; index++) {
    const call = `turn/1/call/${index}`
    log.push({ type: "call.new", call, name: "find", parent: null })
    for (let piece = 0; piece < 10; piece++) log.push({ type: "call.arguments", call, fragment: '"query"' })
    log.push({ type: "call.sealed", call, arguments: { query: "tea" }, repaired: [] }, { type: "call.started", call, attempt: 1, early: false })
    log.push({ type: "call.finished", call, value: [1, 2], source: "run", age_s: null, ended_s: null })
  }
  return log.map((event, seq) => ({ run: "r", seq, t: seq / 1000, ...event }))
}

const rates = {}
for (const calls of [5, 50, 500]) {
  const log = makeLog(calls)
  let count = 0
  const began = performance.now()
  while (performance.now() - began < 500) {
    const fold = new Fold()
    for (const event of log) {
      fold.take(event)
      if (++count % 100 === 0) fold.snapshot()
    }
  }
  rates[calls] = Math.round((count / (performance.now() - began)) * 1000)
}
console.log(JSON.stringify(rates))
