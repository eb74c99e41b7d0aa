// A run to take along: its log, and a page that shows it without a server.

import type { Watched } from "./watched.js"

export function exportLog(watched: Watched) {
  save(`${watched.id}.jsonl`, "application/jsonl", watched.events.map(event => JSON.stringify(event) + "\n").join(""))
}

export async function exportPage(watched: Watched) {
  const [script, style] = await Promise.all([read("script", "page.js"), read("style", "page.css")])
  // Inside a script nothing but its end tag ends it; in JSON every `<` may be written another way.
  const log = JSON.stringify(watched.events).replaceAll("<", "\\u003c")
  const code = script.replace(/<\/(script)/gi, "<\\/$1")
  save(`${watched.id}.html`, "text/html", [
    `<!doctype html><html lang="${document.documentElement.lang}"><head><meta charset="utf-8">`,
    `<meta name="viewport" content="width=device-width, initial-scale=1"><title>${escape(watched.newest.name)}</title>`,
    `<style>${style}</style></head><body><div id="app"></div><script type="application/json" id="log">${log}</script>`,
    `<script type="module" id="script">${code}</script></body></html>`,
  ].join("\n"))
}

/** A file of the page; of one that was exported its own text. */
async function read(id: "script" | "style", file: string): Promise<string> {
  const own = id === "script" ? document.getElementById("script") : document.querySelector("style")
  return own ? own.textContent! : (await fetch(file)).text()
}

function save(name: string, type: string, text: string) {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(new Blob([text], { type }))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}

const escape = (text: string) => text.replace(/[&<>"]/g, sign => `&#${sign.charCodeAt(0)};`)
