/** Verify webhooks by Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`. */

import type { EventEnvelope } from "./types.js";

const TOLERANCE_S = 300;

type HeaderSource = Headers | Record<string, string | string[] | undefined>;

/**
 * Return the event if the delivery is genuine and fresh, else null. It never throws for what a stranger sends.
 *
 * `body` must be the bytes as received, before any parsing. `secret` is the endpoint's `whsec_...`.
 * Throws a `TypeError` if `secret` itself is not a signing secret, since every event would be refused.
 */
export async function verify(
  body: string | Uint8Array,
  headers: HeaderSource,
  secret: string,
  now: Date = new Date(),
): Promise<EventEnvelope | null> {
  const key = await readSecret(secret);
  const id = header(headers, "webhook-id");
  const timestamp = header(headers, "webhook-timestamp");
  const signatures = header(headers, "webhook-signature");
  if (!id || !timestamp || !signatures || !/^[0-9]{1,12}$/.test(timestamp)) return null;
  if (Math.abs(now.getTime() / 1000 - Number(timestamp)) > TOLERANCE_S) return null;
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const head = new TextEncoder().encode(`${id}.${timestamp}.`);
  const signed = new Uint8Array(head.length + bytes.length);
  signed.set(head);
  signed.set(bytes, head.length);
  for (const candidate of signatures.split(" ").slice(0, 20)) {
    const [version, encoded] = candidate.split(",", 2);
    const signature = version === "v1" && encoded ? decodeBase64(encoded) : null;
    // The comparison inside `verify` takes the same time for every signature.
    if (signature && (await crypto.subtle.verify("HMAC", key, signature, signed))) return parse(bytes);
  }
  return null;
}

function parse(bytes: Uint8Array): EventEnvelope | null {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) as EventEnvelope;
  } catch {
    return null;
  }
}

async function readSecret(secret: string): Promise<CryptoKey> {
  const key = typeof secret === "string" && secret.startsWith("whsec_") ? decodeBase64(secret.slice(6)) : null;
  if (!key || key.length < 24) throw new TypeError("The signing secret must be the endpoint's whsec_...");
  return crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
}

function header(headers: HeaderSource, name: string): string | null {
  if (headers instanceof Headers) return headers.get(name);
  const found = Object.entries(headers ?? {}).find(([key]) => key.toLowerCase() === name)?.[1];
  const value = Array.isArray(found) ? found[0] : found;
  return typeof value === "string" ? value : null;
}

function decodeBase64(text: string): Uint8Array<ArrayBuffer> | null {
  try {
    const decoded = atob(text);
    const bytes = new Uint8Array(decoded.length);
    for (let at = 0; at < decoded.length; at++) bytes[at] = decoded.charCodeAt(at);
    return bytes;
  } catch {
    return null;
  }
}
