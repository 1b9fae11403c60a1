/** HTTP with time limits and retries, on `fetch` alone. */

import { ApiError, ConnectionError, readError } from "./errors.js";

export interface Options {
  /** Such as `https://taskhook.example.com`; a path is kept. */
  baseUrl: string;
  /** An API key. Never use one in a browser: use a ticket there. */
  apiKey?: string;
  /** Time limit of one request in milliseconds; 30,000 by default. */
  timeoutMs?: number;
  /** Retries after a lost connection, 408, 429 or 5xx; 2 by default. */
  maxRetries?: number;
  fetch?: typeof fetch;
}

export interface Call {
  query?: Record<string, string | number | boolean | null | undefined>;
  body?: unknown;
  headers?: Record<string, string>;
  /** Whether the request may arrive twice without harm. */
  isIdempotent?: boolean;
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
}

const RETRIED = new Set([408, 429, 500, 502, 503, 504]);
/** The service refuses with these before it does anything. */
const NOT_DONE = new Set([429, 503]);

export class Transport {
  readonly #options: Required<Omit<Options, "apiKey">> & { apiKey: string | undefined };

  constructor(options: Options) {
    if (!/^https?:\/\//.test(options.baseUrl)) throw new TypeError("baseUrl must start with http:// or https://");
    this.#options = {
      baseUrl: options.baseUrl.replace(/\/+$/, ""),
      apiKey: options.apiKey,
      timeoutMs: options.timeoutMs ?? 30_000,
      maxRetries: options.maxRetries ?? 2,
      fetch: options.fetch ?? ((...given) => fetch(...given)),
    };
  }

  /** Send a request and parse its JSON; undefined for 204. */
  async json<T>(method: string, path: string, call: Call = {}): Promise<T> {
    const response = await this.send(method, path, call);
    return (response.status === 204 ? undefined : await response.json()) as T;
  }

  /** Send a request, with retries. Throws an `ApiError` for an answer that is not 2xx. */
  async send(method: string, path: string, call: Call = {}): Promise<Response> {
    const isIdempotent = call.isIdempotent ?? method !== "POST";
    for (let attempt = 0; ; attempt++) {
      let failure: ApiError | ConnectionError;
      try {
        const response = await this.#once(method, path, call);
        if (response.ok) return response;
        failure = await readError(response);
      } catch (error) {
        if (call.signal?.aborted) throw error;
        failure = new ConnectionError(`${method} ${path}: no answer`, { cause: error });
      }
      if (attempt >= this.#options.maxRetries || !mayRetry(failure, isIdempotent)) throw failure;
      const asked = failure instanceof ApiError ? failure.retryAfterMs : null;
      await pause(asked ?? 500 * 2 ** attempt * (0.75 + Math.random() / 2), call.signal);
    }
  }

  #once(method: string, path: string, call: Call): Promise<Response> {
    const url = new URL(this.#options.baseUrl + path);
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== null && value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers: Record<string, string> = { accept: "application/json", ...call.headers };
    if (this.#options.apiKey) headers["authorization"] = `Bearer ${this.#options.apiKey}`;
    if (call.body !== undefined) headers["content-type"] = "application/json";
    const limit = AbortSignal.timeout(call.timeoutMs ?? this.#options.timeoutMs);
    return this.#options.fetch(url, {
      method,
      headers,
      body: call.body === undefined ? null : JSON.stringify(call.body),
      signal: call.signal ? AbortSignal.any([call.signal, limit]) : limit,
      redirect: "error",
    });
  }
}

function mayRetry(failure: ApiError | ConnectionError, isIdempotent: boolean): boolean {
  if (failure instanceof ConnectionError) return isIdempotent;
  return isIdempotent ? RETRIED.has(failure.status) : NOT_DONE.has(failure.status);
}

export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", stop, { once: true });
    function done(): void {
      signal?.removeEventListener("abort", stop);
      resolve();
    }
    function stop(): void {
      clearTimeout(timer);
      reject(signal?.reason);
    }
  });
}
