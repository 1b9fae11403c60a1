// Receive events with Node alone: PORT=9000 TASKHOOK_SECRET=whsec_... node receiver.mjs
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { keyOf, verify } from "./verify.mjs";

const { TASKHOOK_SECRET, PORT = "9000", EVENTS_DIR = "events" } = process.env;
const LARGEST = 4 * 1024 * 1024;
keyOf(TASKHOOK_SECRET); // stops here without a secret
mkdirSync(EVENTS_DIR, { recursive: true });

createServer((request, response) => {
  receive(request).then(
    (status) => response.writeHead(status).end(),
    (error) => {
      console.error(error);
      response.writeHead(500).end(); // Taskhook tries again
    },
  );
}).listen(Number(PORT), "127.0.0.1");

async function receive(request) {
  const body = await read(request);
  if (body === null) return 413;
  if (!verify(TASKHOOK_SECRET, (name) => request.headers[name], body)) return 400;
  const event = JSON.parse(body);
  if (keep(event.id, body)) setImmediate(work, event); // after the answer
  return 204;
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > LARGEST) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

// An event may come twice; the second file of that name is refused.
function keep(id, body) {
  try {
    writeFileSync(`${EVENTS_DIR}/${id}.json`, body, { flag: "wx" });
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  }
}

function work(event) {
  if (event.type === "task.succeeded") console.log(event.data.id, event.data.result.outputs[0].url);
}
