// Types by openapi-typescript, requests by openapi-fetch: the first task.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const { TASKHOOK_URL = "", TASKHOOK_API_KEY = "", MODEL = "" } = process.env;
const client = createClient<paths>({ baseUrl: TASKHOOK_URL, headers: { Authorization: `Bearer ${TASKHOOK_API_KEY}` } });

const made = await client.POST("/v1/tasks", { body: { model: MODEL, input: { prompt: "a lighthouse" } } });
if (made.data === undefined) throw new Error(made.error.detail);
const path = { id: made.data.id };
const task = await client.GET("/v1/tasks/{id}", { params: { path, query: { wait: 55 } } });
const listed = await client.GET("/v1/tasks", { params: { query: { limit: 1 } } });
if (task.data === undefined || listed.data === undefined) throw new Error("refused");
const url: string | null | undefined = task.data.result?.outputs[0]?.url;
console.log(JSON.stringify({ id: task.data.id, status: task.data.status, url }));
