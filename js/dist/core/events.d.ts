export type Json = null | boolean | number | string | Json[] | {
    [key: string]: Json;
};
/**
 * Tokens of one request or of many; parts of a whole are counted in the whole, too.
 *
 * thinking_tokens are part of the output. cached_tokens, read from the server's cache, and cache_write_tokens,
 * written into it, are part of the input; cache_write_1h_tokens are those of the writes that are kept for an hour.
 * cost_usd is the charge that the server reported, or None. billed are the tokens that the server charges, if they
 * are more than this answer's: it may have called other models, or itself several times.
 */
export interface Usage {
    input_tokens: number;
    output_tokens: number;
    cached_tokens: number;
    thinking_tokens: number;
    cost_usd: number | null;
    cache_write_tokens: number;
    cache_write_1h_tokens?: number;
    billed?: Usage | null;
}
/**
 * model is None for a recipe, inputs for an agent; message is the user's message, as text.
 *
 * at_wall is when it began, or was gone on with, in seconds since 1970: t counts from there.
 */
export interface RunStarted {
    type: "run.started";
    run: string;
    seq: number;
    t: number;
    name: string;
    model: string | null;
    user: string | null;
    session: string | null;
    inputs: Json;
    message: string | null;
    at_wall: number | null;
    truncated?: number;
}
/**
 * A request is sent; attempt counts from 1 within the turn.
 *
 * model is the called model: a router or a fallback has its own name, since the answering model isn't known
 * yet.
 */
export interface TurnStarted {
    type: "turn.started";
    run: string;
    seq: number;
    t: number;
    turn: number;
    model: string;
    attempt: number;
}
/**
 * Attempt attempt of the turn failed by error, and is retried after delay_s.
 */
export interface TurnRetried {
    type: "turn.retried";
    run: string;
    seq: number;
    t: number;
    turn: number;
    error: string;
    delay_s: number;
    attempt: number;
}
/**
 * call names the step whose model speaks; None for the agent's own.
 *
 * at is how many characters (code points) of this turn came before: text[:at] + piece may be done twice.
 */
export interface ThinkingDelta {
    type: "thinking.delta";
    run: string;
    seq: number;
    t: number;
    text: string;
    turn: number;
    call: string | null;
    at: number;
}
/**
 * call names the step whose model speaks; None for the agent's own.
 *
 * at is how many characters (code points) of this turn came before: text[:at] + piece may be done twice.
 */
export interface TextDelta {
    type: "text.delta";
    run: string;
    seq: number;
    t: number;
    text: string;
    turn: number;
    call: string | null;
    at: number;
}
/**
 * The answer so far, as JSON. Missing parts haven't arrived; existing parts stay or grow.
 *
 * call is the output tool's call with these arguments; None for an answer as text. In a retried turn it
 * starts over. A slow watcher receives only the latest, and a journal doesn't store them.
 */
export interface OutputPartial {
    type: "output.partial";
    run: string;
    seq: number;
    t: number;
    output: Json;
    turn: number;
    call: string | null;
    truncated?: number;
}
/**
 * A call has begun to exist; parent is the call or step that made it.
 */
export interface CallNew {
    type: "call.new";
    run: string;
    seq: number;
    t: number;
    call: string;
    name: string;
    parent: string | null;
}
/**
 * A fragment of its arguments, as streamed.
 */
export interface CallArguments {
    type: "call.arguments";
    run: string;
    seq: number;
    t: number;
    call: string;
    fragment: string;
}
/**
 * Its arguments are final; secrets are masked, repaired lists the repairs.
 */
export interface CallSealed {
    type: "call.sealed";
    run: string;
    seq: number;
    t: number;
    call: string;
    arguments: Json;
    repaired: string[];
    truncated?: number;
}
/**
 * on names the calls or the resource it waits for.
 */
export interface CallWaiting {
    type: "call.waiting";
    run: string;
    seq: number;
    t: number;
    call: string;
    waiting_for: "calls" | "approval" | "resource" | "slot";
    on: string[];
}
/**
 * The call runs; early if the model's turn hadn't ended.
 *
 * effect is its tool's effect; None for nodes that are no tool, such as an each or a model call.
 */
export interface CallStarted {
    type: "call.started";
    run: string;
    seq: number;
    t: number;
    call: string;
    attempt: number;
    early: boolean;
    effect: "read" | "idempotent" | "write" | null;
}
/**
 * Progress reported by the tool; total is None if unknown.
 */
export interface CallProgress {
    type: "call.progress";
    run: string;
    seq: number;
    t: number;
    call: string;
    done: number;
    total: number | null;
    note: string;
}
/**
 * The call failed and will be retried after delay_s; error_type is the class of the exception.
 */
export interface CallRetried {
    type: "call.retried";
    run: string;
    seq: number;
    t: number;
    call: string;
    error: string;
    delay_s: number;
    error_type: string | null;
}
/**
 * The call's result; age_s is the age of a cached result, None for a result of a run.
 *
 * source is run, cache, flight (it joined an equal call), or journal (it was recorded before a crash).
 * ended_s is set if it finished before this event: an early run is reported when its call is sealed.
 */
export interface CallFinished {
    type: "call.finished";
    run: string;
    seq: number;
    t: number;
    call: string;
    value: Json;
    source: "run" | "cache" | "flight" | "journal";
    age_s: number | null;
    ended_s: number | null;
    truncated?: number;
}
/**
 * The call failed. error is the message that the model reads; ended_s is as in CallFinished.
 *
 * error_type is the class of the exception; None without one, as for invalid arguments.
 */
export interface CallFailed {
    type: "call.failed";
    run: string;
    seq: number;
    t: number;
    call: string;
    error: string;
    ended_s: number | null;
    error_type: string | null;
}
/**
 * A dependency failed: because names it, or the condition that was not met.
 */
export interface CallSkipped {
    type: "call.skipped";
    run: string;
    seq: number;
    t: number;
    call: string;
    because: string;
}
/**
 * A person denied the call.
 */
export interface CallDenied {
    type: "call.denied";
    run: string;
    seq: number;
    t: number;
    call: string;
    reason: string;
}
/**
 * The call was stopped, or dropped before it ran.
 *
 * waits when it, or a call made for it, waits for a person, so that the run may resume with it.
 */
export interface CallCancelled {
    type: "call.cancelled";
    run: string;
    seq: number;
    t: number;
    call: string;
    reason: string;
    waits: boolean;
}
/**
 * Never sealed: the turn broke off before the call was complete.
 */
export interface CallVoid {
    type: "call.void";
    run: string;
    seq: number;
    t: number;
    call: string;
    reason: string;
}
/**
 * A write that may have taken effect.
 */
export interface CallInDoubt {
    type: "call.in_doubt";
    run: string;
    seq: number;
    t: number;
    call: string;
    reason: string;
}
/**
 * A person has to decide on these arguments.
 */
export interface ApprovalAsked {
    type: "approval.asked";
    run: string;
    seq: number;
    t: number;
    call: string;
    name: string;
    arguments: Json;
    truncated?: number;
}
/**
 * A person's decision; arguments are the new arguments if the person changed them.
 */
export interface ApprovalDecided {
    type: "approval.decided";
    run: string;
    seq: number;
    t: number;
    call: string;
    approved: boolean;
    reason: string;
    by: string | null;
    arguments: Json;
}
/**
 * Tokens of one answer of this turn, and their cost; None if the price isn't known.
 *
 * call names the step of the answering model; None for the agent's own model.
 */
export interface UsageReported {
    type: "usage";
    run: string;
    seq: number;
    t: number;
    turn: number;
    usage: Usage;
    cost_usd: number | null;
    call: string | null;
}
/**
 * The turn ended; error is set if it broke off.
 *
 * model is the answering model, which for a router or a fallback is known only now.
 */
export interface TurnFinished {
    type: "turn.finished";
    run: string;
    seq: number;
    t: number;
    turn: number;
    reason: "stop" | "tool_calls" | "length" | "content_filter" | "error" | "unknown";
    error: string | null;
    model: string | null;
}
/**
 * A turn of an agent inside the call call: it has started, is retried, or has ended.
 *
 * reason and model, the one that answered, are known at its end; error is why it broke off or is retried.
 */
export interface NestedTurn {
    type: "nested.turn";
    run: string;
    seq: number;
    t: number;
    call: string;
    turn: number;
    state: "started" | "retried" | "finished";
    attempt: number;
    model: string | null;
    reason: "stop" | "tool_calls" | "length" | "content_filter" | "error" | "unknown" | null;
    error: string | null;
}
/**
 * A guard's verdict on a request, an answer, or the call call; reason is why it refused, secrets masked.
 *
 * One that watches runs beside the model, and reports that it passed when it has seen the whole.
 */
export interface GuardDecided {
    type: "guard.decided";
    run: string;
    seq: number;
    t: number;
    guard: string;
    on: "request" | "call" | "answer";
    verdict: "passed" | "changed" | "refused" | "failed";
    reason: string;
    turn: number;
    call: string | null;
    watches: boolean;
}
/**
 * The state of a budget before a turn; resets_at is seconds since 1970, None if it never resets.
 */
export interface BudgetChecked {
    type: "budget.checked";
    run: string;
    seq: number;
    t: number;
    budget: string;
    turn: number;
    usd: number;
    left_usd: number;
    resets_at: number | null;
}
/**
 * Always the last event; every call that was opened is closed before it.
 *
 * tips report what a tool's declaration cost: "treated as write; as read it would have started 0.8 s sooner".
 * error is the cause, for the operator of the service; notice is a neutral sentence, which a customer may read.
 */
export interface RunFinished {
    type: "run.finished";
    run: string;
    seq: number;
    t: number;
    status: "done" | "waiting" | "limit" | "cancelled" | "in_doubt" | "failed";
    output: Json;
    error: string | null;
    tips: string[];
    notice: string | null;
    truncated?: number;
}
/** Every event of this version; a reader passes over types and fields that it doesn't know. */
export type RunEvent = RunStarted | TurnStarted | TurnRetried | ThinkingDelta | TextDelta | OutputPartial | CallNew | CallArguments | CallSealed | CallWaiting | CallStarted | CallProgress | CallRetried | CallFinished | CallFailed | CallSkipped | CallDenied | CallCancelled | CallVoid | CallInDoubt | ApprovalAsked | ApprovalDecided | UsageReported | TurnFinished | NestedTurn | GuardDecided | BudgetChecked | RunFinished;
