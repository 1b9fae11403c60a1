-- Times are integer milliseconds since 1970, UTC. What is never searched stands in one JSON document.

create table tasks (
  id text primary key,
  provider text not null,
  model text not null,
  status text not null,
  step text not null,
  provider_task_id text,
  lease bigint not null,
  due_ms bigint,
  deadline_ms bigint not null,
  finished_ms bigint,
  doc text not null
);
create index tasks_to_submit on tasks (provider, due_ms) where step = 'submit';
create index tasks_to_expire on tasks (provider, deadline_ms) where step = 'submit';
create index tasks_in_flight on tasks (provider, due_ms) where step in ('sending', 'unconfirmed', 'tracking');
create index tasks_by_status on tasks (status, id);
create index tasks_by_model on tasks (provider, model, id);
create index tasks_by_provider_task on tasks (provider_task_id) where provider_task_id is not null;
create index tasks_finished on tasks (finished_ms) where finished_ms is not null;

create table labels (
  key text not null,
  value text not null,
  task_id text not null references tasks (id) on delete cascade,
  primary key (key, value, task_id)
);
create index labels_by_task on labels (task_id);

create table timeline (
  task_id text not null references tasks (id) on delete cascade,
  number bigint not null,
  at_ms bigint not null,
  type text not null,
  detail text not null,
  primary key (task_id, number)
);

create table idempotency_keys (
  key text primary key,
  fingerprint text not null,
  task_id text not null references tasks (id) on delete cascade,
  created_ms bigint not null
);
create index idempotency_keys_by_task on idempotency_keys (task_id);

create table events (
  seq bigint primary key,
  id text not null unique,
  type text not null,
  task_id text references tasks (id) on delete cascade,
  audience_id text,
  created_ms bigint not null,
  body text not null
);
create index events_by_task on events (task_id) where task_id is not null;
create index events_by_time on events (created_ms);

create table endpoints (
  id text primary key,
  doc text not null
);

create table deliveries (
  id text primary key,
  event_id text not null references events (id) on delete cascade,
  event_type text not null,
  task_id text,
  endpoint_id text,
  url text,
  lane text not null,
  status text not null,
  due_ms bigint,
  created_ms bigint not null,
  finished_ms bigint,
  lease bigint not null,
  attempts bigint not null,
  failures bigint not null,
  resume_status text,
  resume_due_ms bigint
);
create index deliveries_due on deliveries (lane, due_ms) where status in ('pending', 'sending');
create index deliveries_in_flight on deliveries (lane, due_ms) where status = 'sending';
create index deliveries_by_event on deliveries (event_id, endpoint_id);
create index deliveries_by_endpoint on deliveries (endpoint_id, id);
create index deliveries_by_task on deliveries (task_id, id) where task_id is not null;
create index deliveries_unsettled on deliveries (status, endpoint_id, id) where status <> 'succeeded';

create table attempts (
  delivery_id text not null references deliveries (id) on delete cascade,
  number bigint not null,
  at_ms bigint not null,
  status_code bigint,
  duration_ms bigint not null,
  error text,
  location text,
  excerpt text not null,
  primary key (delivery_id, number)
);

-- One row for each account or endpoint that has a limit: until when it rests, and what it has used of its window.
create table limits (
  name text primary key,
  paused_ms bigint not null,
  used text not null
);

create table counters (
  name text primary key,
  value bigint not null
);
insert into counters (name, value) values ('events', 0), ('endpoints', 0);
