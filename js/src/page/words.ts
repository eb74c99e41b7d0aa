// What the page says, in English and Korean.

const WORDS = {
  runs: ["Runs", "실행 목록"],
  chat: ["Chat", "대화"],
  graph: ["Graph", "그래프"],
  send: ["Send", "보내기"],
  stop: ["Stop", "멈춤"],
  run: ["Run", "실행"],
  newChat: ["New", "새로"],
  message: ["Message", "메시지"],
  messageHint: ["Ask {name}", "{name}에게 묻기"],
  filter: ["Filter runs", "실행 찾기"],
  all: ["all states", "모든 상태"],
  noRuns: ["No runs yet.", "아직 실행이 없습니다."],
  noMatch: ["No run matches.", "맞는 실행이 없습니다."],
  thinking: ["Thinking", "생각 중"],
  thought: ["Thought for {s}", "{s} 동안 생각함"],
  newer: ["Newer below", "아래에 새 내용"],
  arguments: ["Arguments", "인자"],
  result: ["Result", "결과"],
  error: ["Error", "오류"],
  waits: ["Waits", "기다림"],
  attempt: ["attempt {n}", "{n}번째 시도"],
  needs: ["Needs", "필요한 것"],
  copy: ["Copy", "복사"],
  copied: ["Copied", "복사됨"],
  close: ["Close", "닫기"],
  repaired: ["Repaired", "고친 것"],
  source: ["Source", "출처"],
  age: ["{s} old", "{s} 전 값"],
  early: ["early", "미리 시작"],
  cost: ["Cost", "비용"],
  tokens: ["tokens", "토큰"],
  approve: ["Approve", "승인"],
  deny: ["Deny", "거부"],
  reason: ["Why (the model reads it)", "이유 (모델이 읽습니다)"],
  waitsForYou: ["{name} waits for you", "{name}이(가) 승인을 기다립니다"],
  decided: ["Already decided", "이미 결정되었습니다"],
  decidedBy: ["Decided by {name}", "{name}이(가) 결정함"],
  approvedBy: ["Approved by {name}", "{name}이(가) 승인함"],
  deniedBy: ["Denied by {name}", "{name}이(가) 거부함"],
  aPerson: ["a person", "담당자"],
  goOn: ["Go on", "이어서 실행"],
  stoppedHint: ["Nobody drives this run any more.", "이 실행을 진행하는 프로세스가 없습니다."],
  inDoubtHint: ["{name} may have happened.", "{name}이(가) 실행되었을 수도 있습니다."],
  happened: ["It happened", "실행됨"],
  notHappened: ["It didn't", "실행 안 됨"],
  replay: ["Replay", "다시 보기"],
  play: ["Play", "재생"],
  pause: ["Pause", "일시 정지"],
  speed: ["Speed", "속도"],
  position: ["Position", "위치"],
  live: ["Back to now", "지금으로"],
  exportLog: ["Log (.jsonl)", "로그 (.jsonl)"],
  exportPage: ["Page (.html)", "페이지 (.html)"],
  showAll: ["Show all", "모두 보기"],
  rows: ["{n} rows", "{n}행"],
  items: ["items: {n}", "{n}개"],
  more: ["{n} more", "{n}개 더"],
  empty: ["empty", "비어 있음"],
  steps: ["{n} inside", "안쪽 {n}개"],
  inputs: ["Inputs", "입력"],
  answerComplete: ["Answer complete", "답변 완료"],
  answering: ["{name} answers", "{name} 답변 중"],
  ended: ["The run ended: {status}", "실행이 끝났습니다: {status}"],
  noToken: ["Open the link that flowkit serve printed.", "flowkit serve가 출력한 링크를 여세요."],
  noServer: ["The server doesn't answer.", "서버가 응답하지 않습니다."],
  reconnecting: ["Cut off; trying again ({n})", "연결이 끊겨 다시 시도합니다 ({n})"],
  calls: ["Calls", "호출"],
  timeline: ["Timeline", "시간표"],
  zoomIn: ["Zoom in", "확대"],
  zoomOut: ["Zoom out", "축소"],
  fit: ["Fit", "맞춤"],
  language: ["한국어", "English"],
  choose: ["Choose", "선택"],
  none: ["none", "없음"],
  notJson: ["not JSON", "JSON이 아닙니다"],
  hidden: ["hidden", "숨김"],
  turn: ["turn {n}", "{n}번째 턴"],
  output: ["Output", "출력"],
  fork: ["Fork here", "여기서 분기"],
  forkHint: ["Another message (optional)", "다른 메시지 (선택)"],
  retrying: ["Trying again in {s}:", "{s} 뒤 다시 시도:"],
  nothing: ["Ask something, or choose a run.", "질문을 하거나 실행을 고르세요."],
  missing: ["There is no such run.", "그런 실행이 없습니다."],
  optional: ["optional", "선택"],
  tips: ["Tips", "도움말"],
  s_new: ["writing", "작성 중"],
  s_sealed: ["ready", "준비됨"],
  s_waiting: ["waiting", "대기"],
  s_running: ["running", "실행 중"],
  s_finished: ["done", "완료"],
  s_failed: ["failed", "실패"],
  s_skipped: ["skipped", "건너뜀"],
  s_denied: ["denied", "거부됨"],
  s_cancelled: ["cancelled", "취소됨"],
  s_void: ["void", "무효"],
  s_in_doubt: ["in doubt", "불확실"],
  s_asked: ["asks you", "승인 필요"],
  s_done: ["done", "완료"],
  s_limit: ["limit", "한도"],
  s_stopped: ["stopped", "멈춤"],
  s_queued: ["queued", "대기열"],
  s_cancelling: ["stopping", "취소 중"],
  w_calls: ["calls", "다른 호출"],
  w_approval: ["approval", "승인"],
  w_resource: ["a resource", "자원"],
  w_slot: ["a slot", "자리"],
  f_cache: ["from the cache", "캐시에서"],
  f_flight: ["shared with an equal call", "같은 호출과 함께"],
  f_journal: ["from the journal", "기록에서"],
  f_run: ["it ran", "실행됨"],
} as const

export type Word = keyof typeof WORDS

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
  return WORDS[word][language === "ko" ? 1 : 0].replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""))
}

/** The word for a state of a call or a run. */
export function sayState(state: string): string {
  return `s_${state}` in WORDS ? say(`s_${state}` as Word) : state
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
