// The routes of `flowkit serve` that the page asks, and the token that opens them.

import { request, ServerError } from "../core/index.js"
import type { Json, Server } from "../core/index.js"
import { say } from "./words.js"

export type Schema = { [key: string]: Json }

export interface ToolInfo {
  name: string
  parameters: Schema
}

/** An agent or a recipe. */
export interface Runnable {
  name: string
  kind: "agent" | "recipe"
  description?: string
  model?: string | null
  /** Of a recipe: what its inputs look like. */
  parameters?: Schema
  tools: ToolInfo[]
}

export interface AppInfo {
  runnables: Runnable[]
  tools: Record<string, ToolInfo>
}

/** A run in the list; times are Unix seconds. */
export interface Summary {
  run: string
  name: string
  status: string
  user: string | null
  session: string | null
  /** Its first message or inputs, in a few words. */
  title: string
  began_at: number
  changed_at: number
  cost_usd: number
  cost_at_least: boolean
}

const KEY = "flowkit-token"
let token: string | null = null
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("flowkit" + location.pathname) : undefined

export const server: Server = {
  api: new URL("api", document.baseURI).pathname,
  headers: (): Record<string, string> => (token ? { authorization: `Bearer ${token}` } : {}),
}

/** Take the token out of the address bar, and give it to other tabs that ask. */
export function findToken() {
  const found = /^#token=(.+)$/.exec(location.hash)
  if (found) {
    sessionStorage.setItem(KEY, decodeURIComponent(found[1]!))
    history.replaceState(null, "", location.pathname + location.search)
  }
  token = sessionStorage.getItem(KEY)
  channel?.addEventListener("message", ({ data }) => {
    if (data === "token?" && token) channel.postMessage({ token })
  })
}

/** Ask the other tabs for the token; it stays as it was where none of them answers. */
function askTabs(): Promise<void> {
  return new Promise(resolve => {
    setTimeout(resolve, 2000)
    channel?.addEventListener("message", ({ data }) => {
      if (!data.token) return
      sessionStorage.setItem(KEY, (token = data.token))
      resolve()
    })
    channel?.postMessage("token?")
  })
}

async function get(path: string): Promise<any> {
  return (await request(server, path)).json()
}

export async function getApp(): Promise<AppInfo> {
  // Only then: where an app has logins of its own, there is no token to wait for.
  const told = await get("/app").catch(async error => {
    if (error.status !== 401) throw error
    await askTabs()
    return get("/app")
  })
  const list = (kind: Runnable["kind"], items: Runnable[]) => items.map(item => ({ ...item, kind }))
  const runnables = [...list("agent", told.agents), ...list("recipe", told.recipes)]
  // What the app names first is chosen first.
  runnables.sort((a, b) => Number(b.name === told.first) - Number(a.name === told.first))
  return { runnables, tools: Object.fromEntries(runnables.flatMap(each => each.tools).map(tool => [tool.name, tool])) }
}

export const getRuns = (before?: number): Promise<{ runs: Summary[]; next: number | null }> =>
  get(before === undefined ? "/runs" : `/runs?before=${before}`)

/** A call in full: what its events tell only the beginning of. */
export const getCall = (run: string, call: string): Promise<{ arguments?: Json; value?: Json }> =>
  get(`/runs/${run}/call?${new URLSearchParams({ name: call })}`)

/** The calls of a run that were decided on, and that it hasn't told of since it stands still. */
export async function getDecided(run: string): Promise<string[]> {
  return (await get(`/runs/${run}`)).decided.map((decided: { call: string }) => decided.call)
}

/** What a person is told of an error: the server's own words, or that there is none. */
export const explain = (error: unknown) =>
  error instanceof ServerError && error.status ? error.message : say(error instanceof SyntaxError ? "notJson" : "noServer")

export interface Verdict {
  call: string
  approved: boolean
  reason?: string
  changes?: Json
}

/** What came of a decision: null when it counts, else who had decided before. */
export async function decide(run: string, verdict: Verdict): Promise<{ by?: string | null } | null> {
  try {
    await request(server, `/runs/${run}/decisions`, {}, verdict)
    return null
  } catch (error) {
    if (!(error instanceof ServerError) || error.status !== 409) throw error
    return (error.body as { decided?: { by: string | null } })?.decided ?? {}
  }
}

export const act = (run: string, action: "cancel" | "resume" | "resolve" | "fork", body: object = {}) =>
  request(server, `/runs/${run}/${action}`, { keepalive: action !== "fork" }, body)
