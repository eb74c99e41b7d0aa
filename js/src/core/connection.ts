// A run's events over HTTP, through cuts: what `flowkit serve` speaks, read by fetch, since EventSource takes no headers.

import type { Json, RunEvent } from "./events.js"
import { Parser } from "./parser.js"

export interface Server {
  /** Where the routes are; "/api" unless said. */
  api?: string
  headers?: Record<string, string> | (() => Record<string, string>)
}

export interface Start {
  app?: string
  message?: string
  inputs?: Json
  session?: string
}

/** An answer of the server that isn't what was asked for; `status` is 0 where there was none. */
export class ServerError extends Error {
  constructor(readonly status: number, message: string, readonly body?: Json) {
    super(message)
  }
}

const TRIES = 6

/** `run-` and 128 random bits: made here, so that a repeated POST joins the run instead of starting another. */
export function makeRunId(): string {
  // Not randomUUID: it exists only on https and localhost.
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return "run-" + [...bytes].map(byte => (byte + 256).toString(16).slice(1)).join("")
}

/** One request; raises `ServerError` for every status from 400 on. */
export async function request(server: Server, path: string, init: RequestInit = {}, json?: object): Promise<Response> {
  const { api = "/api", headers } = server
  const response = await fetch(api + path, {
    ...(json && { method: "POST", body: JSON.stringify(json) }),
    ...init,
    headers: { ...(json && { "content-type": "application/json" }), ...(typeof headers === "function" ? headers() : headers) },
  })
  if (response.ok) return response
  const body = await response.json().catch(() => null)
  throw new ServerError(response.status, body?.error ?? response.statusText, body)
}

export interface Follow {
  server: Server
  run: string
  /** Starts the run; without it the run is watched from after the event `after`. */
  start?: Start
  after?: number
  signal: AbortSignal
  onEvent(event: RunEvent): void
  /** It has been cut and is tried again. */
  onCut?(tries: number): void
}

/** Read a run's events to its end, or until it waits; the status the server gave last, such as `stopped`.
 *
 * A stream that ends without the run's end is a cut: it is asked for again from the last number, 6 times, counted
 * anew after each event. Raises the last error then; a closed `signal` raises an AbortError.
 */
export async function follow({ server, run, start, after = -1, signal, onEvent, onCut }: Follow): Promise<string> {
  for (let tries = 0; ; ) {
    try {
      const response = start
        ? await request(server, "/runs", { signal }, { ...start, run })
        : await request(server, `/runs/${run}/events?after=${after}`, { signal })
      start = undefined
      const status = response.headers.get("flowkit-run-status") ?? "running"
      if (response.status === 204) return status
      let isOver = false
      const reader = response.body!.getReader()
      const parser = new Parser()
      for (let read = await reader.read(); !read.done; read = await reader.read())
        for (const data of parser.feed(read.value)) {
          const event = JSON.parse(data) as RunEvent
          if (typeof event.seq !== "number") continue
          tries = 0
          after = Math.max(after, event.seq)
          if (event.type === "run.started") isOver = false
          if (event.type === "run.finished") isOver = true
          onEvent(event)
        }
      if (isOver) return "over"
      if (status === "stopped") return status
      throw new ServerError(0, "stream was cut")
    } catch (error) {
      const status = error instanceof ServerError ? error.status : 0
      if (signal.aborted || (status && status < 500 && status !== 429) || tries++ >= TRIES) throw error
      onCut?.(tries)
      await pause(Math.random() * Math.min(8000, 125 * 2 ** tries), signal)
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, ms)
    signal.addEventListener("abort", () => reject(signal.reason), { once: true })
  })
}
