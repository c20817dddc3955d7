/**
 * The configuration as the rest of Belfry sees it: checked, defaults filled in, durations in milliseconds, file names
 * absolute. What may be left out is `null` here, never `undefined`. Tables and columns stand as they were written.
 */

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

export type Algorithm =
  'HS256' | 'HS384' | 'HS512' | 'RS256' | 'RS384' | 'RS512' | 'PS256' | 'PS384' | 'PS512' | 'ES256' | 'ES384' | 'ES512';

export interface Config {
  /** The file it came from, as it was named. */
  readonly path: string;
  readonly logLevel: LogLevel;
  readonly database: {
    readonly url: string;
    /** A direct connection for LISTEN; the same as `url` unless that goes through a pooler. */
    readonly listenUrl: string;
    readonly wakeup: 'notify' | 'poll';
  };
  readonly server: ServerConfig;
  readonly auth: AuthConfig;
  readonly broker: BrokerConfig;
  readonly people: PeopleConfig | null;
  readonly blocks: RelationConfig | null;
  readonly mutes: RelationConfig | null;
  readonly threadMutes: ThreadMutesConfig | null;
  /** In the order of the file; names are unique. */
  readonly sources: readonly Source[];
  /** By kind. A kind that is not here is forbidden. */
  readonly channels: Readonly<Record<string, ChannelRule>>;
  readonly presence: { readonly read: Access };
  /** By type. A type that stands here is grouped; every other event is a notification of its own. */
  readonly aggregation: Readonly<Record<string, Aggregation>>;
  readonly limits: Limits;
  readonly retention: { readonly outboxMs: number; readonly inboxMs: number; readonly channelsMs: number };
  readonly deadLetters: {
    /** What becomes of later events of a row whose earlier one is a dead letter. */
    readonly later: 'follow' | 'wait';
  };
  /** Percent of users who get sessions. */
  readonly rollout: number;
  /** Absolute file name of the module with handlers. */
  readonly extensions: string | null;
  /** Message templates by locale, besides what is built in; empty without a folder of them. */
  readonly templates: Templates;
  /** What is allowed but probably not meant, one sentence each; to be logged at the start. */
  readonly warnings: readonly string[];
}

/** A text, or one for each plural form (Intl.PluralRules) that differs from `other`. */
export type PluralText = string | Readonly<Record<string, string>>;

/** What a file of templates says; null where it leaves something to the next one (`de-AT`, `de`, English). */
export interface LocaleTemplates {
  /** For people without a name. */
  readonly someone: string | null;
  /** {first} {second}: exactly two people. */
  readonly two: string | null;
  /** {first} {count}: one and so many others; the form is that of the others. */
  readonly more: PluralText | null;
  /** Nouns by kind of object. */
  readonly objects: ReadonlyMap<string, string>;
  /** Sentences by type: {who} {object} {count} {events}; the form is that of the people. */
  readonly types: ReadonlyMap<string, PluralText>;
  /** For types that are not named; {type} besides. */
  readonly other: PluralText | null;
}

/** By canonical locale. */
export type Templates = Readonly<Record<string, LocaleTemplates>>;

export interface ServerConfig {
  readonly host: string;
  readonly port: number;
  /** Exact origins that browsers may come from, besides the server's own. */
  readonly origins: readonly string[];
  /** How many proxies stand in front: the address is taken that many places from the right of X-Forwarded-For. */
  readonly trustProxy: number;
  /** Absolute file names. */
  readonly tls: { readonly cert: string; readonly key: string } | null;
}

export type AuthKey =
  | { readonly kind: 'secret'; readonly secret: string }
  | { readonly kind: 'publicKey'; readonly file: string; readonly pem: string }
  | { readonly kind: 'jwks'; readonly uri: string };

export interface AuthConfig {
  readonly key: AuthKey;
  /** Never empty; all of them fit the kind of key. */
  readonly algorithms: readonly Algorithm[];
  /** Never an empty string, which jsonwebtoken takes for "do not check". */
  readonly issuer: string | null;
  readonly audience: readonly string[] | null;
  readonly userClaim: string;
  /** Whether `?token=` is accepted. */
  readonly queryToken: boolean;
  /** All of these claims make an admin; null: nobody is one. */
  readonly adminClaim: Readonly<Record<string, string | number | boolean>> | null;
}

export type BrokerConfig =
  | { readonly kind: 'memory' }
  | { readonly kind: 'redis'; readonly url: string }
  | { readonly kind: 'nats'; readonly url: string };

export interface PeopleConfig {
  readonly table: string;
  readonly id: string;
  readonly name: string | null;
  /** Boolean column: notifications on. */
  readonly enabled: string | null;
  /** SQL over the row: not deleted, not suspended. */
  readonly active: string | null;
  readonly locale: string | null;
}

/** Blocks or mutes: a row stands between two people. */
export interface RelationConfig {
  readonly table: string;
  readonly from: string;
  readonly to: string;
  /** Column with the time at which it ends. */
  readonly until: string | null;
  /** SQL over the row; it counts while it holds. */
  readonly when: string | null;
  /** one: only what `to` does is kept from `from`. */
  readonly direction: 'both' | 'one';
}

export interface ThreadMutesConfig {
  readonly table: string;
  readonly user: string;
  /** The kind of all rows; where the table has a column of this name, the column with the kind. */
  readonly kind: string;
  readonly id: string;
  readonly until: string | null;
  readonly when: string | null;
}

/** From the row whose column `from` holds a value to the row of `table` where `match` equals it, whose `take` is the result. */
export interface PathHop {
  /** In the first hop a column of the source (for lists and mentions each value of it); later the `take` before. */
  readonly from: string;
  readonly table: string;
  readonly match: string;
  readonly take: string;
}

export type Actor =
  | { readonly kind: 'column'; readonly column: string }
  | { readonly kind: 'path'; readonly hops: readonly [PathHop, ...PathHop[]] };

export type Recipient =
  | Actor
  /** `sql` gives user ids; `parameters` are the columns it names as `:column`, each once. */
  | { readonly kind: 'query'; readonly sql: string; readonly parameters: readonly string[] }
  /** The values of an array or of JSON, found by an SQL/JSON path; each is a user id or, with hops, leads to one. */
  | { readonly kind: 'list'; readonly column: string; readonly at: string; readonly hops: readonly PathHop[] }
  /** Each @name in a text leads to a user id. */
  | { readonly kind: 'mentions'; readonly column: string; readonly hops: readonly [PathHop, ...PathHop[]] };

/** When a row came to be, by a column of its own. */
export interface TimeColumn {
  readonly column: string;
  /** What a time without a zone is meant in. */
  readonly zone: string;
}

/** An object or subject: `kind` becomes the `<kind>_id` of a notification. */
export interface Thing {
  readonly kind: string;
  /** The column with its id. */
  readonly id: string;
}

/** `post:{post_id}`: `parts` joined, columns replaced by their values, is the name of the channel. */
export interface ChannelTemplate {
  readonly text: string;
  readonly kind: string;
  readonly parts: readonly (string | { readonly column: string })[];
}

export interface Source {
  /** Unique; the outbox's `source`. */
  readonly name: string;
  readonly type: string;
  readonly table: string;
  /** Natural key, never empty. */
  readonly key: readonly string[];
  readonly actor: Actor | null;
  readonly object: Thing | null;
  readonly subject: Thing | null;
  readonly recipient: Recipient | null;
  readonly channels: readonly ChannelTemplate[];
  /** Only with an object and at least one channel. */
  readonly counter: { readonly event: string; readonly field: string } | null;
  /** Columns that the channel event carries. */
  readonly include: readonly string[];
  /** SQL over the row; the row counts while it holds. */
  readonly when: string | null;
  readonly time: TimeColumn | null;
  /** SQL with :user and :object_id; the recipient may see the object if it returns a row. */
  readonly visible: string | null;
  readonly capture: 'statement' | 'row';
  readonly onError: 'available' | 'strict';
}

/** Everybody, nobody, or whoever the SQL returns a row for. */
export type Access = 'public' | 'none' | { readonly sql: string };

export interface ChannelRule {
  /** SQL with :user and :id. */
  readonly read: Access;
  readonly publish: Access;
  /** Names of sources whose events re-check open subscriptions. */
  readonly recheck: readonly string[];
}

export interface Aggregation {
  readonly windowMs: number;
  /** Distinct actors at which a group is pushed before its window ends; ascending. */
  readonly early: readonly number[];
  readonly groupForMs: number;
  /** How many of the newest actors a notification shows. */
  readonly sample: number;
}

export interface Limits {
  readonly connectionsPerUser: number;
  readonly connectionsPerAddress: number;
  readonly handshakesPerSecond: number;
  readonly httpPerMinute: number;
  readonly messagesPerSecond: number;
  readonly messageBytes: number;
  readonly subscriptions: number;
  readonly sendQueueBytes: number;
}
