/** Channel streams for the gateway: recovery, counters, and events that clients publish, over Postgres. */

import type pg from 'pg';
import { counterName, shownCount } from '../broker/broker.js';
import type { ChannelPublication, CounterPublication } from '../broker/broker.js';
import { isOfObject, parseChannel } from '../config.js';
import type { Config, Source } from '../config.js';
import { BelfryError } from '../errors.js';
import type { ChannelRecovery, Channels } from './types.js';

/** More events than this are not replayed (CONTRACT §5). */
const maxReplay = 500;

/** A counter of which a channel hears, and the object that it counts for there. */
interface Counted {
  readonly source: Source;
  readonly id: string;
}

/** By source; left out where nothing was counted. */
type Counts = Readonly<Record<string, number>>;

interface EventRow {
  readonly channel: string;
  readonly offset: string;
  readonly event: string;
  readonly actor_id: string | null;
  readonly data: Readonly<Record<string, unknown>>;
  readonly data_without_actor: Readonly<Record<string, unknown>> | null;
}

export class PostgresChannels implements Channels {
  constructor(
    private readonly pool: pg.Pool,
    private readonly config: Config,
  ) {}

  async recover(channel: string, offset: number | null, epoch: string | null): Promise<ChannelRecovery> {
    const counters = this.countersOf(channel);
    // One statement, so that head, events and counters are of one snapshot.
    const result = await this.pool.query<{
      epoch: string;
      offset: string;
      oldest: string | null;
      counts: Counts | null;
      events: EventRow[] | null;
    }>({
      name: 'belfry_channel_recover',
      text: `select x.value as epoch, coalesce((select h."offset" from belfry.channel_head h where h.channel = $1), 0)::text as offset,
        (select min(e."offset")::text from belfry.channel_event e where e.channel = $1) as oldest,
        (select json_object_agg(c.source, c.count) from unnest($4::text[], $5::text[]) w(source, object_id)
           join belfry.counter c on c.source = w.source and c.object_id = w.object_id) as counts,
        (select json_agg(e order by e."offset"::bigint) from (
           select e.channel, e."offset"::text as offset, e.event, e.actor_id, e.data, e.data_without_actor
             from belfry.channel_event e where e.channel = $1 and e."offset" > $2 order by e."offset" limit $3) e) as events
        from belfry.epoch x`,
      values: [
        channel,
        offset ?? Number.MAX_SAFE_INTEGER,
        maxReplay + 1,
        counters.map(({ source }) => source.name),
        counters.map(({ id }) => id),
      ],
    });
    const row = result.rows[0];
    if (row === undefined) throw new BelfryError('not_migrated', 'belfry.epoch has no row: run belfry migrate.');
    const state = stateOf(counters, row.counts);
    const head = Number(row.offset);
    const base = { offset: head, epoch: row.epoch, state };
    if (offset === null) return { ...base, recovered: true, events: [] };
    if (epoch !== row.epoch || offset > head) return { ...base, recovered: false, events: [] };
    const events = (row.events ?? []).map((event) => atPresent(publicationOf(event), counters, state));
    // The log must reach back to the position without a hole.
    const whole = events.length === head - offset && events.length <= maxReplay;
    return whole ? { ...base, recovered: true, events } : { ...base, recovered: false, events: [] };
  }

  async eventsAfter(positions: ReadonlyMap<string, number>): Promise<Map<string, ChannelPublication[]>> {
    const channels = [...positions.keys()];
    const counters = new Map(channels.map((channel) => [channel, this.countersOf(channel)]));
    const asked = channels.flatMap((channel) => (counters.get(channel) ?? []).map((one) => ({ ...one, channel })));
    const result = await this.pool.query<EventRow & { counts: Counts | null }>(
      `select e.*, n.counts from unnest($1::text[], $2::bigint[]) p(channel, after)
        cross join lateral (
          select json_object_agg(c.source, c.count) as counts
            from unnest($4::text[], $5::text[], $6::text[]) w(channel, source, object_id)
            join belfry.counter c on c.source = w.source and c.object_id = w.object_id
           where w.channel = p.channel) n
        cross join lateral (
          select e.channel, e."offset"::text as offset, e.event, e.actor_id, e.data, e.data_without_actor from belfry.channel_event e
           where e.channel = p.channel and e."offset" > p.after order by e."offset" limit $3) e`,
      [
        channels,
        [...positions.values()],
        maxReplay,
        asked.map(({ channel }) => channel),
        asked.map(({ source }) => source.name),
        asked.map(({ id }) => id),
      ],
    );
    const events = new Map<string, ChannelPublication[]>(channels.map((channel) => [channel, []]));
    for (const row of result.rows) {
      const heard = counters.get(row.channel) ?? [];
      events.get(row.channel)?.push(atPresent(publicationOf(row), heard, stateOf(heard, row.counts)));
    }
    return events;
  }

  async counters(channels: readonly string[]): Promise<CounterPublication[]> {
    const asked = channels.flatMap((channel) => this.countersOf(channel).map((one) => ({ ...one, channel })));
    if (asked.length === 0) return [];
    const result = await this.pool.query<{ count: number }>(
      `select coalesce(c.count, 0)::float8 as count from unnest($1::text[], $2::text[]) with ordinality w(source, object_id, n)
         left join belfry.counter c on c.source = w.source and c.object_id = w.object_id order by w.n`,
      [asked.map(({ source }) => source.name), asked.map(({ id }) => id)],
    );
    return asked.flatMap(({ source: { name, counter, object }, id, channel }, i) => {
      if (counter === null || object === null) return [];
      const data = { [`${object.kind}_id`]: id, [counter.field]: shownCount(result.rows[i]?.count) };
      return [{ to: 'counter', channel, event: counter.event, data, actorId: null, counter: counterName(name, id) }];
    });
  }

  async append(
    channel: string,
    event: string,
    data: Readonly<Record<string, unknown>>,
    actorId: string,
  ): Promise<ChannelPublication> {
    const result = await this.pool.query<{ offset: string }>(
      `with head as (
         insert into belfry.channel_head as h (channel, "offset") values ($1, 1)
         on conflict (channel) do update set "offset" = h."offset" + 1
         returning h."offset")
       insert into belfry.channel_event (channel, "offset", event, actor_id, data)
       select $1, "offset", $2, $3, $4 from head
       returning "offset"::text as offset`,
      [channel, event, actorId, JSON.stringify(data)],
    );
    return {
      to: 'channel',
      channel,
      offset: Number(result.rows[0]?.offset),
      event,
      data,
      actorId,
      dataWithoutActor: null,
    };
  }

  /** Counters whose channel template gives this channel by the id of the counted object. */
  private countersOf(channel: string): Counted[] {
    const name = parseChannel(channel);
    if (name === null) return [];
    const { kind, id } = name;
    return this.config.sources.flatMap((source) => {
      const { counter, object } = source;
      if (counter === null || object === null) return [];
      const fits = source.channels.some((template) => template.kind === kind && isOfObject(template, object));
      return fits ? [{ source, id }] : [];
    });
  }
}

/** The value of each counter by its field. */
function stateOf(counters: readonly Counted[], counts: Counts | null): Record<string, number> {
  const state: Record<string, number> = {};
  for (const { source } of counters) {
    if (source.counter === null) continue;
    state[source.counter.field] = (state[source.counter.field] ?? 0) + shownCount(counts?.[source.name]);
  }
  return state;
}

/**
 * With the values that its counters have in `state`: those of then, told behind newer ones, would be taken for newer. An event of
 * another kind as it is.
 */
function atPresent(
  event: ChannelPublication,
  counters: readonly Counted[],
  state: Readonly<Record<string, number>>,
): ChannelPublication {
  const { data, dataWithoutActor } = event;
  const fields = counters.flatMap(({ source: { counter } }) => (counter?.event === event.event ? [counter.field] : []));
  const counts = Object.fromEntries(
    fields.flatMap((field) => (dataWithoutActor !== null && field in dataWithoutActor ? [[field, state[field]]] : [])),
  );
  return {
    ...event,
    data: { ...data, ...counts },
    dataWithoutActor: dataWithoutActor && { ...dataWithoutActor, ...counts },
  };
}

function publicationOf(row: EventRow): ChannelPublication {
  return {
    to: 'channel',
    channel: row.channel,
    offset: Number(row.offset),
    event: row.event,
    data: row.data,
    actorId: row.actor_id,
    dataWithoutActor: row.data_without_actor,
  };
}
