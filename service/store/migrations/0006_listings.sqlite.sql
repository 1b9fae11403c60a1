-- runs with: 0004
-- For each filter of a listing an index in the order of its pages; what ends well is in none of those on deliveries.
create index tasks_by_provider on tasks (provider, id);
create index tasks_by_model_alone on tasks (model, id);
create index events_by_type on events (type, seq);
create index deliveries_by_status on deliveries (status, id) where status <> 'succeeded';
create index deliveries_given_up on deliveries (endpoint_id, status, id, created_ms)
  where status in ('failed', 'held', 'parked');
drop index deliveries_unsettled;
