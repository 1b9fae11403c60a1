/** Errors of this client. All of them are `TaskhookError`. */

import type { Task } from "./types.js";

export interface FieldError {
  loc: (string | number)[];
  msg: string;
}

/** The body of a refusal (RFC 9457). */
export interface Problem {
  type?: string;
  title?: string;
  status?: number;
  detail?: string;
  errors?: FieldError[];
  request_id?: string;
}

export class TaskhookError extends Error {
  override name = "TaskhookError";
}

/** No answer: the connection failed, or the time limit passed. */
export class ConnectionError extends TaskhookError {
  override name = "ConnectionError";
}

/** The service refused the request; `problem` says why, `errors` names each wrong field. */
export class ApiError extends TaskhookError {
  override name = "ApiError";

  constructor(
    readonly status: number,
    readonly problem: Problem,
    readonly retryAfterMs: number | null = null,
  ) {
    super(problem.detail ?? problem.title ?? `The service answered ${status}.`);
  }

  get errors(): FieldError[] {
    return this.problem.errors ?? [];
  }

  get requestId(): string | undefined {
    return this.problem.request_id;
  }
}

/** 401: the key or ticket is missing, unknown, revoked or expired. */
export class AuthenticationError extends ApiError {
  override name = "AuthenticationError";
}

/** 403: the key lacks the scope. */
export class PermissionError extends ApiError {
  override name = "PermissionError";
}

/** 404 */
export class NotFoundError extends ApiError {
  override name = "NotFoundError";
}

/** 409: not possible in the current state, or the idempotency key was used with another body. */
export class ConflictError extends ApiError {
  override name = "ConflictError";
}

/** 422: fields are wrong; `errors` names each. */
export class ValidationError extends ApiError {
  override name = "ValidationError";
}

/** 429 */
export class RateLimitError extends ApiError {
  override name = "RateLimitError";
}

/** The task failed or was canceled. */
export class TaskFailedError extends TaskhookError {
  override name = "TaskFailedError";

  constructor(readonly task: Task) {
    super(task.error?.message ?? `The task was ${task.status}.`);
  }
}

/** The task was not final within the time limit; it goes on. */
export class WaitTimeoutError extends TaskhookError {
  override name = "WaitTimeoutError";

  constructor(readonly task: Task) {
    super(`The task is still ${task.status}.`);
  }
}

const BY_STATUS: Record<number, typeof ApiError> = {
  401: AuthenticationError,
  403: PermissionError,
  404: NotFoundError,
  409: ConflictError,
  422: ValidationError,
  429: RateLimitError,
};

/** Turn an answer that is not 2xx into its error. */
export async function readError(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => "");
  let problem: Problem = {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) problem = parsed;
  } catch {
    problem = { detail: `${response.status}: ${text.slice(0, 200)}` };
  }
  const kind = BY_STATUS[response.status] ?? ApiError;
  return new kind(response.status, problem, readRetryAfter(response.headers.get("retry-after")));
}

function readRetryAfter(value: string | null): number | null {
  if (!value) return null;
  const seconds = Number(value);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) && ms >= 0 ? Math.min(ms, 60_000) : null;
}
