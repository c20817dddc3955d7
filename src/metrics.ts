/**
 * What Prometheus may know: one registry per process, made once and handed to whoever counts.
 *
 * What must hold: no label can take a value that a stranger chooses (no user, no channel, no path that is not a route), so
 * that nobody can make the registry grow. Durations are in seconds, as Prometheus wants them.
 */

import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';

export interface Metrics {
  readonly registry: Registry;
  readonly gateway: GatewayMetrics;
  readonly relay: RelayMetrics;
}

export interface GatewayMetrics {
  /** Asked when Prometheus asks, so that nobody needs to keep gauges up to date. */
  census: () => Census;
  /** Frames handed to sockets by kind: `notification`, `channel`, `counter`, …; a channel event counts once per publication. */
  readonly pushes: Counter<'kind'>;
  /** Sockets that are gone, by the code that we closed with, else 1000, 1001, 1005, 1006 or other. */
  readonly closes: Counter<'code'>;
  /** Upgrades by outcome: accepted, origin, limited, draining; cut: connections of an address that opens far too many. */
  readonly handshakes: Counter<'outcome'>;
  /** HTTP answers by route and status. */
  readonly http: Counter<'route' | 'status'>;
  /** Sockets that read too slowly. */
  readonly slowReaders: Counter;
  /** Streams that the sweep or a gap found behind, by what was done: person, channel, closed. */
  readonly repairs: Counter<'outcome'>;
  /** Queries for badges; each stands for all people of one turn. */
  readonly badgeQueries: Counter;
  /** Authentications by outcome: ok, refreshed, refused, unavailable, rollout, too_many. */
  readonly auths: Counter<'outcome'>;
  /** Calls of handlers of custom events: ok, refused, failed. */
  readonly handlers: Counter<'outcome'>;
}

export interface Census {
  /** Open sockets, authenticated or not. */
  readonly connections: number;
  /** Authenticated ones. */
  readonly sessions: number;
  /** People with a session. */
  readonly users: number;
}

export interface RelayMetrics {
  /** Asked when Prometheus asks: the doorbell counts by itself. */
  doorbell: () => Doorbell;
  readonly eventsRead: Counter;
  readonly batches: Counter;
  readonly batchSeconds: Histogram;
  /** Recipients who did not get an event, by rule. */
  readonly suppressed: Counter<'rule'>;
  readonly deadLetters: Counter;
  /** Dead letters that there are. */
  readonly deadLettersNow: Gauge;
  /** Of these, those that wait for an earlier one of their key. */
  readonly deadLettersWaiting: Gauge;
  /** Replays and retries that wait or run. */
  readonly replays: Gauge;
  /** Age of the oldest event that has not been read. */
  readonly lagSeconds: Gauge;
  /** 1 while this process leads. */
  readonly leader: Gauge;
  /** Publications handed to the broker. */
  readonly publications: Counter;
  /** Triggers that are not as they should be by what is wrong with them, and places of the config that the database does not have. */
  readonly captureProblems: Gauge<'state'>;
}

/** Since the start. */
export interface Doorbell {
  /** Rings that arrived. */
  readonly rings: number;
  /** Times that the relay went to sleep. */
  readonly sleeps: number;
}

/** A registry of its own with everything in it; `processMetrics` adds those of Node (memory, event loop, GC). */
export function createMetrics(options: { readonly processMetrics?: boolean } = {}): Metrics {
  const registry = new Registry();
  if (options.processMetrics === true) {
    collectDefaultMetrics({ register: registry });
    // It lists all descriptors whenever Prometheus asks, and nothing else happens meanwhile: 60 ms with 15,000 sockets.
    registry.removeSingleMetric('process_open_fds');
  }
  return { registry, gateway: gatewayMetrics(registry), relay: relayMetrics(registry) };
}

function gatewayMetrics(registry: Registry): GatewayMetrics {
  const make = maker(registry, 'belfry_gateway_');
  const metrics: GatewayMetrics = {
    census: () => ({ connections: 0, sessions: 0, users: 0 }),
    pushes: make.counter('pushes_total', 'Frames handed to sockets, by kind.', ['kind']),
    closes: make.counter('closes_total', 'Sockets that are gone, by close code.', ['code']),
    handshakes: make.counter('handshakes_total', 'Upgrades, by outcome.', ['outcome']),
    http: make.counter('http_answers_total', 'HTTP answers, by route and status.', ['route', 'status']),
    slowReaders: make.counter('slow_readers_total', 'Sockets closed because they read too slowly.'),
    repairs: make.counter('repairs_total', 'Streams found behind Postgres, by what was done.', ['outcome']),
    badgeQueries: make.counter('badge_queries_total', 'Queries for badges.'),
    auths: make.counter('auths_total', 'Authentications, by outcome.', ['outcome']),
    handlers: make.counter('handler_calls_total', 'Calls of handlers of custom events, by outcome.', ['outcome']),
  };
  make.gauge('connections', 'Open sockets, authenticated or not.', () => metrics.census().connections);
  make.gauge('sessions', 'Authenticated sockets.', () => metrics.census().sessions);
  make.gauge('users', 'People with a session.', () => metrics.census().users);
  return metrics;
}

/** Counts by the value of one label: raises a plain number, which the counter gets when Prometheus asks. */
export function byLabel<L extends string>(counter: Counter<L>, label: L): (value: string, count?: number) => void {
  const waiting = new Map<string, number>();
  const handOver = (): void => {
    for (const [value, count] of waiting) counter.inc({ [label]: value } as Record<L, string>, count);
    waiting.clear();
  };
  beforeRead.get(counter)?.push(handOver);
  return (value, count = 1) => void waiting.set(value, (waiting.get(value) ?? 0) + count);
}

/** What must be done before a counter is read. */
const beforeRead = new WeakMap<Counter, (() => void)[]>();

function relayMetrics(registry: Registry): RelayMetrics {
  const make = maker(registry, 'belfry_relay_');
  const metrics: RelayMetrics = {
    doorbell: () => ({ rings: 0, sleeps: 0 }),
    eventsRead: make.counter('events_total', 'Events read from the outbox.'),
    batches: make.counter('batches_total', 'Batches stored.'),
    batchSeconds: new Histogram({
      name: 'belfry_relay_batch_seconds',
      help: 'From reading a batch to its commit.',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
      registers: [registry],
    }),
    suppressed: make.counter('suppressed_total', 'Recipients who did not get an event, by rule.', ['rule']),
    deadLetters: make.counter('dead_letters_total', 'Events set aside because they could not be processed.'),
    deadLettersNow: make.gauge('dead_letters', 'Events that are set aside now; kept by the relay that leads.'),
    deadLettersWaiting: make.gauge(
      'dead_letters_waiting',
      'Of these, events that wait for an earlier one of their key; kept by the relay that leads.',
    ),
    replays: make.gauge('replays', 'Replays and retries that wait or run; kept by the relay that leads.'),
    lagSeconds: make.gauge('lag_seconds', 'Age of the oldest unread event.'),
    leader: make.gauge('leader', '1 while this process leads.'),
    publications: make.counter('publications_total', 'Publications handed to the broker.'),
    captureProblems: new Gauge({
      name: 'belfry_relay_capture_problems',
      help: 'Triggers that are missing, disabled, drifted, or whose columns changed; state "mapping": places of the config that the database lacks.',
      labelNames: ['state'],
      registers: [registry],
    }),
  };
  make.kept('doorbell_rings_total', 'Rings that arrived.', () => metrics.doorbell().rings);
  make.kept('doorbell_sleeps_total', 'Times that the relay went to sleep.', () => metrics.doorbell().sleeps);
  return metrics;
}

/** A term is over: what only the leader measures is from now on told by another. */
export function standBy(metrics: RelayMetrics): void {
  const { leader, lagSeconds, deadLettersNow, deadLettersWaiting, replays, captureProblems } = metrics;
  for (const gauge of [leader, lagSeconds, deadLettersNow, deadLettersWaiting, replays]) gauge.set(0);
  captureProblems.reset();
}

function maker(registry: Registry, prefix: string) {
  return {
    counter: <L extends string>(name: string, help: string, labelNames: L[] = []): Counter<L> => {
      const due: (() => void)[] = [];
      const collect = (): void => due.forEach((handOver) => handOver());
      const counter = new Counter({ name: prefix + name, help, labelNames, registers: [registry], collect });
      beforeRead.set(counter, due);
      return counter;
    },
    /** A counter that somebody else keeps. */
    kept: (name: string, help: string, read: () => number): Counter =>
      new Counter({
        name: prefix + name,
        help,
        registers: [registry],
        collect(): void {
          this.reset();
          this.inc(read());
        },
      }),
    gauge: (name: string, help: string, read?: () => number): Gauge =>
      new Gauge({
        name: prefix + name,
        help,
        registers: [registry],
        ...(read === undefined
          ? {}
          : {
              collect(): void {
                this.set(read());
              },
            }),
      }),
  };
}
