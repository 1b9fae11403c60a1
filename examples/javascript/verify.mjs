// Whether a delivery is Taskhook's and fresh (Standard Webhooks). `header` gives a header's value by its name.
import { createHmac, timingSafeEqual } from "node:crypto";

/** The key of a secret. Throws without one: with an empty key anybody could sign. */
export function keyOf(secret) {
  const key = Buffer.from(String(secret ?? "").trim().replace(/^whsec_/, ""), "base64");
  if (key.length < 16) throw new Error("TASKHOOK_SECRET must be the whsec_... of the endpoint");
  return key;
}

export function verify(secret, header, body, toleranceS = 300) {
  const [id, timestamp, signatures] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(header);
  if (!id || !signatures || !(Math.abs(Date.now() / 1000 - Number(timestamp)) <= toleranceS)) return false;
  const expected = createHmac("sha256", keyOf(secret)).update(`${id}.${timestamp}.`).update(body).digest();
  return signatures.split(" ").some((signature) => {
    const [version, text = ""] = signature.split(",");
    const given = Buffer.from(text, "base64");
    return version === "v1" && given.length === expected.length && timingSafeEqual(given, expected);
  });
}
