import assert from "node:assert/strict"
import { test } from "node:test"
import { Parser } from "../dist/core/index.js"

const LINES = [": keep-alive", "", "id: 1", "event: text.delta", 'data: {"a": "한글 🙂"}', "", "data: one", "data:two", "data", "data:  three", "", "data: never ended"]
const EXPECTED = ['{"a": "한글 🙂"}', "one\ntwo\n\n three"]

function read(bytes, ...cuts) {
  const parser = new Parser()
  const ends = [...cuts, bytes.length]
  return ends.flatMap((end, index) => parser.feed(bytes.subarray(index ? ends[index - 1] : 0, end)))
}

for (const [name, end] of [["LF", "\n"], ["CR", "\r"], ["CRLF", "\r\n"]])
  test(`${name}: the same messages, wherever the bytes are cut`, () => {
    const bytes = new TextEncoder().encode(LINES.join(end))
    for (let first = 0; first <= bytes.length; first++)
      for (let second = first; second <= bytes.length; second += 7) assert.deepEqual(read(bytes, first, second), EXPECTED)
    assert.deepEqual(read(bytes, ...bytes.keys()), EXPECTED)
  })

test("a byte order mark at the beginning is no part of a line", () => {
  assert.deepEqual(read(new TextEncoder().encode("\ufeffdata: x\n\n")), ["x"])
})
