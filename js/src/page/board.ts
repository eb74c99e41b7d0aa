// The state of the whole page, outside its components; one paint a frame.

import { useEffect, useLayoutEffect, useState } from "preact/hooks"
import { makeRunId } from "../core/index.js"
import type { Json, RunEvent } from "../core/index.js"
import { getApp, getRuns, act, explain } from "./server.js"
import type { AppInfo, Runnable, Summary } from "./server.js"
import { say, sayState, setLanguage, getLanguage } from "./words.js"
import { Watched } from "./watched.js"

export type Pane = "runs" | "chat" | "graph"

const POLL_MS = 2500

class Board {
  app?: AppInfo
  runs: Summary[] = []
  next: number | null = null
  error?: string
  /** The conversation that is shown, oldest run first. */
  shown: Watched[] = []
  /** The run whose graph is shown. */
  current?: Watched
  call?: string
  chosen = 0
  pane: Pane = "chat"
  /** Spoken by a screen reader: when it has time, and at once. */
  polite = ""
  urgent = ""
  isFile = false
  #session = makeRunId().replace("run", "session")
  #listeners = new Set<() => void>()
  #isPlanned = false

  get runnable(): Runnable | undefined {
    return this.app?.runnables[this.chosen]
  }

  get isBusy(): boolean {
    return !!this.current && this.current.isWatching && this.current.newest.status === "running"
  }

  subscribe(listener: () => void) {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Paint at the next frame, however much has changed by then; a hidden page has no frames. */
  changed = () => {
    if (this.#isPlanned) return
    this.#isPlanned = true
    const paint = () => {
      this.#isPlanned = false
      for (const listener of this.#listeners) listener()
    }
    if (document.hidden) setTimeout(paint)
    else requestAnimationFrame(paint)
  }

  /** Open the page on a server. */
  async open() {
    try {
      this.app = await getApp()
      await this.poll()
    } catch (error) {
      const status = (error as { status?: number }).status
      this.error = status === 401 ? say("noToken") : explain(error)
    }
    this.changed()
    if (this.error) return
    addEventListener("hashchange", () => this.route())
    this.route()
    setInterval(() => document.hidden || void this.poll().catch(() => {}), POLL_MS)
  }

  /** Open the page on a log, without a server. */
  openLog(events: RunEvent[]) {
    this.isFile = true
    const watched = this.#watch(events[0]!.run)
    events.forEach(event => watched.take(event))
    this.shown = [watched]
    this.current = watched
  }

  async poll() {
    const { runs, next } = await getRuns()
    for (const watched of this.shown) {
      // Gone on with from another tab, or after the server was away.
      const now = runs.find(run => run.run === watched.id)?.status
      if (now && !watched.isWatching && (now === "running" || now !== watched.newest.status)) void watched.watch()
    }
    if (JSON.stringify(runs) === JSON.stringify(this.runs)) return
    this.runs = runs
    this.next = next
    this.changed()
  }

  route() {
    const run = /^#\/runs\/(.+)$/.exec(location.hash)?.[1]
    if (run && run !== this.current?.id) this.show(run)
    else if (!run && this.current) this.clear()
  }

  /** Show a run, and what was said before it in its conversation. */
  show(id: string) {
    const summary = this.runs.find(run => run.run === id)
    const session = summary?.session
    const known = this.shown.find(watched => watched.id === id)
    if (known) {
      this.current = known
    } else {
      this.shown.forEach(watched => watched.leave())
      const others = session ? this.runs.filter(run => run.session === session && run.began_at <= summary!.began_at) : []
      const ids = [...new Set([...others.map(run => run.run).reverse(), id])].slice(-20)
      this.shown = ids.map(run => this.#watch(run))
      this.current = this.shown.at(-1)
      this.shown.forEach(watched => void watched.watch())
    }
    if (session) this.#session = session
    const at = this.app?.runnables.findIndex(runnable => runnable.name === summary?.name) ?? -1
    if (at >= 0) this.chosen = at
    this.call = undefined
    this.pane = "chat"
    this.changed()
  }

  /** Begin a new conversation. */
  clear() {
    this.shown.forEach(watched => watched.leave())
    this.shown = []
    this.current = this.call = undefined
    this.#session = makeRunId().replace("run", "session")
    if (location.hash) location.hash = ""
    this.changed()
  }

  async start({ message, inputs }: { message?: string; inputs?: Json }) {
    if (this.isBusy) await this.stop()
    const runnable = this.runnable!
    if (runnable.kind === "recipe") this.clear()
    const watched = this.#watch(makeRunId(), message)
    this.shown = [...this.shown, watched]
    this.current = watched
    this.call = undefined
    history.replaceState(null, "", `#/runs/${watched.id}`)
    this.say(say("answering", { name: runnable.name }))
    const session = runnable.kind === "agent" ? this.#session : undefined
    void watched.watch({ app: runnable.name, message, inputs, session })
  }

  /** Start a run that begins with what this one had come to, and show it. */
  async fork(from: Watched, body: object) {
    const run = makeRunId()
    const answer = await act(from.id, "fork", { ...body, run })
    // The run goes on without this stream; the page watches it as it watches every other.
    void answer.body?.cancel()
    await this.poll()
    location.hash = `#/runs/${run}`
  }

  stop = async () => {
    if (this.current) await act(this.current.id, "cancel").catch(() => {})
  }

  select(call: string | undefined, watched = this.current) {
    this.current = watched
    this.call = call
    this.changed()
  }

  switchLanguage() {
    setLanguage(getLanguage() === "ko" ? "en" : "ko")
    this.changed()
  }

  say(text: string) {
    this.polite = text
    this.changed()
  }

  #watch(id: string, said?: string): Watched {
    const watched: Watched = new Watched(
      id,
      event => {
        if (event && watched === this.current && watched.isWatching && !this.isFile) this.#tell(event)
        this.changed()
      },
      said,
    )
    return watched
  }

  #tell(event: RunEvent) {
    if (event.type === "run.started" || event.type === "run.finished") void this.poll().catch(() => {})
    if (event.type === "approval.asked") this.urgent = say("waitsForYou", { name: event.name })
    if (event.type === "approval.decided") this.urgent = ""
    if (event.type === "run.finished" && event.status !== "waiting")
      this.polite = event.status === "done" ? say("answerComplete") : say("ended", { status: sayState(event.status) })
  }
}

export const board = new Board()

/** Draw the component again at each paint of the page. */
export function useBoard(): Board {
  const [, draw] = useState(0)
  // Before the next frame: a paint that comes before somebody listens is lost.
  useLayoutEffect(() => board.subscribe(() => draw(count => count + 1)), [])
  return board
}

/** Seconds since the run began, by frames while it runs: a clock needs no events. */
export function useClock(watched: Watched | undefined): number {
  const [, tick] = useState(0)
  const runs = !!watched && !watched.replay && watched.isWatching && watched.newest.status === "running"
  useEffect(() => {
    if (!runs) return
    const isSlow = matchMedia("(prefers-reduced-motion: reduce)").matches
    const draw = () => {
      tick(count => count + 1)
      handle = isSlow ? setTimeout(draw, 500) : requestAnimationFrame(draw)
    }
    let handle: any = requestAnimationFrame(draw)
    return () => (cancelAnimationFrame(handle), clearTimeout(handle))
  }, [runs])
  if (!watched) return 0
  return runs ? watched.newest.seconds + (performance.now() - watched.lastAt) / 1000 : watched.run.seconds
}
