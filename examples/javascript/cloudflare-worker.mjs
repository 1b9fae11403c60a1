// Receive events with a Cloudflare Worker: TASKHOOK_SECRET is a secret, EVENTS a KV namespace.
const WEEK_S = 7 * 24 * 3600;

export default {
  async fetch(request, env, context) {
    const body = await request.text();
    if (!(await verify(env.TASKHOOK_SECRET, request.headers, body))) return new Response("refused", { status: 400 });
    const event = JSON.parse(body);
    if ((await env.EVENTS.get(event.id)) === null) {
      await env.EVENTS.put(event.id, body, { expirationTtl: WEEK_S });
      context.waitUntil(work(event)); // goes on after the answer
    }
    return new Response(null, { status: 204 });
  },
};

async function work(event) {
  if (event.type === "task.succeeded") console.log(event.data.id, event.data.result.outputs[0].url);
}

async function verify(secret, headers, body, toleranceS = 300) {
  const [id, timestamp, signatures] = ["id", "timestamp", "signature"].map((name) => headers.get(`webhook-${name}`));
  if (!id || !signatures || !(Math.abs(Date.now() / 1000 - Number(timestamp)) <= toleranceS)) return false;
  const raw = bytes((secret ?? "").trim().replace(/^whsec_/, ""));
  if (raw.length < 16) throw new Error("TASKHOOK_SECRET must be the whsec_... of the endpoint");
  const key = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  const signed = new TextEncoder().encode(`${id}.${timestamp}.${body}`);
  for (const signature of signatures.split(" ")) {
    const [version, text = ""] = signature.split(",");
    if (version === "v1" && (await crypto.subtle.verify("HMAC", key, bytes(text), signed))) return true;
  }
  return false;
}

function bytes(base64) {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}
