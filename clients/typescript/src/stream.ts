/** Server-sent events over `fetch`, resumed after a lost connection without a gap. */

import { ApiError } from "./errors.js";
import { type Call, type Transport, pause } from "./transport.js";
import type { StreamEvent } from "./types.js";

/** Longer than the heartbeat of the service, which comes every 15 s. */
const SILENCE_MS = 45_000;

/**
 * Yield the events of a stream. It reconnects with `Last-Event-ID` until the service answers 204, the caller stops, or the
 * request is refused.
 */
export async function* readStream<T>(
  transport: Transport,
  path: string,
  call: Call,
  lastEventId: string | undefined,
): AsyncGenerator<StreamEvent<T>, void, undefined> {
  let seen = lastEventId;
  for (let failures = 0; ; failures++) {
    const silence = new AbortController();
    const signal = call.signal ? AbortSignal.any([call.signal, silence.signal]) : silence.signal;
    try {
      const headers = { accept: "text/event-stream", ...(seen ? { "last-event-id": seen } : {}) };
      const response = await transport.send("GET", path, { ...call, headers, signal, timeoutMs: 2 ** 31 - 1 });
      if (response.status === 204 || !response.body) return;
      seen ??= response.headers.get("last-event-id") ?? undefined;
      for await (const event of parseEvents(watched(response.body, silence))) {
        failures = 0;
        if (event.id) seen = event.id;
        if (event.data) yield { id: event.id, type: event.type, data: JSON.parse(event.data) as T };
      }
    } catch (error) {
      if (call.signal?.aborted || error instanceof ApiError) throw error;
    } finally {
      silence.abort();
    }
    await pause(Math.min(1_000 * 2 ** Math.min(failures, 5), 30_000), call.signal);
  }
}

/** Pass chunks on; abort a connection that is silent for longer than the heartbeat. */
async function* watched(body: ReadableStream<Uint8Array>, silence: AbortController): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      yield value;
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => undefined);
  }
}

interface RawEvent {
  id: string;
  type: string;
  data: string;
}

/** Parse `text/event-stream`; comments and unknown fields are skipped. */
export async function* parseEvents(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<RawEvent> {
  const decoder = new TextDecoder();
  let buffer = "";
  for await (const chunk of chunks) {
    buffer += decoder.decode(chunk, { stream: true });
    const blocks = buffer.split(/\r\n\r\n|\n\n|\r\r/);
    buffer = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = parseBlock(block);
      if (event.data || event.id) yield event;
    }
  }
}

function parseBlock(block: string): RawEvent {
  const event: RawEvent = { id: "", type: "message", data: "" };
  const data: string[] = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") data.push(value);
    else if (name === "event") event.type = value;
    else if (name === "id") event.id = value;
  }
  event.data = data.join("\n");
  return event;
}
