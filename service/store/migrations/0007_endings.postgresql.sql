-- runs with: 0004
-- outside of a transaction
-- What ended lately, by provider and outcome, is counted from this index alone.
drop index concurrently if exists tasks_by_end;
create index concurrently tasks_by_end on tasks (provider, finished_ms, status) where finished_ms is not null;
