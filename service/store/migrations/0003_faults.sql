-- The circuit breaker of an account; rows that make a loop fail, until they are retried or work again; a place to write.
alter table limits add column breaker text not null default '{}';
create table faults (
  id text primary key,
  failures bigint not null,
  step text,
  first_ms bigint not null,
  last_ms bigint not null,
  parked_ms bigint,
  reason text not null
);
create table checks (
  name text primary key,
  at_ms bigint not null
);
