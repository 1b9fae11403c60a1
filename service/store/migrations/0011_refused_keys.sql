-- runs with: 0004
-- Since when the provider refuses an account's key, as a JSON document; null where it does not.
alter table limits add column refused text;
