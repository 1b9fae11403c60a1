-- runs with: 0004
-- Whether a row belongs to an index is asked three times for each row that is written. SQLite puts a list of three into a
-- table of its own each time; alternatives it just compares.
drop index tasks_in_flight;
create index tasks_in_flight on tasks (provider, due_ms)
  where step = 'sending' or step = 'unconfirmed' or step = 'tracking';
drop index deliveries_given_up;
create index deliveries_given_up on deliveries (endpoint_id, status, id, created_ms)
  where status = 'failed' or status = 'held' or status = 'parked';
