/** The config file: what it gives, and that whatever is wrong with it is told at once, with its path. */

import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { loadConfig, mappedColumns, parseConfig } from '../../src/config.js';
import type { Config, Environment } from '../../src/config.js';
import { BelfryError } from '../../src/errors.js';
import { RESERVED_EVENTS } from '../../src/protocol/frames.js';

const SECRET = 'a-secret-of-more-than-thirty-two-bytes';
const BASE = 'version: 1\ndatabase: { url: "postgres://h/d" }\n';
const AUTH = `auth: { secret: ${SECRET}, issuer: null, audience: null }\n`;
const MINIMAL = `${BASE}${AUTH}sources: []\n`;

/** The message without its first line, as a map from path to problem. */
function problemsOf(text: string, env: Environment = {}): Record<string, string> {
  try {
    parseConfig(text, env);
  } catch (error) {
    if (!(error instanceof BelfryError)) throw error;
    expect(error.code).toBe('config_invalid');
    const lines = error.message.split('\n').slice(1);
    return Object.fromEntries(
      lines.map(
        (line) =>
          line
            .trim()
            .split(/: (.*)/s)
            .slice(0, 2) as [string, string],
      ),
    );
  }
  return {};
}

function source(fields: string): string {
  return `${BASE}${AUTH}sources:\n  - { name: s, type: like, table: likes, key: [id], ${fields} }\n`;
}

describe('a minimal file', () => {
  it('gets every default', () => {
    const config = parseConfig(MINIMAL, {}, { path: '/etc/belfry/belfry.yaml' });
    expect({ ...config, channels: { ...config.channels }, aggregation: { ...config.aggregation } }).toEqual({
      path: '/etc/belfry/belfry.yaml',
      logLevel: 'info',
      database: { url: 'postgres://h/d', listenUrl: 'postgres://h/d', wakeup: 'notify' },
      server: { host: '0.0.0.0', port: 10_000, origins: [], trustProxy: 0, tls: null },
      auth: {
        key: { kind: 'secret', secret: SECRET },
        algorithms: ['HS256'],
        issuer: null,
        audience: null,
        userClaim: 'sub',
        queryToken: false,
        adminClaim: null,
      },
      broker: { kind: 'memory' },
      people: null,
      blocks: null,
      mutes: null,
      threadMutes: null,
      sources: [],
      channels: {},
      presence: { read: 'none' },
      aggregation: {
        like: { windowMs: 5_000, early: [10, 100, 1000], groupForMs: 43_200_000, sample: 8 },
        repost: { windowMs: 5_000, early: [10, 100, 1000], groupForMs: 43_200_000, sample: 8 },
        follow: { windowMs: 5_000, early: [10, 100, 1000], groupForMs: 43_200_000, sample: 8 },
      },
      limits: {
        connectionsPerUser: 10,
        connectionsPerAddress: 200,
        handshakesPerSecond: 100,
        httpPerMinute: 600,
        messagesPerSecond: 20,
        messageBytes: 16_384,
        subscriptions: 200,
        sendQueueBytes: 1_048_576,
      },
      deadLetters: { later: 'follow' },
      retention: { outboxMs: 604_800_000, inboxMs: 7_776_000_000, channelsMs: 3_600_000 },
      rollout: 100,
      extensions: null,
      templates: {},
      warnings: [],
    } satisfies Config);
  });

  it('may be JSON, and gives no inherited names to clients', () => {
    const text = JSON.stringify({
      $schema: 'belfry.schema.json',
      version: 1,
      database: { url: 'postgresql://h/d' },
      auth: { secret: SECRET },
      sources: [],
    });
    const { channels, aggregation } = parseConfig(text, {});
    expect(channels['constructor']).toBeUndefined();
    expect(aggregation['toString']).toBeUndefined();
  });

  it('lets an aggregation be tuned, added and taken out', () => {
    const { aggregation } = parseConfig(
      `${MINIMAL}aggregation: { like: { window: 250ms }, reaction: {}, follow: false }`,
      {},
    );
    expect(Object.keys(aggregation).sort()).toEqual(['like', 'reaction', 'repost']);
    expect(aggregation['like']).toMatchObject({ windowMs: 250, sample: 8 });
  });
});

/** Two sources that count, the second with a field of the same name. */
function counting(first: string, second: string): string {
  const one = (name: string, fields: string): string =>
    `  - { name: ${name}, type: like, table: t, key: [id], ${fields} }`;
  return `${BASE}${AUTH}sources:\n${one('a', first)}\n${one('b', second)}\n`;
}
const counted = (event: string, channel = 'post:{p}', object = '{ kind: post, id: p }'): string =>
  `object: ${object}, channels: ["${channel}"], counter: { event: ${event}, field: n }`;

describe('the fields of counters', () => {
  it('are one for each source that counts the same things for the same channels, whose state would be their sum', () => {
    const text =
      'is counted in post:{id} by sources[0] too, which would tell another number: give each a field of its own';
    const found = { 'sources[1].counter.field': `n of each post ${text} (line 6)` };
    expect(problemsOf(counting(counted('e'), counted('f')))).toEqual(found);
    expect(problemsOf(counting(counted('e'), counted('e', 'post:{q}', '{ kind: post, id: q }')))).toEqual(found);
    expect(problemsOf(counting(`${counted('e')}, colour: red`, counted('f')))).toMatchObject(found);
  });

  it.each([
    ['another kind of object', counted('f', 'post:{p}', '{ kind: photo, id: p }')],
    ['channels of another kind', counted('f', 'side:{p}')],
    ['channels that are not the object', counted('f', 'post:{q}')],
    ['the channel of everybody, which has no state', counted('f', 'all')],
  ])('may be the same for %s', (_, second) => {
    expect(problemsOf(counting(counted('e'), second))).toEqual({});
  });

  it.each([
    ['the actor', '', 'user_id', /^user_id is the actor in the same push/],
    ['the object', '', 'post_id', /^post_id is the object in the same push/],
    ['the included columns by the type', 'include: [a],', 'like', /^like is the included columns in the same push/],
    ['the included columns by the subject', 'subject: { kind: c, id: c }, include: [a],', 'c', /^c is the included/],
  ])('are no key of %s', (_, more, field, told) => {
    const text = source(
      `${more} object: { kind: post, id: p }, channels: ["post:{p}"], counter: { event: e, field: ${field} }`,
    );
    const found = problemsOf(text);
    expect(Object.keys(found)).toEqual(['sources[0].counter.field']);
    expect(found['sources[0].counter.field']).toMatch(told);
  });

  it('may have the name of the type where nothing is included', () => {
    expect(problemsOf(source(counted('like').replace('field: n', 'field: like')))).toEqual({});
  });
});

describe('problems', () => {
  it('are told all at once, in the order of the file, with path and line', () => {
    const text = [
      'version: 2',
      'database: { url: "mysql://h/d", wakup: notify }',
      'server: { port: 99999 }',
      'auth: { algorithms: [HS256] }',
      'sources:',
      '  - name: a',
      '    type: like',
      '    table: "public likes"',
      '    key: []',
      '    recipient: { pth: x }',
      '  - { name: b, type: like, table: t, key: [id], counter: { event: e, field: f }, when: "a; b" }',
      'colour: red',
    ].join('\n');
    const found = problemsOf(text);
    expect(Object.keys(found)).toEqual([
      'version',
      'database.url',
      'database.wakup',
      'server.port',
      'auth',
      'sources[0].table',
      'sources[0].key',
      'sources[0].recipient',
      'sources[1].counter',
      'sources[1].when',
      'colour',
    ]);
    expect(found['server.port']).toBe('must be at most 65535 (line 3)');
    expect(found['database.wakup']).toBe('is not a known key (line 2)');
    expect(found['sources[0].key']).toBe('is empty (line 9)');
  });

  it('of one place are told together, and a key that nobody knows hides none', () => {
    expect(problemsOf('version: 1\ndatabase: { url: "postgres://${AA}:${BB}@h/d" }\nsources: []')).toMatchObject({
      'database.url': '${AA} is not set in the environment; ${BB} is not set in the environment (line 2)',
    });
    const rest = 'colour: red, key: [id, id], when: "a; b", counter: { event: e, field: f }';
    const text = `${BASE}auth: { secret: x, colour: red, algorithms: [RS256] }
sources:
  - { name: s, type: like, table: t, key: [id] }
  - { name: s, type: like, table: t, ${rest} }`;
    const found = problemsOf(text);
    expect(Object.keys(found)).toEqual([
      'auth.colour',
      'auth.algorithms[0]',
      'sources[1].name',
      'sources[1].colour',
      'sources[1].key[1]',
      'sources[1].when',
      'sources[1].counter',
    ]);
    expect(found['sources[1].counter']).toBe(
      'needs object: what is counted; needs channels: where the count is pushed (line 6)',
    );
  });

  it('of what is seen together are hidden by no wrong value', () => {
    const text = `${BASE}auth: { secret: 5, jwksUri: "https://x/y", userClaim: 6 }
server: { port: x, origins: ["https://a.example", 7, "https://a.example"] }
people: { table: 8, active: "a; b" }
blocks: { table: 8, from: a, to: a, when: "a; b" }
sources:
  - { name: s, type: like, table: t, key: [id, 9, id], capture: never, counter: { event: 4, field: f }, channels: [5, "p:{"] }
  - name: s
    type: like
    table: t
    key: [id]
    counter: { event: e, field: f }
    object: { kind: 5, id: i }
    recipient: { path: [{ table: t, match: m, take: k }] }
  - { name: b, type: like, table: t, key: [id], capture: never, visible: "select :me", actor: 5 }
channels: { p: { read: members, publish: 5, recheck: [zzz, 5, s] } }
presence: { read: "select :id" }
aggregation: { like: { window: x, groupFor: 0s, early: [10, 1, 10] } }
retention: { outbox: 0s, inbox: 5 }`;
    expect(Object.keys(problemsOf(text))).toEqual([
      ...['auth', 'auth.secret', 'auth.userClaim'],
      ...['server.port', 'server.origins', 'server.origins[1]'],
      ...['people.table', 'people.active'],
      ...['blocks.table', 'blocks.to', 'blocks.when'],
      ...['key[1]', 'key[2]', 'capture', 'counter', 'counter.event'].map((key) => `sources[0].${key}`),
      ...['sources[0].channels[0]', 'sources[0].channels[1]'],
      ...['name', 'counter', 'object.kind', 'recipient.path[0].from'].map((key) => `sources[1].${key}`),
      ...['capture', 'visible', 'actor'].map((key) => `sources[2].${key}`),
      ...['read', 'publish', 'recheck[0]', 'recheck[1]'].map((key) => `channels.p.${key}`),
      'presence.read',
      ...['window', 'groupFor', 'early', 'early[1]'].map((key) => `aggregation.like.${key}`),
      ...['retention.outbox', 'retention.inbox'],
    ]);
  });

  it('are none that another makes: what is there and wrong is not missing', () => {
    const text = `${BASE}auth: { secret: 5 }
sources:
  - { name: s, type: like, table: t, key: [id], object: { kind: 5, id: i }, channels: p, counter: { event: e, field: f } }
  - { name: 5, type: like, table: t, key: [id] }
channels: { p: { recheck: [perhaps_the_second] } }`;
    expect(Object.keys(problemsOf(text))).toEqual([
      'auth.secret',
      'sources[0].object.kind',
      'sources[0].channels',
      'sources[1].name',
    ]);
  });

  it('of an empty file name what must be there', () => {
    expect(Object.keys(problemsOf('')).sort()).toEqual(['auth', 'database', 'sources', 'the file', 'version']);
  });

  it('of a file that is no mapping are one: what the environment supplies is not missing', () => {
    const env = { DATABASE_URL: 'postgres://h/d', JWT_SECRET: SECRET };
    for (const text of ['- 1', '[]', 'x'])
      expect(problemsOf(text, env)).toEqual({
        'the file': expect.stringMatching(
          /^must be a mapping of keys that begins with version: 1, not (a list|this text)/,
        ) as string,
      });
    expect(Object.keys(problemsOf('', env)).sort()).toEqual(['sources', 'version']);
  });

  it('of YAML itself come with their line', () => {
    expect(() => parseConfig('a: [1\nb: 2', {}, { path: 'x.yaml' })).toThrow(/^x\.yaml is not YAML\n.*line 2/);
    expect(() => parseConfig('a: 1\na: 2', {})).toThrow(/unique/);
  });

  it('never show a secret', () => {
    const text =
      'version: 1\ndatabase: { url: "hunter2" }\nauth: { secret: [hunter2], jwksUri: hunter2 }\nbroker: hunter2\nsources: []';
    expect(() => parseConfig(text, {})).toThrow(/database\.url[\s\S]*auth\.secret[\s\S]*broker/);
    expect(() => parseConfig(text, {})).not.toThrow(/hunter2/);
  });

  it('of a union speak of the branch that was meant', () => {
    expect(problemsOf(source('recipient: { path: [{ from: a, table: t, take: b }] }'))).toEqual({
      'sources[0].recipient.path[0].match': 'is missing (text) (line 5)',
    });
    expect(problemsOf(source('actor: 5'))['sources[0].actor']).toMatch(/^is not a column or/);
  });

  it.each(RESERVED_EVENTS)('of a counter whose event is %s, which belongs to the protocol', (event) => {
    expect(problemsOf(source(counted(event)))).toEqual({
      'sources[0].counter.event': `${event} belongs to the protocol; take another name (line 5)`,
    });
  });

  it.each([
    ['name twice', `${source('actor: a')}  - { name: s, type: like, table: t, key: [id] }`, 'sources[1].name'],
    ['counter without object', source('channels: ["p:{id}"], counter: { event: e, field: f }'), 'sources[0].counter'],
    ['visible without object', source('visible: "select 1"'), 'sources[0].visible'],
    [
      'visible with another parameter',
      source('object: { kind: p, id: i }, visible: "select :id"'),
      'sources[0].visible',
    ],
    ['when with a parameter', source('when: "a = :user"'), 'sources[0].when'],
    ['a query that is none', source('recipient: { query: "delete from users" }'), 'sources[0].recipient.query'],
    [
      'first hop without from',
      source('recipient: { path: [{ table: t, match: m, take: k }] }'),
      'sources[0].recipient.path[0].from',
    ],
    [
      'a hop that starts elsewhere',
      source(
        'recipient: { path: [{ from: f, table: t, match: m, take: k }, { from: z, table: t, match: m, take: k }] }',
      ),
      'sources[0].recipient.path[1].from',
    ],
    ['a template without its brace', source('channels: ["post:{id"]'), 'sources[0].channels[0]'],
    ['a template with a column as its kind', source('channels: ["{kind}:1"]'), 'sources[0].channels[0]'],
    ['a column twice in the key', source('include: [a, a]'), 'sources[0].include[1]'],
    ['a long column', source(`actor: ${'x'.repeat(64)}`), 'sources[0].actor'],
    ['recheck of an unknown source', `${MINIMAL}channels: { p: { recheck: [nope] } }`, 'channels.p.recheck[0]'],
    ['an access that is a word', `${MINIMAL}channels: { p: { read: members } }`, 'channels.p.read'],
    ['presence with a wrong parameter', `${MINIMAL}presence: { read: "select :id" }`, 'presence.read'],
    ['early that does not ascend', `${MINIMAL}aggregation: { like: { early: [10, 10] } }`, 'aggregation.like.early'],
    ['a duration without unit', `${MINIMAL}retention: { outbox: 7 }`, 'retention.outbox'],
    ['a duration of nothing', `${MINIMAL}retention: { outbox: 0s }`, 'retention.outbox'],
    ['an origin with a path', `${MINIMAL}server: { origins: ["https://a.example/x"] }`, 'server.origins[0]'],
    ['an unknown broker', `${MINIMAL}broker: kafka://h`, 'broker'],
    ['rollout above 100', `${MINIMAL}rollout: 101`, 'rollout'],
    [
      'HS with a public key',
      `${BASE}auth: { jwksUri: "https://x/y", algorithms: [HS256] }\nsources: []`,
      'auth.algorithms[0]',
    ],
    ['RS with a secret', `${BASE}auth: { secret: x, algorithms: [HS256, RS256] }\nsources: []`, 'auth.algorithms[1]'],
    ['alg none', `${BASE}auth: { secret: x, algorithms: [none] }\nsources: []`, 'auth.algorithms[0]'],
    ['two keys', `${BASE}auth: { secret: x, jwksUri: "https://x/y" }\nsources: []`, 'auth'],
    ['an empty issuer', `${BASE}auth: { secret: x, issuer: "" }\nsources: []`, 'auth.issuer'],
    ['an empty adminClaim', `${BASE}auth: { secret: x, adminClaim: {} }\nsources: []`, 'auth.adminClaim'],
    ['a missing key file', `${BASE}auth: { publicKey: nope.pem }\nsources: []`, 'auth.publicKey'],
  ])('%s', (_name, text, path) => {
    expect(Object.keys(problemsOf(text))).toEqual([path]);
  });
});

describe('the environment', () => {
  it('fills in references, with defaults, in texts, numbers and words', () => {
    const text =
      `${BASE}auth: { secret: "\${S}", issuer: "https://\${HOST:-a.example}/\${PATH_PART}", queryToken: "\${Q}" }
server: { port: "\${P:-1234}", host: \${H:-127.0.0.1} }
sources: []`.replace('host: ${H:-127.0.0.1}', 'host: "${H:-127.0.0.1}"');
    const config = parseConfig(text, { S: 'abc', PATH_PART: '', Q: 'true', P: '' });
    expect(config.auth.key).toEqual({ kind: 'secret', secret: 'abc' });
    expect(config.auth.issuer).toBe('https://a.example/');
    expect(config.auth.queryToken).toBe(true);
    expect(config.server).toMatchObject({ port: 1234, host: '127.0.0.1' });
  });

  it('cannot change the structure, nor be replaced twice', () => {
    const config = parseConfig(`${BASE}auth: { secret: "\${S}" }\nsources: []`, {
      S: 'x", queryToken: true, y: "${HOME}',
    });
    expect(config.auth.key).toEqual({ kind: 'secret', secret: 'x", queryToken: true, y: "${HOME}' });
    expect(config.auth.queryToken).toBe(false);
  });

  it('must have what is referred to; $${ is a way to write ${', () => {
    const text = `${BASE}auth: { secret: "\${A}\${B}", userClaim: "$\${C}", issuer: "\${not a name}" }\nsources: []`;
    expect(Object.keys(problemsOf(text))).toEqual(['auth.secret', 'auth.issuer']);
    expect(parseConfig(`${BASE}auth: { secret: s, userClaim: "$\${C}" }\nsources: []`, {}).auth.userClaim).toBe('${C}');
  });

  it('wins over the file, also where the file is silent or refers to something missing', () => {
    const env = {
      DATABASE_URL: 'postgres://e/d',
      JWT_SECRET: 'x'.repeat(32),
      PORT: '81',
      REDIS_URL: 'redis://r',
      LOG_LEVEL: 'DEBUG',
    };
    const silent = parseConfig('version: 1\nsources: []', env);
    expect(silent.database.url).toBe('postgres://e/d');
    expect(silent.auth.key).toEqual({ kind: 'secret', secret: 'x'.repeat(32) });
    expect(silent.server.port).toBe(81);
    expect(silent.broker).toEqual({ kind: 'redis', url: 'redis://r' });
    expect(silent.logLevel).toBe('debug');
    const missing =
      'version: 1\ndatabase: { url: "${OTHER}", wakeup: poll }\nauth: { secret: "${OTHER}" }\nsources: []';
    expect(parseConfig(missing, env).database).toEqual({
      url: 'postgres://e/d',
      listenUrl: 'postgres://e/d',
      wakeup: 'poll',
    });
  });

  it('is not replaced itself, and its values are checked as those of the file', () => {
    expect(parseConfig(MINIMAL, { DATABASE_URL: 'postgres://u:${X}@h/d' }).database.url).toBe('postgres://u:${X}@h/d');
    expect(problemsOf(MINIMAL, { PORT: 'http', LOG_LEVEL: 'loud' })).toEqual({
      LOG_LEVEL: 'must be one of trace, debug, info, warn, error, fatal, silent',
      'server.port': 'must be a number, not this text (from PORT)',
    });
  });

  it('cannot turn a public key into a secret', () => {
    const config = parseConfig(`${BASE}auth: { jwksUri: "https://x/y" }\nsources: []`, { JWT_SECRET: SECRET });
    expect(config.auth.key.kind).toBe('jwks');
    expect(config.auth.algorithms).toEqual(['RS256', 'ES256']);
    expect(config.warnings.join()).toMatch(/JWT_SECRET/);
  });

  it('with both brokers leaves the choice to the file', () => {
    const both = { REDIS_URL: 'redis://r', NATS_URL: 'nats://n' };
    expect(problemsOf(MINIMAL, both)).toHaveProperty('broker');
    expect(parseConfig(`${MINIMAL}broker: nats://other`, both).broker).toEqual({ kind: 'nats', url: 'nats://n' });
    expect(parseConfig(`${MINIMAL}broker: redis://other`, both).broker).toEqual({ kind: 'redis', url: 'redis://r' });
  });
});

describe('keys', () => {
  const folder = mkdtempSync(join(tmpdir(), 'belfry-config-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const withKey = (name: string, pem: string | Buffer): string => {
    writeFileSync(join(folder, name), pem);
    return `${BASE}auth: { publicKey: ${name} }\nsources: []`;
  };
  const path = join(folder, 'belfry.yaml');

  it('decide the algorithms', () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' });
    const ec = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ type: 'spki', format: 'pem' });
    expect(parseConfig(withKey('rsa.pem', rsa), {}, { path }).auth.algorithms).toEqual(['RS256']);
    expect(parseConfig(withKey('ec.pem', ec), {}, { path }).auth.algorithms).toEqual(['ES384']);
    const wrong = withKey('ec.pem', ec).replace('ec.pem', 'ec.pem, algorithms: [ES256]');
    expect(() => parseConfig(wrong, {}, { path })).toThrow(/algorithms\[0\]: ES256 does not fit/);
  });

  it('that are private, of another kind or none are refused', () => {
    const ed = generateKeyPairSync('ed25519');
    const keys = {
      private: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }),
      ed25519: ed.publicKey.export({ type: 'spki', format: 'pem' }),
      'not a PEM': 'hello',
    };
    for (const [word, pem] of Object.entries(keys)) {
      expect(() => parseConfig(withKey('k.pem', pem), {}, { path })).toThrow(new RegExp(`auth\\.publicKey: .*${word}`));
    }
  });
});

describe('warnings', () => {
  it('tell of what is allowed but hardly meant', () => {
    const text = `${BASE}auth: { secret: short }\nsources:\n  - { name: s, type: like, table: t, key: [id] }
  - { name: c, type: like, table: t, key: [id], channels: ["nope:{id}", all] }`;
    const { warnings } = parseConfig(text, {});
    expect(warnings).toHaveLength(6);
    const words = ['32 bytes', 'issuer', 'audience', 'sources[0]', 'kind nope', 'sources[1] (c) has channels, but'];
    for (const word of words) expect(warnings.join('\n')).toContain(word);
  });

  it('tell of channels that hear nothing, for want of a counter and of columns', () => {
    const warningsOf = (fields: string): readonly string[] =>
      parseConfig(`${source(`channels: [all], object: { kind: p, id: p }, ${fields}`)}`, {}).warnings;
    expect(warningsOf('recipient: r')).toEqual([
      'sources[0] (s) has channels, but its channels hear nothing: give it a counter or include.',
    ]);
    expect(warningsOf('counter: { event: e, field: f }')).toEqual([]);
    expect(warningsOf('include: [a]')).toEqual([]);
  });
});

describe('mappedColumns', () => {
  it('names each column once, in a stable order', () => {
    const columns = (fields: string): readonly string[] => {
      const [first] = parseConfig(source(fields), {}).sources;
      return first === undefined ? [] : mappedColumns(first);
    };
    expect(
      columns(
        'actor: a, object: { kind: p, id: o }, subject: { kind: s, id: sid }, recipient: r, channels: ["p:{c}"], include: [o, i]',
      ),
    ).toEqual(['id', 'a', 'o', 'sid', 'r', 'c', 'i']);
    const hop = '{ from: f, table: t, match: m, take: k }';
    expect(
      columns(`actor: { path: [${hop}] }, recipient: { path: [${hop}, { table: t, match: m, take: k }] }`),
    ).toEqual(['id', 'f']);
    expect(
      columns(
        `recipient: { query: "select u::text, ':x' from t where g = :g and h = :Hh and g2 = :g" }, when: "w", object: { kind: p, id: o }, visible: "select :user"`,
      ),
    ).toEqual(['id', 'o', 'g', 'Hh']);
  });
});

describe('files', () => {
  it('that are missing are answered with what to do', async () => {
    await expect(loadConfig('/nowhere/belfry.yaml', {})).rejects.toThrow(
      /^there is no \/nowhere\/belfry\.yaml: .*belfry init.*docs/,
    );
    await expect(loadConfig('/', {})).rejects.toThrow(/can't be read/);
  });

  it('of the documentation all parse', () => {
    const text = readFileSync(resolve('docs/configuration.md'), 'utf8');
    const examples = [...text.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, example = '']) => example);
    expect(examples.length).toBeGreaterThan(8);
    const env = { DATABASE_URL: 'postgres://h/d', JWT_SECRET: SECRET };
    for (const example of examples) {
      const missing = ['version: 1', 'sources: []'].filter((line) => !example.includes(line.split(' ')[0] ?? ''));
      const whole = `${missing.join('\n')}\n${example}`;
      const { warnings } = parseConfig(whole, example.includes('jwksUri') ? { DATABASE_URL: 'postgres://h/d' } : env);
      expect(warnings.filter((warning) => /kind|recipient|hear/.test(warning))).toEqual([]);
    }
  });
});
