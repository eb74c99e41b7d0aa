export type * from "./events.js";
export { Fold, fold } from "./fold.js";
export type { Call, CallState, CallStatus, Decision, Run, RunStatus, Span, Turn, Wait } from "./fold.js";
export { Parser } from "./parser.js";
export { follow, makeRunId, request, ServerError } from "./connection.js";
export type { Follow, Server, Start } from "./connection.js";
