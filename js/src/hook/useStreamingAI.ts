import { useEffect, useLayoutEffect, useState, useSyncExternalStore } from "react"
import { Chat } from "./chat.js"
import type { ChatOptions, ChatState, DecideOptions } from "./chat.js"

export interface UseStreamingAIOptions extends ChatOptions {
  /** A run to watch from the beginning, such as one of a reloaded page. */
  run?: string
}

export interface UseStreamingAI extends ChatState {
  /** Start a run with this message; one that still runs is cancelled. */
  sendMessage(message: string): Promise<void>
  abort(): Promise<void>
  decide(call: string, approved: boolean, options?: DecideOptions): Promise<void>
  resume(): Promise<void>
}

/** A conversation with an agent of `flowkit serve`.
 *
 * Unmounting stops watching and leaves the run alone; `abort()` cancels it.
 */
export function useStreamingAI(options: UseStreamingAIOptions = {}): UseStreamingAI {
  const [chat] = useState(() => new Chat())
  // The newest callbacks, also where they are made anew for each render.
  useLayoutEffect(() => void (chat.options = options))
  // An effect may only attach: StrictMode runs it twice, and starting a run here would start two.
  useEffect(() => chat.mount(options.run), [chat, options.run])
  const state = useSyncExternalStore(chat.subscribe, chat.getState, chat.getState)
  const { sendMessage, abort, decide, resume } = chat
  return { ...state, sendMessage, abort, decide, resume }
}
