/** The client: one method for each call of the API, grouped by noun. */

import { TaskFailedError, WaitTimeoutError } from "./errors.js";
import { readStream } from "./stream.js";
import { type Options, Transport } from "./transport.js";
import {
  type ChangeEndpoint,
  type CreateEndpoint,
  type CreateTask,
  type Delivery,
  type Retried,
  type RetryFilter,
  type Endpoint,
  type EventEnvelope,
  FINAL,
  type StreamEvent,
  type Task,
  type TaskInput,
  type TimelineItem,
  type Ticket,
  type Why,
} from "./types.js";

/** The service holds an answer for 55 s at most; the rest is for the way. */
const HOLD_S = 55;
const HOLD_TIMEOUT_MS = 75_000;

export type NewTask = Omit<CreateTask, "input"> & { input: Partial<TaskInput> };

export interface WaitOptions {
  /** 15 minutes by default. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

export interface Page<T> {
  data: T[];
  next_cursor: string | null;
}

type Query = Record<string, string | number | boolean | null | undefined>;

export class Taskhook {
  readonly tasks: Tasks;
  readonly endpoints: Endpoints;
  readonly deliveries: Deliveries;
  readonly events: Events;
  readonly #transport: Transport;

  constructor(options: Options) {
    this.#transport = new Transport(options);
    this.tasks = new Tasks(this.#transport);
    this.endpoints = new Endpoints(this.#transport);
    this.deliveries = new Deliveries(this.#transport);
    this.events = new Events(this.#transport);
  }

  /** The providers with their accounts, models and limits. */
  async providers(): Promise<unknown[]> {
    return (await this.#transport.json<{ data: unknown[] }>("GET", "/v1/providers")).data;
  }
}

export class Tasks {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /**
   * Create a task. It is sent with an idempotency key, so no retry creates a second task; give your own key, such as an order
   * number, and a second run of your program does not either.
   */
  create(task: NewTask, idempotencyKey: string = crypto.randomUUID()): Promise<Task> {
    const headers = { "idempotency-key": idempotencyKey };
    return this.#transport.json("POST", "/v1/tasks", { body: task, headers, isIdempotent: true });
  }

  /** Create a task and wait for its result. Throws `TaskFailedError` if it fails. */
  async run(task: NewTask, options: WaitOptions & { idempotencyKey?: string } = {}): Promise<Task> {
    const created = await this.create(task, options.idempotencyKey);
    const ended = await this.wait(created.id, options);
    if (ended.status !== "succeeded") throw new TaskFailedError(ended);
    return ended;
  }

  get(id: string): Promise<Task> {
    return this.#transport.json("GET", `/v1/tasks/${id}`);
  }

  /** Return the task when it is final, by as many long polls as that takes. Throws `WaitTimeoutError`. */
  wait(id: string, options: WaitOptions = {}): Promise<Task> {
    return waitFor(this.#transport, id, {}, options);
  }

  /** Follow one task: its state now, and after each change until it is final. */
  stream(id: string, options: { lastEventId?: string; signal?: AbortSignal } = {}): AsyncGenerator<StreamEvent<TaskFrame>> {
    return readStream(this.#transport, `/v1/tasks/${id}/stream`, { signal: options.signal }, options.lastEventId);
  }

  /** Iterate over all tasks that match, newest first. */
  list(query: Query = {}): AsyncGenerator<Task> {
    return allPages<Task>(this.#transport, "/v1/tasks", query);
  }

  async timeline(id: string): Promise<TimelineItem[]> {
    return (await this.#transport.json<Page<TimelineItem>>("GET", `/v1/tasks/${id}/timeline`)).data;
  }

  why(id: string): Promise<Why> {
    return this.#transport.json("GET", `/v1/tasks/${id}/why`);
  }

  cancel(id: string): Promise<Task> {
    return this.#transport.json("POST", `/v1/tasks/${id}/cancel`, { isIdempotent: true });
  }

  poll(id: string): Promise<Task> {
    return this.#transport.json("POST", `/v1/tasks/${id}/poll`, { isIdempotent: true });
  }

  erase(id: string): Promise<void> {
    return this.#transport.json("DELETE", `/v1/tasks/${id}`);
  }

  /** Issue a token that lets a browser read this task, and nothing else. */
  ticket(id: string, ttlS = 900): Promise<Ticket> {
    return this.#transport.json("POST", `/v1/tasks/${id}/ticket`, { body: { ttl_s: ttlS }, isIdempotent: true });
  }
}

/** The data of a frame of a task's stream. */
export interface TaskFrame {
  type: string;
  timestamp: string;
  data: Task;
}

/** One task as a browser sees it, with a ticket instead of an API key. */
export class TicketedTask {
  readonly #transport: Transport;
  readonly #id: string;
  readonly #ticket: string;

  constructor(options: Omit<Options, "apiKey"> & { taskId: string; ticket: string }) {
    this.#transport = new Transport(options);
    this.#id = options.taskId;
    this.#ticket = options.ticket;
  }

  get(): Promise<Task> {
    return this.#transport.json("GET", `/v1/tasks/${this.#id}`, { query: { ticket: this.#ticket } });
  }

  wait(options: WaitOptions = {}): Promise<Task> {
    return waitFor(this.#transport, this.#id, { ticket: this.#ticket }, options);
  }

  stream(options: { signal?: AbortSignal } = {}): AsyncGenerator<StreamEvent<TaskFrame>> {
    const call = { query: { ticket: this.#ticket }, signal: options.signal };
    return readStream(this.#transport, `/v1/tasks/${this.#id}/stream`, call, undefined);
  }
}

export class Endpoints {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Create an endpoint. Its `secret` is shown this once. */
  create(endpoint: Partial<CreateEndpoint>): Promise<Endpoint> {
    return this.#transport.json("POST", "/v1/endpoints", { body: endpoint });
  }

  get(id: string): Promise<Endpoint> {
    return this.#transport.json("GET", `/v1/endpoints/${id}`);
  }

  list(query: Query = {}): AsyncGenerator<Endpoint> {
    return allPages<Endpoint>(this.#transport, "/v1/endpoints", query);
  }

  update(id: string, change: Partial<ChangeEndpoint>): Promise<Endpoint> {
    return this.#transport.json("PATCH", `/v1/endpoints/${id}`, { body: change });
  }

  delete(id: string): Promise<void> {
    return this.#transport.json("DELETE", `/v1/endpoints/${id}`);
  }

  /** Replace the secret; the old one signs for 24 hours too. */
  rotateSecret(id: string): Promise<Endpoint> {
    return this.#transport.json("POST", `/v1/endpoints/${id}/rotate-secret`);
  }

  /** Send a `taskhook.ping` now. */
  test(id: string): Promise<Delivery> {
    return this.#transport.json("POST", `/v1/endpoints/${id}/test`);
  }

  recover(id: string, span: { since?: string; until?: string; dry_run?: boolean }): Promise<unknown> {
    return this.#transport.json("POST", `/v1/endpoints/${id}/recover`, { body: span, isIdempotent: true });
  }
}

export class Deliveries {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  get(id: string): Promise<Delivery> {
    return this.#transport.json("GET", `/v1/deliveries/${id}`);
  }

  list(query: Query = {}): AsyncGenerator<Delivery> {
    return allPages<Delivery>(this.#transport, "/v1/deliveries", query);
  }

  retry(id: string): Promise<Delivery> {
    return this.#transport.json("POST", `/v1/deliveries/${id}/retry`);
  }

  /** Queue one attempt now for each delivery that matches, those that failed by default. Count first with `dry_run`. */
  retryAll(filter: RetryFilter = {}): Promise<Retried> {
    return this.#transport.json("POST", "/v1/deliveries/retry", { body: filter });
  }
}

export class Events {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  get(id: string): Promise<EventEnvelope> {
    return this.#transport.json("GET", `/v1/events/${id}`);
  }

  /** Iterate over the stored events, oldest first. */
  list(query: Query = {}): AsyncGenerator<EventEnvelope> {
    return allPages<EventEnvelope>(this.#transport, "/v1/events", query);
  }

  /** Follow all events from now on, or from the one after `lastEventId`, without a gap. */
  stream(
    options: { lastEventId?: string; types?: string[]; taskId?: string; signal?: AbortSignal } = {},
  ): AsyncGenerator<StreamEvent<EventEnvelope>> {
    const query = { types: options.types?.join(","), task_id: options.taskId };
    return readStream(this.#transport, "/v1/events/stream", { query, signal: options.signal }, options.lastEventId);
  }
}

async function waitFor(transport: Transport, id: string, query: Query, options: WaitOptions): Promise<Task> {
  const endsAt = Date.now() + (options.timeoutMs ?? 900_000);
  for (;;) {
    const wait = Math.max(0, Math.min(HOLD_S, (endsAt - Date.now()) / 1000));
    const call = { query: { ...query, wait: wait.toFixed(1) }, timeoutMs: HOLD_TIMEOUT_MS, signal: options.signal };
    const task = await transport.json<Task>("GET", `/v1/tasks/${id}`, call);
    if (FINAL.has(task.status)) return task;
    if (Date.now() >= endsAt) throw new WaitTimeoutError(task);
  }
}

async function* allPages<T>(transport: Transport, path: string, query: Query): AsyncGenerator<T> {
  let cursor: string | null | undefined;
  do {
    const page: Page<T> = await transport.json("GET", path, { query: { ...query, ...(cursor ? { cursor } : {}) } });
    yield* page.data;
    cursor = page.next_cursor;
  } while (cursor);
}
