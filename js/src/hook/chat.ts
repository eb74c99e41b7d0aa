// The state behind the hook, outside React: one conversation, one run at a time, one snapshot for each frame.

import { follow, Fold, makeRunId, request, ServerError } from "../core/index.js"
import type { Call, Json, Run, RunEvent, RunStatus, Server } from "../core/index.js"

export interface ChatMessage {
  id: string
  role: "user" | "assistant"
  content: string
  thinking?: string
  functionCalls?: readonly Call[]
  run?: string
}

export interface ChatOptions extends Server {
  /** Which agent or recipe of the app; its first one unless said. */
  app?: string
  /** The conversation that messages belong to; a new one unless said. */
  session?: string
  /** A call that the model makes has begun. */
  onFunctionCall?(call: Call): void
  /** The thinking of this turn so far. */
  onThinking?(thinking: string): void
  onEvent?(event: RunEvent): void
  onError?(error: Error): void
}

export interface ChatState {
  messages: readonly ChatMessage[]
  isStreaming: boolean
  currentThinking: string
  functionCalls: readonly Call[]
  /** Of the run that was watched last: "running", "done", "waiting", … */
  status?: RunStatus
  run?: string
  error?: Error
}

export interface DecideOptions {
  reason?: string
  /** The arguments that a person changed, and only those. */
  changes?: Json
}

export class Chat {
  options: ChatOptions = {}
  #state: ChatState = { messages: [], isStreaming: false, currentThinking: "", functionCalls: [] }
  #listeners = new Set<() => void>()
  #earlier: readonly ChatMessage[] = []
  #fold = new Fold()
  #run: string | undefined
  #said: string | undefined
  #session = makeRunId().replace("run", "session")
  #watching: AbortController | undefined
  #isPlanned = false

  getState = () => this.#state

  subscribe = (listener: () => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Watch this run, or go on with the one that is known; the way back only stops watching. */
  mount(run?: string): () => void {
    if (run && run !== this.#run) this.#begin(run)
    if (this.#run) void this.#watch()
    return () => this.#watching?.abort()
  }

  sendMessage = async (message: string): Promise<void> => {
    if (!message.trim()) return
    if (this.#state.isStreaming) await this.abort()
    const { app, session = this.#session } = this.options
    this.#begin(makeRunId(), message)
    await this.#watch({ app, message, session })
  }

  /** Cancel the run; its stream then says how each call ended. */
  abort = () => this.#post("/cancel", {}, { keepalive: true })

  /** Say yes or no to a call that waits; whoever decides second learns what was decided. */
  decide = async (call: string, approved: boolean, { reason, changes }: DecideOptions = {}) => {
    await this.#post("/decisions", { call, approved, reason, changes })
    void this.#watch()
  }

  /** Go on with a run that stopped. */
  resume = async () => {
    await this.#post("/resume", {})
    void this.#watch()
  }

  #begin(run: string, message?: string) {
    this.#watching?.abort()
    if (this.#run) this.#earlier = this.#state.messages
    this.#run = run
    this.#said = message
    this.#fold = new Fold()
    this.#set({ error: undefined })
  }

  async #watch(start?: { app?: string; message: string; session: string }): Promise<void> {
    this.#watching?.abort()
    const { signal } = (this.#watching = new AbortController())
    const fold = this.#fold
    this.#set({ isStreaming: true, error: undefined })
    try {
      const status = await follow({
        server: this.options, run: this.#run!, start, after: fold.seq, signal,
        onEvent: event => this.#take(fold, event),
      })
      if (status === "stopped") fold.stop()
    } catch (error) {
      if (signal.aborted) return
      this.#fail(error as Error)
    }
    if (!signal.aborted) this.#set({ isStreaming: false })
  }

  #take(fold: Fold, event: RunEvent) {
    if (fold !== this.#fold) return
    const isNew = event.type === "call.new" && !fold.get(event.call)
    if (!fold.take(event)) return
    const { onEvent, onFunctionCall, onThinking } = this.options
    onEvent?.(event)
    if (isNew && !event.parent && event.call.startsWith("turn/")) onFunctionCall?.({ ...fold.get(event.call)! })
    if (event.type === "thinking.delta" && event.call == null) onThinking?.(fold.thinking)
    this.#plan()
  }

  async #post(path: string, json: object, init: RequestInit = {}) {
    try {
      await request(this.options, `/runs/${this.#run}${path}`, init, json)
    } catch (error) {
      // Decided by another, or over: the stream tells.
      if (!(error instanceof ServerError && error.status === 409)) this.#fail(error as Error)
    }
  }

  #fail(error: Error) {
    this.#set({ error })
    this.options.onError?.(error)
  }

  /** One snapshot for each frame, however many events it brings; a hidden page has no frames. */
  #plan() {
    if (this.#isPlanned) return
    this.#isPlanned = true
    const paint = () => {
      this.#isPlanned = false
      this.#set()
    }
    if (document.hidden) setTimeout(paint)
    else requestAnimationFrame(paint)
  }

  #set(changes?: Partial<ChatState>) {
    const run = this.#fold.snapshot()
    this.#state = {
      ...this.#state, ...changes, run: this.#run, functionCalls: run.calls,
      status: this.#run ? run.status : undefined,
      currentThinking: this.#fold.thinking,
      messages: [...this.#earlier, ...this.#tell(run)],
    }
    for (const listener of this.#listeners) listener()
  }

  #tell(run: Run): ChatMessage[] {
    const id = this.#run!
    const told: ChatMessage[] = []
    const message = this.#said ?? run.message
    if (message) told.push({ id: `${id}:user`, role: "user", content: message, run: id })
    if (run.turns.length || run.calls.length)
      told.push({
        id, role: "assistant", run: id, functionCalls: run.calls,
        content: join(run, "text"),
        thinking: join(run, "thinking"),
      })
    return told
  }
}

function join(run: Run, kind: "text" | "thinking"): string {
  return run.turns.map(turn => turn[kind]).filter(Boolean).join("\n\n")
}
