-- runs with: 0004
-- The oldest version of the schema whose code still runs on the database as each migration leaves it.
alter table migrations add column runs_with text;
