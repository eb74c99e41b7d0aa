import { StrictMode } from "react"
import { createRoot } from "react-dom/client"
import { Chat } from "./Chat"

// The token of the link that `flowkit serve` prints, taken out of the address bar.
const token = new URLSearchParams(location.hash.slice(1)).get("token")
history.replaceState(null, "", location.pathname)

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Chat api="/api" headers={token ? { authorization: `Bearer ${token}` } : undefined} />
  </StrictMode>,
)
