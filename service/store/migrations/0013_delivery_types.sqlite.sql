-- runs with: 0004
-- Listings by type: what is rare has an index, since most deliveries are of a success.
create index deliveries_by_type on deliveries (event_type, id) where event_type <> 'task.succeeded';
