-- runs with: 0004
-- Settings of an endpoint that older code does not know: it writes the whole document again and would drop them there.
alter table endpoints add column settings text not null default '{}';
