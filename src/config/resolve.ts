/**
 * From the checked shape of the file to `Config`: fills in, converts, and finds what only shows when two places are seen
 * together. Works on each section that is sound in itself, so that one mistake does not hide another.
 */

import { dirname, resolve as resolvePath } from 'node:path';
import { resolveAuth } from './auth.js';
import type { Path, Problems } from './problems.js';
import { resolveRelation, resolveThreadMutes } from './relations.js';
import type { RawConfig } from './schema.js';
import { resolveSources } from './sources.js';
import { readTemplates } from './templates.js';
import type { Access, Aggregation, BrokerConfig, ChannelRule, Config, LogLevel } from './types.js';
import { parseDuration, sqlProblem } from './values.js';

/** Sections that are missing here had a problem of shape. `sources` has undefined in place of a broken one. */
export type Sections = { readonly [Key in Exclude<keyof RawConfig, 'sources'>]?: RawConfig[Key] } & {
  readonly sources?: readonly (RawConfig['sources'][number] | undefined)[];
};

export interface Surroundings {
  /** The config file; names of other files are relative to its folder. */
  readonly path: string;
  readonly logLevel: LogLevel;
  readonly problems: Problems;
  readonly warnings: string[];
}

/** Null when something was wrong; `problems` says what. */
export function resolveConfig(sections: Sections, around: Surroundings): Config | null {
  const { problems, warnings } = around;
  const fileName = (name: string): string => resolvePath(dirname(around.path), name);

  const auth = sections.auth && resolveAuth(sections.auth, fileName, problems, warnings);
  const sourceNames = (sections.sources ?? []).map((source) => source?.name);
  const channels = sections.channels && resolveChannels(sections.channels, sourceNames, problems);
  const sources = sections.sources && resolveSources(sections.sources, sections.channels, problems, warnings);
  const presence = sections.presence && {
    read: resolveAccess(sections.presence.read, ['user', 'other'], ['presence', 'read'], problems),
  };
  const aggregation = sections.aggregation && resolveAggregation(sections.aggregation, problems);
  if (sections.people?.active !== undefined) checkSql(sections.people.active, ['people', 'active'], problems);
  if (sections.server && new Set(sections.server.origins).size < sections.server.origins.length) {
    problems.add(['server', 'origins'], 'names an origin twice');
  }
  checkDatabase(sections.database, problems);

  const templates =
    sections.templates === undefined ? {} : readTemplates(fileName(sections.templates), problems, warnings);
  const retention = sections.retention && resolveRetention(sections.retention, problems);
  const blocks = resolveRelation(sections.blocks, 'blocks', problems);
  const mutes = resolveRelation(sections.mutes, 'mutes', problems);
  const threadMutes = resolveThreadMutes(sections.threadMutes, problems);

  const { database, server, broker, limits, deadLetters } = sections;
  if (!problems.empty || !database || !server || !auth || !broker || !sources || !channels || !presence) return null;
  if (!aggregation || !limits || !retention || !deadLetters) return null;
  const { people } = sections;
  return {
    path: around.path,
    logLevel: around.logLevel,
    database: { url: database.url, listenUrl: database.listenUrl ?? database.url, wakeup: database.wakeup },
    server: { ...server, tls: server.tls ? { cert: fileName(server.tls.cert), key: fileName(server.tls.key) } : null },
    auth,
    broker: resolveBroker(broker),
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
    blocks,
    mutes,
    threadMutes,
    sources,
    channels,
    presence,
    aggregation,
    limits,
    retention,
    deadLetters,
    rollout: sections.rollout ?? 100,
    extensions: sections.extensions === undefined ? null : fileName(sections.extensions),
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

function checkSql(sql: string, path: Path, problems: Problems): void {
  const problem = sqlProblem(sql, 'condition', []);
  if (problem !== null) problems.add(path, problem);
}

function resolveAccess(access: string, parameters: readonly string[], path: Path, problems: Problems): Access {
  if (access === 'public' || access === 'none') return access;
  if (/^\w+$/.test(access.trim())) {
    problems.add(path, 'must be public, none, or SQL that returns a row');
    return 'none';
  }
  const problem = sqlProblem(access, 'query', parameters);
  if (problem !== null) problems.add(path, problem);
  return { sql: access };
}

function resolveChannels(
  raw: RawConfig['channels'],
  sourceNames: readonly (string | undefined)[],
  problems: Problems,
): Record<string, ChannelRule> {
  const rules = emptyRecord<ChannelRule>();
  for (const [kind, channel] of Object.entries(raw)) {
    const path = ['channels', kind];
    rules[kind] = {
      read: resolveAccess(channel.read, ['user', 'id'], [...path, 'read'], problems),
      publish: resolveAccess(channel.publish, ['user', 'id'], [...path, 'publish'], problems),
      recheck: channel.recheck,
    };
    channel.recheck.forEach((name, index) => {
      const isKnown = sourceNames.includes(name) || sourceNames.includes(undefined);
      if (!isKnown) problems.add([...path, 'recheck', index], `${name} is not the name of a source`);
    });
  }
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

function resolveAggregation(raw: RawConfig['aggregation'], problems: Problems): Record<string, Aggregation> {
  const types = emptyRecord<Aggregation>();
  for (const type of GROUPED) types[type] = STANDARD;
  for (const [type, rule] of Object.entries(raw)) {
    const path = ['aggregation', type];
    if (rule === false) {
      delete types[type];
      continue;
    }
    if (rule.early.some((count, index) => index > 0 && count <= (rule.early[index - 1] ?? 0))) {
      problems.add([...path, 'early'], 'must ascend');
    }
    types[type] = {
      windowMs: milliseconds(rule.window, [...path, 'window'], problems),
      early: rule.early,
      groupForMs: milliseconds(rule.groupFor, [...path, 'groupFor'], problems),
      sample: rule.sample,
    };
  }
  return types;
}

function resolveRetention(raw: RawConfig['retention'], problems: Problems): Config['retention'] {
  return {
    outboxMs: milliseconds(raw.outbox, ['retention', 'outbox'], problems),
    inboxMs: milliseconds(raw.inbox, ['retention', 'inbox'], problems),
    channelsMs: milliseconds(raw.channels, ['retention', 'channels'], problems),
  };
}

function resolveBroker(broker: string): BrokerConfig {
  if (broker === 'memory') return { kind: 'memory' };
  return { kind: broker.startsWith('nats:') ? 'nats' : 'redis', url: broker };
}

function milliseconds(duration: string, path: Path, problems: Problems): number {
  const ms = parseDuration(duration);
  if (ms === null || ms < 1) problems.add(path, 'must be longer than nothing');
  return ms ?? 0;
}

// Without a prototype, so that a client's channel `constructor:1` finds nothing.
function emptyRecord<Value>(): Record<string, Value> {
  return Object.create(null) as Record<string, Value>;
}
