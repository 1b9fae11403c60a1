// Receive events with Next.js: save as app/api/taskhook/route.js, with verify.mjs beside it.
import { verify } from "./verify.mjs";

export const runtime = "nodejs";

const known = new Set(); // of this process alone: with several, a unique column of your database

export async function POST(request) {
  const body = await request.text();
  if (!verify(process.env.TASKHOOK_SECRET, (name) => request.headers.get(name), body)) {
    return new Response("not signed by Taskhook, or too long ago", { status: 400 });
  }
  const event = JSON.parse(body);
  if (!known.has(event.id)) {
    known.add(event.id);
    if (event.type === "task.succeeded") console.log(event.data.id, event.data.result.outputs[0].url);
  }
  return new Response(null, { status: 204 });
}
