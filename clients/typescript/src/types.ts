/** Names for the generated types of the API. */

import type { components } from "./schema.js";

type Schemas = components["schemas"];

export type Task = Schemas["TaskView"];
export type TaskInput = Schemas["TaskInput"];
export type CreateTask = Schemas["CreateTask"];
export type TaskList = Schemas["TaskList"];
export type TimelineItem = Schemas["TimelineItem"];
export type Why = Schemas["Why"];
export type Endpoint = Schemas["EndpointView"];
export type CreateEndpoint = Schemas["CreateEndpoint"];
export type ChangeEndpoint = Schemas["ChangeEndpoint"];
export type Delivery = Schemas["DeliveryView"];
export type RetryFilter = Partial<Schemas["RetryDeliveries"]>;
export type Retried = Schemas["Retried"];
export type EventEnvelope = Schemas["Envelope"];
export type Ticket = Schemas["TicketView"];

export const FINAL: ReadonlySet<string> = new Set(["succeeded", "failed", "canceled"]);

/** One frame of a stream: `id` resumes it, `data` is its JSON. */
export interface StreamEvent<T> {
  id: string;
  type: string;
  data: T;
}
