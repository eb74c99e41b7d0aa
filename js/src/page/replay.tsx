// A run again, in its own time or faster, and its log to take along.

import { useEffect } from "preact/hooks"
import { board } from "./board.js"
import { exportLog, exportPage } from "./exporting.js"
import { SPEEDS } from "./watched.js"
import type { Watched } from "./watched.js"
import { say, showSeconds } from "./words.js"

export function Replay({ watched }: { watched: Watched }) {
  const { replay, newest } = watched
  const isPlaying = !!replay?.isPlaying
  useEffect(() => {
    if (!isPlaying) return
    let before = performance.now()
    const step = (now: number) => {
      const at = watched.replay
      if (!at?.isPlaying) return
      watched.seek(at.at + ((now - before) / 1000) * at.speed)
      before = now
      handle = requestAnimationFrame(step)
    }
    let handle = requestAnimationFrame(step)
    return () => cancelAnimationFrame(handle)
  }, [isPlaying, watched])
  const end = newest.seconds
  const at = replay?.at ?? end
  const toggle = () => {
    if (isPlaying) watched.seek(at, false)
    else watched.seek(at >= end ? 0 : at, true)
  }
  return (
    <div class="replay" role="group" aria-label={say("replay")}>
      <button onClick={toggle} aria-label={say(isPlaying ? "pause" : "play")}>{isPlaying ? "❚❚" : "▶"}</button>
      <input type="range" min={0} max={end} step="any" value={at} aria-label={say("position")} aria-valuetext={showSeconds(at)} onInput={event => watched.seek(event.currentTarget.valueAsNumber, false)} />
      <span class="small">{showSeconds(at)}</span>
      <select
        aria-label={say("speed")} value={replay?.speed ?? 1}
        onChange={event => (watched.seek(at), (watched.replay!.speed = Number(event.currentTarget.value)), board.changed())}
      >
        {SPEEDS.map(speed => <option value={speed}>{speed}×</option>)}
      </select>
      {replay && <button onClick={() => watched.seek(undefined)}>{say("live")}</button>}
      <details class="export">
        <summary aria-label="Export">⤓</summary>
        <div>
          <button onClick={() => exportLog(watched)}>{say("exportLog")}</button>
          <button onClick={() => exportPage(watched)}>{say("exportPage")}</button>
        </div>
      </details>
    </div>
  )
}
