// standardwebhooks and cloudevents read real deliveries, given one to a line as JSON with headers and body.
import { HTTP } from "cloudevents";
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.TASKHOOK_SECRET);
for await (const line of createInterface({ input: process.stdin })) {
  const { headers, body } = JSON.parse(line);
  const verified = webhook.verify(body, headers);
  let isTaken = true;
  try {
    webhook.verify(`${body} `, headers);
  } catch {
    isTaken = false;
  }
  if (isTaken) throw new Error("an altered body was taken");
  if (headers["content-type"].includes("cloudevents")) {
    const event = HTTP.toEvent({ headers, body });
    event.validate();
    console.log(JSON.stringify({ id: event.id, type: event.type, sequence: event.sequence }));
  } else {
    console.log(JSON.stringify({ id: verified.id, type: verified.type }));
  }
}
