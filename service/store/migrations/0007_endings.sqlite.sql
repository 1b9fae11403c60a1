-- runs with: 0004
-- What ended lately, by provider and outcome, is counted from this index alone.
create index tasks_by_end on tasks (provider, finished_ms, status) where finished_ms is not null;
