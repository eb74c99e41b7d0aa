import type { ChatOptions, ChatState, DecideOptions } from "./chat.js";
export interface UseStreamingAIOptions extends ChatOptions {
    /** A run to watch from the beginning, such as one of a reloaded page. */
    run?: string;
}
export interface UseStreamingAI extends ChatState {
    /** Start a run with this message; one that still runs is cancelled. */
    sendMessage(message: string): Promise<void>;
    abort(): Promise<void>;
    decide(call: string, approved: boolean, options?: DecideOptions): Promise<void>;
    resume(): Promise<void>;
}
/** A conversation with an agent of `flowkit serve`.
 *
 * Unmounting stops watching and leaves the run alone; `abort()` cancels it.
 */
export declare function useStreamingAI(options?: UseStreamingAIOptions): UseStreamingAI;
