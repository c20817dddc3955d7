/**
 * From the checked shape of the file to `Config`: finds what only shows when two places are seen together, in all that is sound in
 * itself, so that one mistake does not hide another; then, where there is none, fills in and converts.
 */

import { dirname, resolve as resolvePath } from 'node:path';
import { checkAuth, resolveAuth } from './auth.js';
import type { Path, Problems } from './problems.js';
import { checkRelation, checkThreadMutes, resolveRelation, resolveThreadMutes } from './relations.js';
import type { RawConfig } from './schema.js';
import type { Sections, Shape } from './shape.js';
import { checkSources, resolveSources } from './sources.js';
import { readTemplates } from './templates.js';
import type { Access, Aggregation, BrokerConfig, ChannelRule, Config, LogLevel } from './types.js';
import { parseDuration, sqlProblem } from './values.js';

export interface Surroundings {
  /** The config file; names of other files are relative to its folder. */
  readonly path: string;
  readonly logLevel: LogLevel;
  readonly problems: Problems;
  readonly warnings: string[];
}

/** Null when something was wrong; `problems` says what. */
export function resolveConfig({ whole, sound }: Shape, around: Surroundings): Config | null {
  const { problems, warnings } = around;
  const fileName = (name: string): string => resolvePath(dirname(around.path), name);

  checkDatabase(sound.database, problems);
  checkOrigins(sound.server?.origins ?? [], problems);
  const key = sound.auth && checkAuth(sound.auth, fileName, problems);
  if (sound.people?.active !== undefined) checkSql(sound.people.active, ['people', 'active'], problems);
  if (sound.blocks) checkRelation(sound.blocks, 'blocks', problems);
  if (sound.mutes) checkRelation(sound.mutes, 'mutes', problems);
  if (sound.threadMutes) checkThreadMutes(sound.threadMutes, problems);
  checkSources(sound.sources ?? [], problems);
  checkChannels(sound.channels ?? {}, sound.sources ?? [undefined], problems);
  checkAccess(sound.presence?.read, ['user', 'other'], ['presence', 'read'], problems);
  checkAggregation(sound.aggregation ?? {}, problems);
  checkDurations(sound.retention, ['retention'], ['outbox', 'inbox', 'channels'], problems);
  const templates = sound.templates === undefined ? {} : readTemplates(fileName(sound.templates), problems, warnings);

  if (whole === null || key === undefined || !problems.empty) return null;
  const { database, server, people } = whole;
  return {
    path: around.path,
    logLevel: around.logLevel,
    database: { url: database.url, listenUrl: database.listenUrl ?? database.url, wakeup: database.wakeup },
    server: { ...server, tls: server.tls ? { cert: fileName(server.tls.cert), key: fileName(server.tls.key) } : null },
    auth: resolveAuth(whole.auth, key, warnings),
    broker: resolveBroker(whole.broker),
    people: people
      ? {
          table: people.table,
          id: people.id,
          name: people.name ?? null,
          enabled: people.enabled ?? null,
          active: people.active ?? null,
          locale: people.locale ?? null,
        }
      : null,
    blocks: resolveRelation(whole.blocks),
    mutes: resolveRelation(whole.mutes),
    threadMutes: resolveThreadMutes(whole.threadMutes),
    sources: resolveSources(whole.sources, whole.channels, warnings),
    channels: resolveChannels(whole.channels),
    presence: { read: resolveAccess(whole.presence.read) },
    aggregation: resolveAggregation(whole.aggregation),
    limits: whole.limits,
    retention: {
      outboxMs: milliseconds(whole.retention.outbox),
      inboxMs: milliseconds(whole.retention.inbox),
      channelsMs: milliseconds(whole.retention.channels),
    },
    deadLetters: whole.deadLetters,
    rollout: whole.rollout,
    extensions: whole.extensions === undefined ? null : fileName(whole.extensions),
    templates,
    warnings,
  };
}

/** As libpq has them; postgres.ts makes them so. */
const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;

function checkDatabase(database: Sections['database'], problems: Problems): void {
  for (const key of ['url', 'listenUrl'] as const) {
    const url = database?.[key];
    if (url !== undefined && !/^postgres(?:ql)?:\/\//.test(url)) {
      problems.add(['database', key], 'must begin with postgres:// or postgresql://');
      continue;
    }
    const parameters = url !== undefined && URL.canParse(url) ? new URL(url).searchParams : new URLSearchParams();
    const mode = parameters.get('sslmode');
    if (mode !== null && !(SSL_MODES as readonly string[]).includes(mode)) {
      problems.add(['database', key], `has an sslmode that is none of ${SSL_MODES.join(', ')}`);
    }
    if (mode === 'verify-ca' && !parameters.has('sslrootcert')) {
      problems.add(['database', key], 'has sslmode=verify-ca without sslrootcert: name the file with the CA');
    }
  }
}

function checkOrigins(origins: readonly (string | undefined)[], problems: Problems): void {
  const given = origins.filter((origin) => origin !== undefined);
  if (new Set(given).size < given.length) problems.add(['server', 'origins'], 'names an origin twice');
}

function checkSql(sql: string, path: Path, problems: Problems): void {
  const problem = sqlProblem(sql, 'condition', []);
  if (problem !== null) problems.add(path, problem);
}

function checkAccess(access: string | undefined, parameters: readonly string[], path: Path, problems: Problems): void {
  if (access === undefined || access === 'public' || access === 'none') return;
  const problem = /^\w+$/.test(access.trim())
    ? 'must be public, none, or SQL that returns a row'
    : sqlProblem(access, 'query', parameters);
  if (problem !== null) problems.add(path, problem);
}

function resolveAccess(access: string): Access {
  return access === 'public' || access === 'none' ? access : { sql: access };
}

/** A name is not known to be wrong where a source may have it that has none that is right. */
function checkChannels(
  channels: NonNullable<Sections['channels']>,
  sources: NonNullable<Sections['sources']>,
  problems: Problems,
): void {
  const names = new Set(sources.map((source) => source?.name));
  for (const [kind, channel] of Object.entries(channels)) {
    const path = ['channels', kind];
    checkAccess(channel?.read, ['user', 'id'], [...path, 'read'], problems);
    checkAccess(channel?.publish, ['user', 'id'], [...path, 'publish'], problems);
    channel?.recheck?.forEach((name, index) => {
      const mayBe = name === undefined || names.has(name) || names.has(undefined);
      if (!mayBe) problems.add([...path, 'recheck', index], `${name} is not the name of a source`);
    });
  }
}

function resolveChannels(raw: RawConfig['channels']): Record<string, ChannelRule> {
  const rules = emptyRecord<ChannelRule>();
  for (const [kind, { read, publish, recheck }] of Object.entries(raw))
    rules[kind] = { read: resolveAccess(read), publish: resolveAccess(publish), recheck };
  return rules;
}

/** What DESIGN groups; messages, mentions and requests never are unless the config says so. */
const GROUPED = ['like', 'repost', 'follow'] as const;
const STANDARD: Aggregation = {
  windowMs: 5_000,
  early: [10, 100, 1000],
  groupForMs: 12 * 3_600_000,
  sample: 8,
};

function checkAggregation(aggregation: NonNullable<Sections['aggregation']>, problems: Problems): void {
  for (const [type, rule] of Object.entries(aggregation)) {
    if (rule === undefined || rule === false) continue;
    const early = rule.early?.filter((count) => count !== undefined) ?? [];
    if (early.some((count, index) => index > 0 && count <= (early[index - 1] ?? 0)))
      problems.add(['aggregation', type, 'early'], 'must ascend');
    checkDurations(rule, ['aggregation', type], ['window', 'groupFor'], problems);
  }
}

function resolveAggregation(raw: RawConfig['aggregation']): Record<string, Aggregation> {
  const types = emptyRecord<Aggregation>();
  for (const type of GROUPED) types[type] = STANDARD;
  for (const [type, rule] of Object.entries(raw)) {
    if (rule === false) {
      delete types[type];
      continue;
    }
    types[type] = {
      windowMs: milliseconds(rule.window),
      early: rule.early,
      groupForMs: milliseconds(rule.groupFor),
      sample: rule.sample,
    };
  }
  return types;
}

function resolveBroker(broker: string): BrokerConfig {
  if (broker === 'memory') return { kind: 'memory' };
  return { kind: broker.startsWith('nats:') ? 'nats' : 'redis', url: broker };
}

function checkDurations<Key extends string>(
  durations: { readonly [Each in Key]?: string | undefined } | undefined,
  path: Path,
  keys: readonly Key[],
  problems: Problems,
): void {
  for (const key of keys) {
    const duration = durations?.[key];
    if (duration !== undefined && milliseconds(duration) < 1)
      problems.add([...path, key], 'must be longer than nothing');
  }
}

function milliseconds(duration: string): number {
  return parseDuration(duration) ?? 0;
}

// Without a prototype, so that a client's channel `constructor:1` finds nothing.
function emptyRecord<Value>(): Record<string, Value> {
  return Object.create(null) as Record<string, Value>;
}
