export * from "./core/index.js";
export { useStreamingAI } from "./hook/useStreamingAI.js";
export type { UseStreamingAI, UseStreamingAIOptions } from "./hook/useStreamingAI.js";
export type { ChatMessage, ChatState, DecideOptions } from "./hook/chat.js";
