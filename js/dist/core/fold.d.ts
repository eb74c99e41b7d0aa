import type { GuardDecided, Json, RunEvent, Usage } from "./events.js";
export type CallState = "new" | "sealed" | "waiting" | "running" | "finished" | "failed" | "skipped" | "denied" | "cancelled" | "void" | "in_doubt";
export type CallStatus = "pending" | "executing" | "completed" | "error";
export type RunStatus = "running" | "done" | "waiting" | "limit" | "cancelled" | "in_doubt" | "failed" | "stopped";
/** From `start` to `end`, in seconds since the run began; without an `end` it is going on. */
export interface Span {
    start: number;
    end?: number;
    error?: string;
}
export interface Wait extends Span {
    for: string;
    on: string[];
}
export interface Decision {
    approved: boolean;
    reason: string;
    by: string | null;
    arguments: Json;
}
/** One call; times are seconds since the run began, its pauses left out. */
export interface Call {
    id: string;
    name: string;
    /** The call that made it, or that needs it. */
    parent?: string;
    /** The call that was running when it made this one: it holds it. */
    holder?: string;
    turn: number;
    state: CallState;
    status: CallStatus;
    /** What has been streamed of its arguments. */
    raw: string;
    /** `{}` until they are final. */
    arguments: Json;
    repaired: string[];
    result?: Json;
    /** The size in bytes of a result that was cut. */
    truncated?: number;
    error?: string;
    source?: string;
    age?: number;
    attempt: number;
    early: boolean;
    progress?: {
        done: number;
        total: number | null;
        note: string;
    };
    /** What it can't begin before: calls that it refers to, waits for, or needs. */
    deps: string[];
    attempts: Span[];
    waits: Wait[];
    asked?: Json;
    decision?: Decision;
    text: string;
    thinking: string;
    tNew: number;
    tStart?: number;
    tEnd?: number;
}
export interface Turn {
    turn: number;
    attempt: number;
    model: string;
    text: string;
    thinking: string;
    calls: string[];
    tStart: number;
    tFirst?: number;
    tThought?: number;
    tEnd?: number;
    reason?: string;
    error?: string;
}
export interface Run {
    id: string;
    name: string;
    model: string | null;
    user: string | null;
    session: string | null;
    message?: string;
    inputs: Json;
    status: RunStatus;
    turns: readonly Turn[];
    calls: readonly Call[];
    output: Json;
    /** The answer so far, of an agent whose answer has a type; at the end the whole of it. */
    partial?: Json;
    /** What guards have said of requests, calls and answers. */
    guards: readonly GuardDecided[];
    error?: string;
    tips: readonly string[];
    usage: Usage;
    /** With `atLeast` some answers had no known price. */
    cost: {
        usd: number;
        atLeast: boolean;
    };
    seconds: number;
    seq: number;
}
export declare class Fold {
    #private;
    seq: number;
    get(id: string): Call | undefined;
    /** The thinking of the turn that goes on. */
    get thinking(): string;
    /** Take an event; false when it is known already. */
    take(event: RunEvent): boolean;
    /** Nobody drives it any more: said by the server, the log can't know. */
    stop(): void;
    /** The run as it is now; what didn't change since the last time is the same object. */
    snapshot(): Run;
}
/** Fold a whole log. */
export declare function fold(events: Iterable<RunEvent>): Run;
