-- runs with: 0004
-- Sessions of the dashboard that were signed out before their time; a row is of no use after `until_ms`.
create table ended_sessions (
  id text primary key,
  until_ms bigint not null
);
