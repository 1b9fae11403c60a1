// The client against a running service with its sandbox. TASKHOOK_URL and TASKHOOK_API_KEY name it.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import * as taskhook from "../dist/index.js";

const baseUrl = process.env.TASKHOOK_URL;
const client = new taskhook.Taskhook({ baseUrl, apiKey: process.env.TASKHOOK_API_KEY });
const task = { model: "fluxapi-ai/flux-kontext-pro", input: { prompt: "a lighthouse at dusk" } };

test("a task runs to its result", async () => {
  const ended = await client.tasks.run({ ...task, metadata: { order: "ts-1" } });
  assert.equal(ended.status, "succeeded");
  for await (const found of client.tasks.list({ "metadata.order": "ts-1" })) assert.equal(found.id, ended.id);
  assert.ok((await client.tasks.timeline(ended.id)).length > 2);
  assert.ok((await client.tasks.why(ended.id)).why);
});

test("a failed task is an error that has the task", async () => {
  const failing = { ...task, input: { prompt: "sandbox:failed" } };
  await assert.rejects(client.tasks.run(failing), (error) => {
    assert.ok(error instanceof taskhook.TaskFailedError);
    return error.task.status === "failed" && error.task.error.code === "provider_error";
  });
});

test("the same idempotency key returns the same task", async () => {
  const [one, other] = [await client.tasks.create(task, "ts-key-1"), await client.tasks.create(task, "ts-key-1")];
  assert.equal(one.id, other.id);
  const changed = { ...task, input: { prompt: "another" } };
  await assert.rejects(client.tasks.create(changed, "ts-key-1"), taskhook.ConflictError);
});

test("a refusal names each wrong field", async () => {
  const wrong = { ...task, timeout_s: 0, input: { prompt: "x", n: 0 } };
  await assert.rejects(client.tasks.create(wrong), (error) => {
    assert.ok(error instanceof taskhook.ValidationError);
    return error.errors.some(({ loc }) => loc.includes("timeout_s"));
  });
  const stranger = new taskhook.Taskhook({ baseUrl, apiKey: "unknown" });
  await assert.rejects(stranger.tasks.get("task_" + "0".repeat(32)), taskhook.AuthenticationError);
  await assert.rejects(client.tasks.get("task_" + "0".repeat(32)), taskhook.NotFoundError);
});

test("a wait that is too short says so, and the task goes on", async () => {
  const created = await client.tasks.create({ ...task, input: { prompt: "sandbox:slow" } });
  await assert.rejects(client.tasks.wait(created.id, { timeoutMs: 100 }), taskhook.WaitTimeoutError);
  await client.tasks.cancel(created.id);
});

test("a ticket follows its task to the end, and reads nothing else", async () => {
  const created = await client.tasks.create({ ...task, metadata: { secret: "for the owner" } });
  const { ticket } = await client.tasks.ticket(created.id, 600);
  const seen = [];
  for await (const event of new taskhook.TicketedTask({ baseUrl, taskId: created.id, ticket }).stream()) {
    seen.push(event.type);
    assert.equal(event.data.data.metadata, undefined);
  }
  assert.equal(seen.at(-1), "task.succeeded");
  const other = await client.tasks.create(task);
  await assert.rejects(new taskhook.TicketedTask({ baseUrl, taskId: other.id, ticket }).get(), taskhook.AuthenticationError);
});

test("the event stream resumes after the last event", async () => {
  const first = await client.tasks.run(task);
  const second = await client.tasks.run(task);
  const ids = [];
  for await (const event of client.events.list()) ids.push([event.id, event.data.id]);
  const from = ids.find(([, id]) => id === first.id)[0];
  const stop = new AbortController();
  for await (const event of client.events.stream({ lastEventId: from, taskId: second.id, signal: stop.signal })) {
    assert.equal(event.data.data.id, second.id);
    break;
  }
  stop.abort();
});

test("a delivery is verified, and an altered one is not", async (t) => {
  const received = await new Promise((resolve) => {
    const server = createServer((request, response) => {
      const chunks = [];
      request.on("data", (chunk) => chunks.push(chunk));
      request.on("end", () => {
        response.end();
        resolve({ body: Buffer.concat(chunks), headers: request.headers });
      });
    });
    t.after(() => server.close());
    server.listen(0, "127.0.0.1", async () => {
      const endpoint = await client.endpoints.create({ url: `http://127.0.0.1:${server.address().port}/hook` });
      t.after(() => client.endpoints.delete(endpoint.id));
      t.secret = endpoint.secret;
      await client.endpoints.test(endpoint.id);
    });
  });
  const { body, headers } = received;
  const event = await taskhook.verify(body, headers, t.secret);
  assert.equal(event.type, "taskhook.ping");
  const forged = Buffer.concat([body, Buffer.from(" ")]);
  assert.equal(await taskhook.verify(forged, headers, t.secret), null);
  const late = new Date(Date.now() + 3_600_000);
  assert.equal(await taskhook.verify(body, headers, t.secret, late), null);
  for (const odd of [{}, { "webhook-id": 5 }, { ...headers, "webhook-signature": "v1,%" }, { ...headers, "webhook-timestamp": "x" }, null]) {
    assert.equal(await taskhook.verify(body, odd, t.secret), null);
  }
  await assert.rejects(taskhook.verify(body, headers, ""), TypeError);
});
