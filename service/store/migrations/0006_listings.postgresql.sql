-- runs with: 0004
-- outside of a transaction
-- For each filter of a listing an index in the order of its pages; what ends well is in none of those on deliveries.
drop index concurrently if exists tasks_by_provider;
create index concurrently tasks_by_provider on tasks (provider, id);
drop index concurrently if exists tasks_by_model_alone;
create index concurrently tasks_by_model_alone on tasks (model, id);
drop index concurrently if exists events_by_type;
create index concurrently events_by_type on events (type, seq);
drop index concurrently if exists deliveries_by_status;
create index concurrently deliveries_by_status on deliveries (status, id) where status <> 'succeeded';
drop index concurrently if exists deliveries_given_up;
create index concurrently deliveries_given_up on deliveries (endpoint_id, status, id, created_ms)
  where status in ('failed', 'held', 'parked');
drop index concurrently if exists deliveries_unsettled;
