import type { Json, RunEvent } from "./events.js";
export interface Server {
    /** Where the routes are; "/api" unless said. */
    api?: string;
    headers?: Record<string, string> | (() => Record<string, string>);
}
export interface Start {
    app?: string;
    message?: string;
    inputs?: Json;
    session?: string;
}
/** An answer of the server that isn't what was asked for; `status` is 0 where there was none. */
export declare class ServerError extends Error {
    readonly status: number;
    readonly body?: Json | undefined;
    constructor(status: number, message: string, body?: Json | undefined);
}
/** `run-` and 128 random bits: made here, so that a repeated POST joins the run instead of starting another. */
export declare function makeRunId(): string;
/** One request; raises `ServerError` for every status from 400 on. */
export declare function request(server: Server, path: string, init?: RequestInit, json?: object): Promise<Response>;
export interface Follow {
    server: Server;
    run: string;
    /** Starts the run; without it the run is watched from after the event `after`. */
    start?: Start;
    after?: number;
    signal: AbortSignal;
    onEvent(event: RunEvent): void;
    /** It has been cut and is tried again. */
    onCut?(tries: number): void;
}
/** Read a run's events to its end, or until it waits; the status the server gave last, such as `stopped`.
 *
 * A stream that ends without the run's end is a cut: it is asked for again from the last number, 6 times, counted
 * anew after each event. Raises the last error then; a closed `signal` raises an AbortError.
 */
export declare function follow({ server, run, start, after, signal, onEvent, onCut }: Follow): Promise<string>;
