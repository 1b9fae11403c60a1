-- runs with: 0004
-- outside of a transaction
-- Listings by type: what is rare has an index, since most deliveries are of a success.
drop index concurrently if exists deliveries_by_type;
create index concurrently deliveries_by_type on deliveries (event_type, id) where event_type <> 'task.succeeded';
