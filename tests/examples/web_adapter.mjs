// Calls a handler written for Request and Response: a line of JSON in for each request, one out for each answer.
import { createInterface } from "node:readline";

const module = await import(process.argv[2]);
const { TASKHOOK_SECRET } = process.env;
const kept = new Map();
const EVENTS = { get: async (key) => kept.get(key) ?? null, put: async (key, value) => void kept.set(key, value) };
const context = { waitUntil: (promise) => promise };
const handle = module.POST ?? ((request) => module.default.fetch(request, { TASKHOOK_SECRET, EVENTS }, context));
const answer = (status) => process.stdout.write(`=${status}\n`);

for await (const line of createInterface({ input: process.stdin })) {
  const { headers, body } = JSON.parse(line);
  const request = new Request("http://receiver.test/", { method: "POST", headers, body: Buffer.from(body, "base64") });
  answer((await handle(request)).status);
}
