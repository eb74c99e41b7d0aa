import type { Call, Json, RunEvent, RunStatus, Server } from "../core/index.js";
export interface ChatMessage {
    id: string;
    role: "user" | "assistant";
    content: string;
    thinking?: string;
    functionCalls?: readonly Call[];
    run?: string;
}
export interface ChatOptions extends Server {
    /** Which agent or recipe of the app; its first one unless said. */
    app?: string;
    /** The conversation that messages belong to; a new one unless said. */
    session?: string;
    /** A call that the model makes has begun. */
    onFunctionCall?(call: Call): void;
    /** The thinking of this turn so far. */
    onThinking?(thinking: string): void;
    onEvent?(event: RunEvent): void;
    onError?(error: Error): void;
}
export interface ChatState {
    messages: readonly ChatMessage[];
    isStreaming: boolean;
    currentThinking: string;
    functionCalls: readonly Call[];
    /** Of the run that was watched last: "running", "done", "waiting", … */
    status?: RunStatus;
    run?: string;
    error?: Error;
}
export interface DecideOptions {
    reason?: string;
    /** The arguments that a person changed, and only those. */
    changes?: Json;
}
export declare class Chat {
    #private;
    options: ChatOptions;
    getState: () => ChatState;
    subscribe: (listener: () => void) => () => boolean;
    /** Watch this run, or go on with the one that is known; the way back only stops watching. */
    mount(run?: string): () => void;
    sendMessage: (message: string) => Promise<void>;
    /** Cancel the run; its stream then says how each call ended. */
    abort: () => Promise<void>;
    /** Say yes or no to a call that waits; whoever decides second learns what was decided. */
    decide: (call: string, approved: boolean, { reason, changes }?: DecideOptions) => Promise<void>;
    /** Go on with a run that stopped. */
    resume: () => Promise<void>;
}
