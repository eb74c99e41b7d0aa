// The bytes of a `text/event-stream` response as the data of its messages (WHATWG HTML, section 9.2), however they are
// cut. What stands in the other fields, a number and a type, our data tells too.

/** Reads one stream; `feed` returns the data of each message that these bytes complete. */
export class Parser {
  #decoder = new TextDecoder()
  #rest = ""
  #endedInCr = false
  #data: string[] = []

  feed(bytes: Uint8Array): string[] {
    let text = this.#decoder.decode(bytes, { stream: true })
    const found: string[] = []
    if (!text) return found
    // A CRLF may be cut in its middle: its LF ends no second line.
    if (this.#endedInCr && text[0] === "\n") text = text.slice(1)
    this.#endedInCr = text.endsWith("\r")
    const lines = (this.#rest + text).split(/\r\n?|\n/)
    this.#rest = lines.pop()!
    for (const line of lines) {
      if (/^data(:|$)/.test(line)) this.#data.push(line.slice(5).replace(/^ /, ""))
      else if (!line && this.#data.length) {
        found.push(this.#data.join("\n"))
        this.#data = []
      }
    }
    return found
  }
}
