// The rules of reading a log, on logs of real runs: FLOWKIT_LOGS is a folder of them, as `tests/web_runs.py` writes it.

import assert from "node:assert/strict"
import { readdirSync, readFileSync } from "node:fs"
import { test } from "node:test"
import { Fold, fold } from "../dist/core/index.js"

const folder = process.env.FLOWKIT_LOGS
const logs = Object.fromEntries(
  readdirSync(folder).filter(name => name.endsWith(".jsonl")).map(name => [
    name.slice(0, -6),
    readFileSync(`${folder}/${name}`, "utf8").trim().split("\n").map(line => JSON.parse(line)),
  ]),
)

const plain = run => JSON.parse(JSON.stringify(run))
const event = (seq, type, fields = {}) => ({ type, run: "r", seq, t: seq, ...fields })
const started = (seq, fields = {}) => event(seq, "run.started", { name: "a", model: "m", user: null, session: null, inputs: null, ...fields })
const turn = (seq, turn = 1, attempt = 1) => event(seq, "turn.started", { turn, model: "m", attempt })
const text = (seq, text, fields = {}) => event(seq, "text.delta", { text, turn: 1, call: null, ...fields })

for (const [name, log] of Object.entries(logs)) {
  const whole = plain(fold(log))
  test(`${name}: a prefix, then the rest, for every cut`, () => {
    for (let cut = 0; cut <= log.length; cut++) {
      const folded = new Fold()
      log.slice(0, cut).forEach(event => folded.take(event))
      folded.snapshot()
      log.slice(cut).forEach(event => folded.take(event))
      assert.deepEqual(plain(folded.snapshot()), whole)
    }
  })
  test(`${name}: any part told again changes nothing`, () => {
    for (let from = 0; from < log.length; from++)
      assert.deepEqual(plain(fold([...log.slice(0, from + 5), ...log.slice(from, from + 5), ...log.slice(from + 5)])), whole)
  })
  test(`${name}: unknown types and fields are passed over`, () => {
    const strange = log.flatMap(event => [{ ...event, unknown: 1 }, { ...event, type: "call.unknown" }, { ...event, type: "what" }])
    assert.deepEqual(plain(fold(strange)), whole)
  })
  test(`${name}: every call is closed or waits for a person`, () => {
    for (const call of whole.calls)
      assert.ok(call.status !== "executing" && (call.status !== "pending" || call.asked !== undefined), call.id)
  })
  test(`${name}: a snapshot shares what didn't change`, () => {
    const folded = new Fold()
    let before = folded.snapshot()
    for (const event of log) {
      folded.take(event)
      const after = folded.snapshot()
      for (const [index, call] of before.calls.entries()) {
        const told = JSON.stringify(call)
        if (after.calls[index] === call) assert.equal(JSON.stringify(folded.get(call.id)), told)
      }
      before = after
    }
  })
}

const byName = (run, name) => run.calls.find(call => call.name === name)

test("what a call refers to and what it needs are its edges", () => {
  assert.deepEqual(byName(fold(logs.references), "count").deps, ["turn/1/call/0"])
  const shop = fold(logs.shop_agent)
  assert.deepEqual(byName(shop, "track_parcel").deps, ["turn/1/call/0/order"])
  assert.equal(shop.calls.find(call => call.id === "turn/1/call/0/order").holder, undefined)
  const recipe = fold(logs.shop_recipe)
  assert.deepEqual(recipe.calls.find(call => call.id === "offers").deps, ["get_order_status"])
  assert.deepEqual(recipe.calls.find(call => call.id === "calculate_shipping").deps, ["get_order_status", "inputs"])
  assert.equal(recipe.calls.find(call => call.id === "refund/then/refund_order").holder, "refund")
})

test("a run that waited and went on is told once", () => {
  const run = fold(logs.approval)
  assert.deepEqual(run.calls.map(call => call.state), ["finished", "finished", "denied"])
  assert.deepEqual(run.calls[0].source, "run")
  assert.deepEqual(run.calls[1].decision.arguments, { won: 4, to: "Kim" })
  assert.equal(run.status, "done")
  assert.equal(run.turns.at(-1).text, "Paid.")
  const waits = fold(logs.approval.slice(0, logs.approval.findIndex(event => event.type === "run.finished") + 1))
  assert.deepEqual([waits.status, ...waits.calls.map(call => call.status)], ["waiting", "completed", "pending", "pending"])
})

test("a run that is over asks nobody any more and has nothing open", () => {
  const asking = logs.approval.slice(0, logs.approval.findIndex(event => event.type === "run.finished") + 1)
  const over = [started(100), event(101, "run.finished", { status: "cancelled", tips: [] })]
  const run = fold([...asking, ...over])
  assert.deepEqual(run.calls.map(call => call.state), ["finished", "cancelled", "cancelled"])
  // Of a process that was killed the log tells no end.
  const killed = asking.slice(0, asking.findIndex(event => event.type === "call.started") + 1)
  assert.deepEqual(fold([...killed, ...over]).calls.filter(call => /ing$/.test(call.status)), [])
  const resumed = fold([...asking, ...over, ...logs.approval.slice(asking.length).map(event => ({ ...event, seq: event.seq + 200 }))])
  assert.deepEqual(resumed.calls.map(call => call.state), ["finished", "finished", "denied"])
})

test("an attempt of a killed process ends where its run goes on", () => {
  const call = (seq, type, fields = {}) => event(seq, type, { call: "turn/1/call/0", ...fields })
  const told = [call(2, "call.new", { name: "look", parent: null }), call(3, "call.started", { attempt: 1, early: false }), call(5, "call.progress", { done: 1, total: 2, note: "" })]
  const again = [started(6), ...told.slice(0, 2).map(event => ({ ...event, seq: event.seq + 6, t: event.t - 2 })), call(10, "call.finished", { t: 2, value: 1, source: "run" })]
  const { attempts } = fold([started(0), turn(1), ...told, ...again]).calls[0]
  assert.deepEqual(attempts.map(({ start, end }) => [start, end]), [[3, 5], [6, 7]])
})

test("another attempt of a turn takes its text back and leaves its calls", () => {
  const run = fold(logs.broken_turn)
  assert.deepEqual(run.turns.map(turn => turn.text), ["", "Ok."])
  assert.ok(run.calls.some(call => call.state === "void"))
})

test("pieces say where they belong, counted in code points", () => {
  const folded = new Fold()
  const events = [started(0), turn(1), text(2, "🙂a", { at: 0 }), text(7, "🙂abc🙃", { at: 0 }), text(9, "d", { at: 5 })]
  events.forEach(event => folded.take(event))
  assert.equal(folded.snapshot().turns[0].text, "🙂abc🙃d")
})

test("an agent inside a call counts each of its turns from 0", () => {
  const folded = new Fold()
  const inner = (seq, at, turn, piece) => text(seq, piece, { at, turn, call: "turn/1/call/0" })
  const call = event(2, "call.new", { call: "turn/1/call/0", name: "clerk", parent: null })
  for (const told of [started(0), turn(1), call, inner(3, 0, 1, "One"), inner(6, 0, 1, "One."), inner(7, 0, 2, "Two"), inner(9, 3, 2, ".")])
    folded.take(told)
  assert.equal(folded.snapshot().calls[0].text, "One.Two.")
})

test("seconds go on from where the segment before ended", () => {
  const run = fold([started(0), event(5, "run.finished", { status: "waiting", tips: [] }), { ...started(6), t: 0 }, { ...turn(7), t: 2 }])
  assert.equal(run.turns[0].tStart, 7)
  assert.equal(run.seconds, 7)
})

test("cost is at least what is known", () => {
  const usage = { input_tokens: 1, output_tokens: 2, cached_tokens: 0, thinking_tokens: 0, cost_usd: null }
  const run = fold([started(0), turn(1), event(2, "usage", { usage, cost_usd: 0.5, call: null }), event(3, "usage", { usage, cost_usd: null, call: "x" })])
  assert.deepEqual(run.cost, { usd: 0.5, atLeast: true })
  assert.equal(run.usage.output_tokens, 4)
})
