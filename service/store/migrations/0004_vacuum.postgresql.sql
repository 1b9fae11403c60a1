-- Rows that are due change often: the dead versions must go before an index scan has to step over many of them.
alter table tasks set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
alter table deliveries set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
alter table counters set (fillfactor = 10);
alter table limits set (fillfactor = 10)
