-- 0017: a dead letter keeps its transaction, so that a retry knows whether counters have seen it.
--
-- Locks: belfry.dead_event ACCESS EXCLUSIVE for an instant (a column without a default, nothing is rewritten).

alter table belfry.dead_event add column xid xid8;
comment on column belfry.dead_event.xid is 'As in the outbox, which may be pruned: counters skip what their count has seen. Null: set aside by a version before; as long as the outbox has the event, its xid is taken.';
