-- Keys beside those of the settings. Of the key itself only its public beginning and a hash are kept.
create table api_keys (
  id text primary key,
  hint text not null unique,
  digest text not null,
  used_ms bigint,
  revoked_ms bigint,
  doc text not null
);
insert into counters (name, value) values ('keys', 0);
