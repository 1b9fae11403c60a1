// eventsource reads the stream through a proxy that cuts it after each event, and resumes by itself.
import { EventSource } from "eventsource";
import { createServer, request } from "node:http";

const { TASKHOOK_URL, TASKHOOK_API_KEY, COUNT, AFTER } = process.env;
const target = new URL(TASKHOOK_URL);
const proxy = createServer((asked, answer) => {
  const headers = { ...asked.headers, host: target.host, authorization: `Bearer ${TASKHOOK_API_KEY}` };
  headers["last-event-id"] ??= AFTER;
  request({ host: target.hostname, port: target.port, path: asked.url, headers }, (upstream) => {
    answer.writeHead(upstream.statusCode, upstream.headers);
    upstream.on("data", (part) => {
      if (answer.writableEnded) return;
      answer.write(part);
      if (part.includes("data:")) answer.end(), upstream.destroy();
    });
    upstream.on("error", () => {});
  }).end();
}).listen(0, "127.0.0.1", () => {
  const source = new EventSource(`http://127.0.0.1:${proxy.address().port}/v1/events/stream`);
  const found = [];
  const take = (event) => {
    if (JSON.parse(event.data).id !== event.lastEventId) throw new Error("the data is another event's");
    if (!found.includes(event.lastEventId)) found.push(event.lastEventId);
    if (found.length < Number(COUNT)) return;
    console.log(JSON.stringify(found));
    process.exit(0);
  };
  for (const type of ["task.succeeded", "task.failed", "message"]) source.addEventListener(type, take);
});
