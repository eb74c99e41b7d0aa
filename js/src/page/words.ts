// What the page says, in English and Korean.

const EN = {
  title: "flowkit", runs: "Runs", chat: "Chat", graph: "Graph", send: "Send", stop: "Stop", run: "Run", newChat: "New",
  message: "Message", messageHint: "Ask {name}", filter: "Filter runs", all: "all states", noRuns: "No runs yet.", noMatch: "No run matches.",
  thinking: "Thinking", thought: "Thought for {s}", newer: "Newer below", arguments: "Arguments", result: "Result", error: "Error",
  waits: "Waits", attempt: "attempt {n}", needs: "Needs", copy: "Copy", copied: "Copied", close: "Close",
  repaired: "Repaired", source: "Source", age: "{s} old", early: "early", cost: "Cost", tokens: "tokens", time: "Time",
  approve: "Approve", deny: "Deny", reason: "Why (the model reads it)", waitsForYou: "{name} waits for you", decided: "Already decided", decidedBy: "Decided by {name}",
  approvedBy: "Approved by {name}", deniedBy: "Denied by {name}", aPerson: "a person", goOn: "Go on", stoppedHint: "Nobody drives this run any more.",
  inDoubtHint: "{name} may have happened.", happened: "It happened", notHappened: "It didn't",
  replay: "Replay", play: "Play", pause: "Pause", speed: "Speed", position: "Position", live: "Back to now", exportLog: "Log (.jsonl)", exportPage: "Page (.html)",
  showAll: "Show all", rows: "{n} rows", items: "{n} items", more: "{n} more", empty: "empty", steps: "{n} inside", inputs: "Inputs",
  answerComplete: "Answer complete", answering: "{name} answers", ended: "The run ended: {status}", noToken: "Open the link that flowkit serve printed.",
  noServer: "The server doesn't answer: {error}", reconnecting: "Cut off; trying again ({n})", calls: "Calls", timeline: "Timeline", zoomIn: "Zoom in", zoomOut: "Zoom out", fit: "Fit",
  language: "한국어", choose: "Choose", none: "none", notJson: "not JSON", hidden: "hidden", turn: "turn {n}", output: "Output",
  fork: "Fork here", forkHint: "Another message (optional)", retrying: "Trying again in {s}:", 
  nothing: "Ask something, or choose a run.", missing: "There is no such run.", optional: "optional", tips: "Tips",
 
  s_new: "writing", s_sealed: "ready", s_waiting: "waiting", s_running: "running", s_finished: "done", s_failed: "failed", s_skipped: "skipped", s_denied: "denied",
  s_cancelled: "cancelled", s_void: "void", s_in_doubt: "in doubt", s_asked: "asks you", s_done: "done", s_limit: "limit", s_stopped: "stopped", s_queued: "queued", s_cancelling: "stopping",
  w_calls: "calls", w_approval: "approval", w_resource: "a resource", w_slot: "a slot", f_cache: "from the cache", f_flight: "shared with an equal call", f_journal: "from the journal", f_run: "it ran",
}

export type Word = keyof typeof EN

const KO: Record<Word, string> = {
  title: "flowkit", runs: "실행 목록", chat: "대화", graph: "그래프", send: "보내기", stop: "멈춤", run: "실행", newChat: "새로",
  message: "메시지", messageHint: "{name}에게 묻기", filter: "실행 찾기", all: "모든 상태", noRuns: "아직 실행이 없습니다.", noMatch: "맞는 실행이 없습니다.",
  thinking: "생각 중", thought: "{s} 동안 생각함", newer: "아래에 새 내용", arguments: "인자", result: "결과", error: "오류",
  waits: "기다림", attempt: "{n}번째 시도", needs: "필요한 것", copy: "복사", copied: "복사됨", close: "닫기",
  repaired: "고친 것", source: "출처", age: "{s} 전 값", early: "미리 시작", cost: "비용", tokens: "토큰", time: "시간",
  approve: "승인", deny: "거부", reason: "이유 (모델이 읽습니다)", waitsForYou: "{name}이(가) 승인을 기다립니다", decided: "이미 결정되었습니다", decidedBy: "{name}이(가) 결정함",
  approvedBy: "{name}이(가) 승인함", deniedBy: "{name}이(가) 거부함", aPerson: "담당자", goOn: "이어서 실행", stoppedHint: "이 실행을 진행하는 프로세스가 없습니다.",
  inDoubtHint: "{name}이(가) 실행되었을 수도 있습니다.", happened: "실행됨", notHappened: "실행 안 됨",
  replay: "다시 보기", play: "재생", pause: "일시 정지", speed: "속도", position: "위치", live: "지금으로", exportLog: "로그 (.jsonl)", exportPage: "페이지 (.html)",
  showAll: "모두 보기", rows: "{n}행", items: "{n}개", more: "{n}개 더", empty: "비어 있음", steps: "안쪽 {n}개", inputs: "입력",
  answerComplete: "답변 완료", answering: "{name} 답변 중", ended: "실행이 끝났습니다: {status}", noToken: "flowkit serve가 출력한 링크를 여세요.",
  noServer: "서버가 응답하지 않습니다: {error}", reconnecting: "연결이 끊겨 다시 시도합니다 ({n})", calls: "호출", timeline: "시간표", zoomIn: "확대", zoomOut: "축소", fit: "맞춤",
  language: "English", choose: "선택", none: "없음", notJson: "JSON이 아닙니다", hidden: "숨김", turn: "{n}번째 턴", output: "출력",
  fork: "여기서 분기", forkHint: "다른 메시지 (선택)", retrying: "{s} 뒤 다시 시도:", 
  nothing: "질문을 하거나 실행을 고르세요.", missing: "그런 실행이 없습니다.", optional: "선택", tips: "도움말",
 
  s_new: "작성 중", s_sealed: "준비됨", s_waiting: "대기", s_running: "실행 중", s_finished: "완료", s_failed: "실패", s_skipped: "건너뜀", s_denied: "거부됨",
  s_cancelled: "취소됨", s_void: "무효", s_in_doubt: "불확실", s_asked: "승인 필요", s_done: "완료", s_limit: "한도", s_stopped: "멈춤", s_queued: "대기열", s_cancelling: "취소 중",
  w_calls: "다른 호출", w_approval: "승인", w_resource: "자원", w_slot: "자리", f_cache: "캐시에서", f_flight: "같은 호출과 함께", f_journal: "기록에서", f_run: "실행됨",
}

export type Language = "en" | "ko"

let language: Language = (navigator.languages ?? [navigator.language])[0]?.startsWith("ko") ? "ko" : "en"
try {
  language = (localStorage.getItem("flowkit-language") as Language | null) ?? language
} catch {}

export const getLanguage = () => language

export function setLanguage(chosen: Language) {
  language = chosen
  document.documentElement.lang = chosen
  try {
    localStorage.setItem("flowkit-language", chosen)
  } catch {}
}

/** A text of the page, its `{places}` filled in. */
export function say(word: Word, values: Record<string, string | number> = {}): string {
  return (language === "ko" ? KO : EN)[word].replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""))
}

/** The word for a state of a call or a run. */
export function sayState(state: string): string {
  return `s_${state}` in EN ? say(`s_${state}` as Word) : state
}

export const SHAPES: Record<string, string> = {
  new: "✎", sealed: "○", waiting: "◔", asked: "?", running: "▶", finished: "✓", done: "✓", failed: "✕", skipped: "»", denied: "⊘",
  cancelled: "■", void: "∅", in_doubt: "⁇", limit: "▲", stopped: "❚❚",
}

/** A time as a person reads it: 340 ms, 1.25 s, 3 min 20 s. */
export function showSeconds(seconds: number): string {
  const [min, h] = language === "ko" ? ["분", "시간"] : ["min", "h"]
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`
  if (seconds < 59.995) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`
  const minutes = Math.floor(Math.round(seconds) / 60)
  if (minutes < 60) return `${minutes} ${min} ${Math.round(seconds) % 60} s`
  return `${Math.floor(minutes / 60)} ${h} ${minutes % 60} ${min}`
}

export function showCost(cost: { usd: number; atLeast: boolean }): string {
  if (!cost.usd) return ""
  const digits = cost.usd < 0.01 ? 4 : cost.usd < 1 ? 3 : 2
  return `${cost.atLeast ? "≥ " : ""}$${cost.usd.toFixed(digits)}`
}
