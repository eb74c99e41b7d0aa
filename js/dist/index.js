// src/core/fold.ts
var FAILED = /^(failed|skipped|denied|cancelled|void|in_doubt)$/, Fold = class {
  seq = -1;
  #head = {
    id: "",
    name: "",
    model: null,
    user: null,
    session: null,
    inputs: null,
    status: "running",
    output: null,
    tips: [],
    usage: {},
    guards: [],
    cost: { usd: 0, atLeast: !1 }
  };
  #calls = /* @__PURE__ */ new Map();
  #turns = [];
  #offset = 0;
  #seconds = 0;
  #changed = /* @__PURE__ */ new Set();
  #views = [];
  #view;
  get(id) {
    return this.#calls.get(id);
  }
  /** The thinking of the turn that goes on. */
  get thinking() {
    return this.#turns.at(-1)?.thinking ?? "";
  }
  /** Take an event; false when it is known already. */
  take(event) {
    if (!(event.seq > this.seq)) return !1;
    this.seq = event.seq, this.#view = void 0;
    let head = this.#head;
    if (event.type === "run.started") {
      this.#offset = this.#seconds, head.id ||= event.run;
      let { name, model, user, session, inputs } = event;
      return Object.assign(head, { name, model, user, session, status: "running", error: void 0 }), head.inputs ??= inputs, head.message ??= event.message ?? void 0, !0;
    }
    let t = this.#offset + event.t;
    this.#seconds = Math.max(this.#seconds, t);
    let turn = this.#turns.at(-1);
    switch (event.type) {
      case "run.finished":
        if (head.status = event.status, head.output = event.output, head.partial !== void 0 && event.output != null && (head.partial = event.output), head.error = event.error ?? void 0, head.tips = event.tips ?? [], event.status !== "waiting")
          for (let [call, { status }] of this.#calls)
            /ing/.test(status) && this.#takeCall({ type: "call.cancelled", call }, t);
        break;
      case "turn.started":
        head.partial = void 0, this.#startTurn(event.turn, event.attempt, event.model, t);
        break;
      case "turn.finished":
        turn && (turn.tEnd = t, turn.reason = event.reason, turn.error = event.error ?? void 0, turn.model = event.model ?? turn.model);
        break;
      case "text.delta":
      case "thinking.delta": {
        let kind = event.type === "text.delta" ? "text" : "thinking", target = event.call == null ? turn : this.#calls.get(event.call);
        if (!target) break;
        put(target, kind, event.text, event.at, event.turn), event.call != null ? this.#changed.add(event.call) : (turn.tFirst ??= t, kind === "thinking" && (turn.tThought = t));
        break;
      }
      case "guard.decided":
        head.guards = [...head.guards, event];
        break;
      case "output.partial":
        head.partial = event.output;
        break;
      case "usage": {
        let { usage, cost_usd } = event, sum = { ...head.usage };
        for (let [kind, count] of Object.entries(usage)) typeof count == "number" && (sum[kind] = (sum[kind] ?? 0) + count);
        head.usage = sum, head.cost = { usd: head.cost.usd + (cost_usd ?? 0), atLeast: head.cost.atLeast || cost_usd == null };
        break;
      }
      default:
        typeof event.call == "string" && this.#takeCall(event, t);
    }
    return !0;
  }
  /** Nobody drives it any more: said by the server, the log can't know. */
  stop() {
    this.#head.status = "stopped", this.#view = void 0;
  }
  /** The run as it is now; what didn't change since the last time is the same object. */
  snapshot() {
    if (this.#view) return this.#view;
    if (this.#changed.size) {
      this.#views = this.#views.slice();
      for (let id of this.#changed) {
        let call = this.#calls.get(id);
        this.#views[call.place] = { ...call };
      }
      this.#changed.clear();
    }
    return this.#view = { ...this.#head, turns: this.#turns.map((turn) => ({ ...turn })), calls: this.#views, seconds: this.#seconds, seq: this.seq };
  }
  #startTurn(number, attempt, model, t) {
    let calls = [];
    this.#turns.at(-1)?.turn === number && ({ calls, tStart: t } = this.#turns.pop()), this.#turns.push({ turn: number, attempt, model, text: "", thinking: "", calls, tStart: t, points: {} });
  }
  #open(id, name, parent, t) {
    let turn = this.#turns.at(-1), call = {
      id,
      name,
      turn: turn?.turn ?? 0,
      state: "new",
      status: "pending",
      raw: "",
      arguments: {},
      repaired: [],
      attempt: 0,
      early: !1,
      deps: [],
      attempts: [],
      waits: [],
      text: "",
      thinking: "",
      tNew: t,
      points: {},
      place: this.#calls.size
    };
    if (parent) {
      call.parent = parent;
      let maker = this.#calls.get(parent);
      maker?.tStart !== void 0 ? call.holder = parent : maker && this.#link(maker, [id]);
    } else turn && id.startsWith("turn/") && (turn.calls.push(id), turn.tFirst ??= t);
    return this.#calls.set(id, call), call;
  }
  #link(call, names) {
    let deps = [.../* @__PURE__ */ new Set([...call.deps, ...names])];
    deps.length > call.deps.length && (call.deps = deps), this.#changed.add(call.id);
  }
  #takeCall(event, t) {
    let known = this.#calls.get(event.call), opened = event;
    if (!known && !/^(call|approval)\./.test(event.type)) return;
    let call = known ?? this.#open(event.call, opened.name ?? event.call, opened.parent, t);
    this.#changed.add(call.id);
    let state = (state2) => {
      call.waits = close(call.waits, t), call.state = state2, call.status = state2 === "running" ? "executing" : state2 === "finished" ? "completed" : FAILED.test(state2) ? "error" : "pending";
    }, pause2 = (as) => {
      call.attempts = close(call.attempts, t), state(as);
    }, end = (as, error, at = null) => {
      let ended = at == null ? t : this.#offset + at;
      call.attempts = close(call.attempts, ended, error), call.tEnd = ended, call.error = error, state(as);
    };
    switch (event.type) {
      case "call.new":
        known && (call.raw = "", call.points = {}, pause2("new"));
        break;
      case "call.arguments":
        put(call, "raw", event.fragment);
        break;
      case "call.sealed":
        call.arguments = event.arguments, call.repaired = event.repaired, call.state === "new" && state("sealed"), this.#link(call, references(event.arguments));
        break;
      case "call.waiting":
        state("waiting"), call.waits = [...call.waits, { for: event.waiting_for, on: event.on, start: t }], event.waiting_for === "calls" && this.#link(call, event.on);
        break;
      case "call.started":
        state("running"), call.attempt = event.attempt, call.early ||= event.early, call.tStart ??= t, call.tEnd = call.error = void 0, call.attempts = [...call.attempts, { start: t }];
        break;
      case "call.progress":
        call.progress = { done: event.done, total: event.total, note: event.note };
        break;
      case "call.retried":
        end("waiting", event.error), call.tEnd = void 0;
        break;
      case "call.finished":
        if (call.result = event.value, call.truncated = event.truncated, event.source === "journal" && call.tEnd !== void 0 && call.source) {
          call.error = void 0, state("finished");
          break;
        }
        call.source = event.source, call.age = event.age_s ?? void 0, end("finished", void 0, event.ended_s);
        break;
      case "approval.asked":
        call.asked = event.arguments ?? null, call.decision = void 0;
        break;
      case "approval.decided": {
        let { approved, reason, by, arguments: changed } = event;
        call.decision = { approved, reason, by, arguments: changed };
        break;
      }
      case "call.cancelled":
        if (event.waits) {
          pause2("waiting");
          break;
        }
      // falls through: the other ends are told alike
      default: {
        let ended = event.type.slice(5), { error, because, reason, ended_s } = event;
        FAILED.test(ended) && end(ended, error ?? because ?? reason, ended_s);
      }
    }
  }
};
function close(spans, end, error) {
  return spans.map((span) => span.end === void 0 ? { ...span, end, error } : span);
}
function fold(events) {
  let folded = new Fold();
  for (let event of events) folded.take(event);
  return folded.snapshot();
}
function put(target, kind, piece, at, turn) {
  let old = target[kind], points = target.points[kind] ?? 0;
  at != null && (at += target.points[kind + turn] ??= points, at < points && (old = [...old].slice(0, at).join(""), points = at)), target.points[kind] = points + [...piece].length, target[kind] = old + piece;
}
function references(value) {
  if (!value || typeof value != "object") return [];
  let { from_call } = value;
  return typeof from_call == "string" && Object.keys(value).sort().join() === "from_call,path" ? [from_call] : Object.values(value).flatMap((inner) => references(inner));
}

// src/core/parser.ts
var Parser = class {
  #decoder = new TextDecoder();
  #rest = "";
  #endedInCr = !1;
  #data = [];
  feed(bytes) {
    let text = this.#decoder.decode(bytes, { stream: !0 }), found = [];
    if (!text) return found;
    this.#endedInCr && text[0] === `
` && (text = text.slice(1)), this.#endedInCr = text.endsWith("\r");
    let lines = (this.#rest + text).split(/\r\n?|\n/);
    this.#rest = lines.pop();
    for (let line of lines)
      /^data(:|$)/.test(line) ? this.#data.push(line.slice(5).replace(/^ /, "")) : !line && this.#data.length && (found.push(this.#data.join(`
`)), this.#data = []);
    return found;
  }
};

// src/core/connection.ts
var ServerError = class extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
  status;
  body;
}, TRIES = 6;
function makeRunId() {
  return "run-" + [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => (byte + 256).toString(16).slice(1)).join("");
}
async function request(server, path, init = {}, json) {
  let { api = "/api", headers } = server, response = await fetch(api + path, {
    ...json && { method: "POST", body: JSON.stringify(json) },
    ...init,
    headers: { ...json && { "content-type": "application/json" }, ...typeof headers == "function" ? headers() : headers }
  });
  if (response.ok) return response;
  let body = await response.json().catch(() => null);
  throw new ServerError(response.status, body?.error ?? response.statusText, body);
}
async function follow({ server, run, start, after = -1, signal, onEvent, onCut }) {
  for (let tries = 0; ; )
    try {
      let response = start ? await request(server, "/runs", { signal }, { ...start, run }) : await request(server, `/runs/${run}/events?after=${after}`, { signal });
      start = void 0;
      let status = response.headers.get("flowkit-run-status") ?? "running";
      if (response.status === 204) return status;
      let isOver = !1, reader = response.body.getReader(), parser = new Parser();
      for (let read = await reader.read(); !read.done; read = await reader.read())
        for (let data of parser.feed(read.value)) {
          let event = JSON.parse(data);
          typeof event.seq == "number" && (tries = 0, after = Math.max(after, event.seq), event.type === "run.started" && (isOver = !1), event.type === "run.finished" && (isOver = !0), onEvent(event));
        }
      if (isOver) return "over";
      if (status === "stopped") return status;
      throw new ServerError(0, "stream was cut");
    } catch (error) {
      let status = error instanceof ServerError ? error.status : 0;
      if (signal.aborted || status && status < 500 && status !== 429 || tries++ >= TRIES) throw error;
      onCut?.(tries), await pause(Math.random() * Math.min(8e3, 125 * 2 ** tries), signal);
    }
}
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, ms), signal.addEventListener("abort", () => reject(signal.reason), { once: !0 });
  });
}

// src/hook/useStreamingAI.ts
import { useEffect, useLayoutEffect, useState, useSyncExternalStore } from "react";

// src/hook/chat.ts
var Chat = class {
  options = {};
  #state = { messages: [], isStreaming: !1, currentThinking: "", functionCalls: [] };
  #listeners = /* @__PURE__ */ new Set();
  #earlier = [];
  #fold = new Fold();
  #run;
  #said;
  #session = makeRunId().replace("run", "session");
  #watching;
  #isPlanned = !1;
  getState = () => this.#state;
  subscribe = (listener) => (this.#listeners.add(listener), () => this.#listeners.delete(listener));
  /** Watch this run, or go on with the one that is known; the way back only stops watching. */
  mount(run) {
    return run && run !== this.#run && this.#begin(run), this.#run && this.#watch(), () => this.#watching?.abort();
  }
  sendMessage = async (message) => {
    if (!message.trim()) return;
    this.#state.isStreaming && await this.abort();
    let { app, session = this.#session } = this.options;
    this.#begin(makeRunId(), message), await this.#watch({ app, message, session });
  };
  /** Cancel the run; its stream then says how each call ended. */
  abort = () => this.#post("/cancel", {}, { keepalive: !0 });
  /** Say yes or no to a call that waits; whoever decides second learns what was decided. */
  decide = async (call, approved, { reason, changes } = {}) => {
    await this.#post("/decisions", { call, approved, reason, changes }), this.#watch();
  };
  /** Go on with a run that stopped. */
  resume = async () => {
    await this.#post("/resume", {}), this.#watch();
  };
  #begin(run, message) {
    this.#watching?.abort(), this.#run && (this.#earlier = this.#state.messages), this.#run = run, this.#said = message, this.#fold = new Fold(), this.#set({ error: void 0 });
  }
  async #watch(start) {
    this.#watching?.abort();
    let { signal } = this.#watching = new AbortController(), fold2 = this.#fold;
    this.#set({ isStreaming: !0, error: void 0 });
    try {
      await follow({
        server: this.options,
        run: this.#run,
        start,
        after: fold2.seq,
        signal,
        onEvent: (event) => this.#take(fold2, event)
      }) === "stopped" && fold2.stop();
    } catch (error) {
      if (signal.aborted) return;
      this.#fail(error);
    }
    signal.aborted || this.#set({ isStreaming: !1 });
  }
  #take(fold2, event) {
    if (fold2 !== this.#fold) return;
    let isNew = event.type === "call.new" && !fold2.get(event.call);
    if (!fold2.take(event)) return;
    let { onEvent, onFunctionCall, onThinking } = this.options;
    onEvent?.(event), isNew && !event.parent && event.call.startsWith("turn/") && onFunctionCall?.({ ...fold2.get(event.call) }), event.type === "thinking.delta" && event.call == null && onThinking?.(fold2.thinking), this.#plan();
  }
  async #post(path, json, init = {}) {
    try {
      await request(this.options, `/runs/${this.#run}${path}`, init, json);
    } catch (error) {
      error instanceof ServerError && error.status === 409 || this.#fail(error);
    }
  }
  #fail(error) {
    this.#set({ error }), this.options.onError?.(error);
  }
  /** One snapshot for each frame, however many events it brings; a hidden page has no frames. */
  #plan() {
    if (this.#isPlanned) return;
    this.#isPlanned = !0;
    let paint = () => {
      this.#isPlanned = !1, this.#set();
    };
    document.hidden ? setTimeout(paint) : requestAnimationFrame(paint);
  }
  #set(changes) {
    let run = this.#fold.snapshot();
    this.#state = {
      ...this.#state,
      ...changes,
      run: this.#run,
      functionCalls: run.calls,
      status: this.#run ? run.status : void 0,
      currentThinking: this.#fold.thinking,
      messages: [...this.#earlier, ...this.#tell(run)]
    };
    for (let listener of this.#listeners) listener();
  }
  #tell(run) {
    let id = this.#run, told = [], message = this.#said ?? run.message;
    return message && told.push({ id: `${id}:user`, role: "user", content: message, run: id }), (run.turns.length || run.calls.length) && told.push({
      id,
      role: "assistant",
      run: id,
      functionCalls: run.calls,
      content: join(run, "text"),
      thinking: join(run, "thinking")
    }), told;
  }
};
function join(run, kind) {
  return run.turns.map((turn) => turn[kind]).filter(Boolean).join(`

`);
}

// src/hook/useStreamingAI.ts
function useStreamingAI(options = {}) {
  let [chat] = useState(() => new Chat());
  useLayoutEffect(() => {
    chat.options = options;
  }), useEffect(() => chat.mount(options.run), [chat, options.run]);
  let state = useSyncExternalStore(chat.subscribe, chat.getState, chat.getState), { sendMessage, abort, decide, resume } = chat;
  return { ...state, sendMessage, abort, decide, resume };
}
export {
  Fold,
  Parser,
  ServerError,
  fold,
  follow,
  makeRunId,
  request,
  useStreamingAI
};
