/**
 * The shape of the config file, with every default, bound and description; `belfry.schema.json` is generated from here.
 *
 * Only shapes: what needs a look at two places at once is checked in resolve.ts.
 */

import * as z from 'zod';
import { access, column, duration, flag, integer, percent, table, text, word } from './fields.js';
import { blocks, mutes, threadMutes } from './relations.js';

const ALGORITHMS = [
  ...(['HS256', 'HS384', 'HS512'] as const),
  ...(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512'] as const),
] as const;

const database = z
  .strictObject({
    url: text('postgres://user:password@host:port/database. DATABASE_URL wins over it.'),
    listenUrl: text('A direct connection for LISTEN, where `url` goes through a pooler. Default: `url`.').optional(),
    wakeup: z
      .enum(['notify', 'poll'])
      .default('notify')
      .describe(
        'poll never uses NOTIFY: for two-phase commit, and where only a transaction-mode pooler is at hand. Wakes within a second.',
      ),
  })
  .describe('The database of the application; schema belfry lives in it.');

const server = z
  .strictObject({
    host: text('The address to listen on.').default('0.0.0.0'),
    port: integer(0, 65_535, 10_000, 'The port; 0 takes a free one. PORT wins over it.'),
    origins: z
      .array(
        z
          .string()
          .regex(/^https?:\/\/[^/\s]+$/, 'is not an origin such as https://app.example (no path, no slash at the end)'),
      )
      .default([])
      .describe("Exact origins that browsers may come from, besides the server's own. Also for CORS."),
    trustProxy: integer(
      0,
      16,
      0,
      'How many proxies stand in front and append to X-Forwarded-For; 0 ignores the header.',
    ),
    tls: z
      .strictObject({ cert: text('PEM file, the whole chain.'), key: text('PEM file.') })
      .optional()
      .describe('Only without a proxy that ends TLS.'),
  })
  .describe('Where people connect.');

const auth = z
  .strictObject({
    secret: text(
      'For HS256, HS384, HS512: the key that the application signs with, 32 bytes or more. JWT_SECRET wins over it.',
    ).optional(),
    publicKey: text('PEM file with an RSA or EC public key.').optional(),
    jwksUri: z
      .string()
      .regex(/^https?:\/\/\S+$/, 'is not an http(s) URL')
      .optional()
      .describe('Where the identity provider publishes its keys.'),
    algorithms: z
      .array(z.enum(ALGORITHMS))
      .min(1, 'is empty')
      .optional()
      .describe(
        'What a token may be signed with. Default: HS256 with a secret, what fits a publicKey, RS256 and ES256 with a jwksUri.',
      ),
    issuer: text('The `iss` that a token must have; null accepts any.').nullable().optional(),
    audience: z
      .union([text('One.'), z.array(text('One of several.')).min(1, 'is empty')], {
        error: 'is not text or a list of texts',
      })
      .nullable()
      .optional()
      .describe('The `aud` that a token must have (one of a list); null accepts any.'),
    userClaim: text('The claim with the user id.').default('sub'),
    queryToken: flag(false, 'Accept ?token=. Such tokens end up in the logs of proxies.'),
    adminClaim: z
      .record(
        z.string(),
        z.union([z.string(), z.number(), z.boolean()], { error: 'is not text, a number, true or false' }),
      )
      .refine((claims) => Object.keys(claims).length > 0, 'is empty: everybody would be an admin')
      .optional()
      .describe('The claims that make an admin, who may read /metrics. Default: nobody is one.'),
  })
  .describe('How tokens are checked: exactly one of secret, publicKey, jwksUri.');

const people = z
  .strictObject({
    table: table('The table of users.'),
    id: column('Their id.').default('id'),
    name: column('For messages: "Ada liked your post". Default: Someone.').optional(),
    enabled: column('Boolean: this person wants notifications.').optional(),
    active: text('SQL over the row: not deleted, not suspended.').optional(),
    locale: column('For templates.').optional(),
  })
  .describe('Who people are. Without it Belfry knows ids only.');

const path = z
  .array(
    z.strictObject({
      from: column('Column to start from; after the first hop the `take` before, and may be left out.').optional(),
      table: table('Table to look in.'),
      match: column('Its column that equals the value.'),
      take: column('Its column to take.'),
    }),
  )
  .min(1, 'is empty')
  .max(8, 'has more than 8 hops')
  .describe('From the row over other tables to a user id.');

const actor = z.union([column('A column of the table.'), z.strictObject({ path })], {
  error: 'is not a column or { path: [...] }',
});

const recipient = z.union(
  [
    column('A column of the table.'),
    z.strictObject({ path }),
    z.strictObject({ query: text('SQL with :column parameters that gives user ids.') }),
    z.strictObject({
      list: column('A column with several values: an array or JSON. Each is a user id, or where `path` starts from.'),
      at: text('SQL/JSON path to the values, e.g. $.mentions[*].user_id.').default('$[*]'),
      path: path.optional(),
    }),
    z.strictObject({
      mentions: column('A column with a text: each @name in it is where `path` starts from.'),
      path,
    }),
  ],
  {
    error:
      'is not a column, { path: [...] }, { query: "select ..." }, { list: column } or { mentions: column, path: [...] }',
  },
);

const time = z.union(
  [
    column('A column.'),
    z.strictObject({
      column: column('A column.'),
      zone: text('What a time without a zone is meant in, e.g. Europe/Berlin.').default('UTC'),
    }),
  ],
  { error: 'is not a column or { column, zone }' },
);

const thing = (description: string) =>
  z
    .strictObject({
      kind: word('kind', 'Gives <kind>_id in the notification, e.g. post.'),
      id: column('The column with its id.'),
    })
    .describe(description);

const sourceSchema = z.strictObject({
  name: word('name of a source', 'Unique; stands in the outbox and in logs. Renaming a source starts a new one.'),
  type: word('type', 'like, comment, follow, message, mention, friend_request, job_application, system, or your own.'),
  table: table("The application's table."),
  key: z.array(column('Column.')).min(1, 'is empty').describe('The natural key; it needs no primary key or index.'),
  actor: actor.optional().describe('Who did it: a column, or a path. Without one nobody did it.'),
  object: thing('What it was done to.').optional(),
  subject: thing('The thing itself, e.g. the comment.').optional(),
  recipient: recipient
    .optional()
    .describe('Who hears of it: a column, a path, a query, a list or @names. Without one only channels do.'),
  channels: z
    .array(text('e.g. post:{post_id}'))
    .default([])
    .describe('Channels that hear of it; {column} is replaced.'),
  counter: z
    .strictObject({
      event: word('name of an event', 'Name of the push, e.g. like_update.'),
      field: word('name of a field', 'Name of the count in it, e.g. likes_count.'),
    })
    .optional()
    .describe('Keeps the exact number of rows per object and pushes it to the channels.'),
  include: z.array(column('Column.')).default([]).describe('Columns that the channel event carries.'),
  when: text('SQL over the row: it counts while this holds, e.g. "deleted_at is null".').optional(),
  time: time
    .optional()
    .describe('When the row came to be, as the row says: events that were lost can be made anew from the table.'),
  visible: text('SQL with :user and :object_id that returns a row if this person may see the object.').optional(),
  capture: z
    .enum(['statement', 'row'])
    .default('statement')
    .describe('row only for subscribers of logical replication, where statement triggers do not fire; slower.'),
  onError: z
    .enum(['available', 'strict'])
    .default('available')
    .describe(
      'available: no write fails or waits because of Belfry, a lost event is recorded. strict: no write without its event.',
    ),
});

const channel = z.strictObject({
  read: access('Who may subscribe: public, none, or SQL with :user and :id that returns a row.', 'none'),
  publish: access('Who may publish: public, none, or SQL with :user and :id that returns a row.', 'none'),
  recheck: z
    .array(text('Name of a source.'))
    .default([])
    .describe('Sources whose events re-check open subscriptions within a second; else that happens every minute.'),
});

const aggregation = z.union(
  [
    z.strictObject({
      window: duration('5s', 'At most one update in place per window.'),
      early: z
        .array(z.int().min(2).max(1_000_000_000))
        .default([10, 100, 1000])
        .describe('Numbers of distinct actors at which it does not wait for the window.'),
      groupFor: duration('12h', 'A group closes this long after its first event.'),
      sample: integer(1, 100, 8, 'How many of the newest actors a notification shows.'),
    }),
    z.literal(false).describe('Not grouped.'),
  ],
  { error: 'is not { window, early, groupFor, sample } or false' },
);

const limits = z
  .strictObject({
    connectionsPerUser: integer(1, 10_000, 10, 'The newest above it is refused (4409).'),
    connectionsPerAddress: integer(1, 1_000_000, 200, 'Connections of one address.'),
    handshakesPerSecond: integer(1, 1_000_000, 100, 'Of one address.'),
    httpPerMinute: integer(1, 100_000_000, 600, 'Requests of one address.'),
    messagesPerSecond: integer(1, 1_000_000, 20, 'Of one connection; above it `rate_limited`, far above it 4429.'),
    messageBytes: integer(256, 1_048_576, 16_384, 'The longest frame of a client.'),
    subscriptions: integer(1, 100_000, 200, 'Channels of one connection.'),
    sendQueueBytes: integer(
      16_384,
      268_435_456,
      1_048_576,
      'What may wait for a slow reader before it is closed (4508).',
    ),
  })
  .describe('Bounds that keep one client from costing the others.');

const retention = z
  .strictObject({
    outbox: duration('7d', 'Events, for replay. Never shorter than what is unread.'),
    inbox: duration('90d', 'Notifications.'),
    channels: duration('1h', 'Events of channels, for resume.'),
  })
  .describe('How long things are kept.');

const deadLetters = z
  .strictObject({
    later: z
      .enum(['follow', 'wait'])
      .default('follow')
      .describe(
        'What becomes of later events of a row whose earlier event could not be processed. follow: they go on. wait: they are set aside behind it, and follow in their order once it has been retried or discarded.',
      ),
  })
  .describe('Events that fail every time are set aside.');

export const configSchema = z
  .strictObject({
    $schema: z.string().optional().describe('For editors.'),
    version: z.literal(1).describe('The version of this format.'),
    database,
    server: server.prefault({}),
    auth,
    broker: z
      .string()
      .regex(/^(?:memory|(?:rediss?|nats):\/\/\S+)$/, 'is not memory, redis://... or nats://...')
      .default('memory')
      .describe(
        'memory for one process; redis://... or nats://... between machines. REDIS_URL and NATS_URL win over it.',
      ),
    people: people.optional(),
    blocks: blocks.optional(),
    mutes: mutes.optional(),
    threadMutes: threadMutes.optional(),
    sources: z.array(sourceSchema).describe('Which writes become events, and who hears of them.'),
    channels: z
      .record(word('kind of channel', 'Kind.'), channel)
      .default({})
      .describe('By kind: who may read and publish. A kind that is not named is forbidden.'),
    presence: z
      .strictObject({
        read: access(
          'Who sees whether somebody is online: public, none, or SQL with :user and :other that returns a row.',
          'none',
        ),
      })
      .prefault({}),
    aggregation: z
      .record(word('type', 'Type.'), aggregation)
      .default({})
      .describe('Types that are grouped, besides like, repost and follow; false takes one of these out.'),
    limits: limits.prefault({}),
    retention: retention.prefault({}),
    deadLetters: deadLetters.prefault({}),
    rollout: percent(100, 'Percent of users who get sessions, by a stable hash; the others are told to poll.'),
    extensions: text('Module with handlers.').optional(),
    templates: text('Folder with message templates: de.yaml, pt-BR.yaml.').optional(),
  })
  .describe('Configuration of Belfry.');

export type RawConfig = z.output<typeof configSchema>;
export type RawSource = z.output<typeof sourceSchema>;
export type RawAuth = z.output<typeof auth>;
export type RawPath = z.output<typeof path>;
