// One run on the page: its events as they come, its fold, and the place in time that a replay shows.

import { follow, Fold, ServerError } from "../core/index.js"
import type { Run, RunEvent, Start } from "../core/index.js"
import { explain, getDecided, server } from "./server.js"

export const SPEEDS = [0.5, 1, 2, 4, 8, 16]

export class Watched {
  readonly events: RunEvent[] = []
  /** For each event, seconds since the run began, its pauses left out. */
  readonly times: number[] = []
  error?: string
  isMissing = false
  /** Whether its log has been read once; before that nobody knows what was decided. */
  wasRead = false
  /** Calls that were decided on while the run stood still, so that its log can't tell yet. */
  readonly decided = new Set<string>()
  cuts = 0
  isWatching = false
  /** When the last event came, on the clock of frames. */
  lastAt = 0
  replay?: { at: number; speed: number; isPlaying: boolean }
  #fold = new Fold()
  #past?: { fold: Fold; taken: number }
  #stop?: AbortController
  #offset = 0

  constructor(readonly id: string, private readonly changed: (event?: RunEvent) => void, readonly said?: string) {}

  /** The run as it is now, or as it was where the replay stands. */
  get run(): Run {
    return this.replay ? this.#at(this.replay.at) : this.#fold.snapshot()
  }

  get newest(): Run {
    return this.#fold.snapshot()
  }

  take(event: RunEvent) {
    if (!this.#fold.take(event)) return
    const last = this.times.at(-1) ?? 0
    if (event.type === "run.started") this.#offset = last
    if (event.type === "run.finished") this.decided.clear()
    this.times.push(Math.max(last, this.#offset + event.t))
    this.events.push(event)
    this.lastAt = performance.now()
    this.cuts = 0
    this.changed(event)
  }

  async watch(start?: Start): Promise<void> {
    this.#stop?.abort()
    const { signal } = (this.#stop = new AbortController())
    this.isWatching = true
    this.error = undefined
    this.wasRead ||= start !== undefined
    this.changed()
    try {
      const status = await follow({
        server, run: this.id, start, after: this.#fold.seq, signal,
        onEvent: event => this.take(event),
        onCut: tries => {
          this.cuts = tries
          this.changed()
        },
      })
      if (status === "stopped") this.#fold.stop()
      if (this.newest.status === "waiting") (await getDecided(this.id)).forEach(call => this.decided.add(call))
    } catch (error) {
      if (signal.aborted) return
      if (error instanceof ServerError && error.status === 404) this.isMissing = true
      this.error = explain(error)
    }
    this.cuts = 0
    this.isWatching = false
    this.wasRead = true
    this.changed()
  }

  leave() {
    this.#stop?.abort()
  }

  /** Show the run as it was `at` seconds after it began; undefined goes back to now. */
  seek(at: number | undefined, isPlaying = this.replay?.isPlaying ?? false) {
    const end = this.newest.seconds
    if (at === undefined) this.replay = undefined
    else this.replay = { at: Math.min(Math.max(0, at), end), speed: this.replay?.speed ?? 1, isPlaying: isPlaying && at < end }
    this.changed()
  }

  #at(seconds: number): Run {
    const past = this.#past
    let { fold, taken } = past ?? { fold: new Fold(), taken: 0 }
    if (taken && this.times[taken - 1]! > seconds) [fold, taken] = [new Fold(), 0]
    while (taken < this.events.length && this.times[taken]! <= seconds) fold.take(this.events[taken++]!)
    this.#past = { fold, taken }
    return { ...fold.snapshot(), seconds }
  }
}
