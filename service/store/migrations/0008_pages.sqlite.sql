-- runs with: 0004
-- What was received lies behind all that waits, however much that is: pages of it have indexes of their own. What no task
-- takes along is deleted by its time. Conditions that hold for all rows keep an index for the questions that name them: a
-- planner that knows little would take it for a claim, too.
create index deliveries_by_state on deliveries (status, id) where length(status) > 0;
create index deliveries_received on deliveries (endpoint_id, status, id) where status = 'succeeded';
create index tasks_by_deadline on tasks (provider, deadline_ms) where step = 'submit' and deadline_ms >= 0;
create index events_of_no_task on events (created_ms) where task_id is null;
drop index deliveries_by_status;
drop index tasks_to_expire;
