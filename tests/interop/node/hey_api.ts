// A client by hey-api: the first task.
import { client } from "./hey/client.gen.js";
import { createTask, getTask } from "./hey/index.js";

const { TASKHOOK_URL = "", TASKHOOK_API_KEY = "", MODEL = "" } = process.env;
client.setConfig({ baseUrl: TASKHOOK_URL as "/", auth: TASKHOOK_API_KEY });

const made = await createTask({ body: { model: MODEL, input: { prompt: "a lighthouse" } } });
if (made.data === undefined) throw new Error(made.error.detail);
const task = await getTask({ path: { id: made.data.id }, query: { wait: 55 } });
if (task.data === undefined) throw new Error(task.error.detail);
const url: string | null | undefined = task.data.result?.outputs[0]?.url;
console.log(JSON.stringify({ id: task.data.id, status: task.data.status, url }));
