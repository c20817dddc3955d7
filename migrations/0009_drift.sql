-- 0009: until when every source was surely captured.
--
-- Locks: only new objects; nothing that exists is touched.

create table belfry.capture_check (
  source text        primary key,
  ok_at  timestamptz not null
);
comment on table  belfry.capture_check        is 'The relay looks every minute whether the triggers of each source are there: what it last found in order.';
comment on column belfry.capture_check.source is 'Name of the source.';
comment on column belfry.capture_check.ok_at  is 'When all of its triggers were there; writes after it may have been missed if one is not now.';
