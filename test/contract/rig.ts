/**
 * For tests written from the contract alone: an application's database, a config file, the built command line, raw
 * sockets and HTTP. Nothing here knows how Belfry is made; what it runs is `belfry` as a process.
 */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import jwt from 'jsonwebtoken';
import type pg from 'pg';
import { WebSocket, type ClientOptions } from 'ws';
import { freePort } from '../support/ports.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { startBelfry, type Program } from '../support/program.js';

export const secret = 'the-secret-of-the-contract-tests-0123456789abcdef';

/** The tables of the contract's example config, and a conversation for channels with rights. */
export const applicationSql = `
  create table public.users (id bigint generated always as identity primary key, full_name text not null,
    notifications_enabled boolean not null default true, locale text, deleted_at timestamptz);
  create table public.posts (id bigint generated always as identity primary key, user_id bigint not null references public.users);
  create table public.likes (user_id bigint not null references public.users, post_id bigint not null references public.posts,
    unique (user_id, post_id));
  create table public.comments (id bigint generated always as identity primary key, post_id bigint not null references public.posts,
    user_id bigint not null references public.users, content text not null, deleted_at timestamptz);
  create table public.follows (follower_id bigint not null, followed_id bigint not null, primary key (follower_id, followed_id));
  create table public.blocks (blocker_id bigint not null, blocked_id bigint not null, primary key (blocker_id, blocked_id));
  create table public.members (conversation_id bigint not null, user_id bigint not null);
`;

export function configText(databaseUrl: string, port: number, more = ''): string {
  return `
version: 1
database: { url: "${databaseUrl}" }
server: { host: 127.0.0.1, port: ${port}, origins: ["https://app.example"] }
auth: { secret: "${secret}", algorithms: [HS256], userClaim: sub, queryToken: true, adminClaim: { role: admin } }
broker: memory
people: { table: public.users, id: id, name: full_name, enabled: notifications_enabled, active: "deleted_at is null", locale: locale }
blocks: { table: public.blocks, from: blocker_id, to: blocked_id }
sources:
  - name: post_like
    type: like
    table: public.likes
    key: [user_id, post_id]
    actor: user_id
    object: { kind: post, id: post_id }
    recipient: { path: [{ from: post_id, table: public.posts, match: id, take: user_id }] }
    channels: ["post:{post_id}"]
    counter: { event: like_update, field: likes_count }
  - name: post_comment
    type: comment
    table: public.comments
    key: [id]
    actor: user_id
    object: { kind: post, id: post_id }
    subject: { kind: comment, id: id }
    recipient: { path: [{ from: post_id, table: public.posts, match: id, take: user_id }] }
    channels: ["post:{post_id}"]
    counter: { event: comment_update, field: comments_count }
    include: [id, content, user_id]
    when: "deleted_at is null"
  - name: user_follow
    type: follow
    table: public.follows
    key: [follower_id, followed_id]
    actor: follower_id
    recipient: followed_id
channels:
  post: { read: public, publish: none }
  room: { read: public, publish: public }
  conversation:
    read: "select 1 from public.members where conversation_id = :id and user_id = :user"
    publish: "select 1 from public.members where conversation_id = :id and user_id = :user"
presence: { read: "select 1 from public.follows where follower_id = :user and followed_id = :other" }
aggregation: { like: { window: 1s, early: [10, 100, 1000], groupFor: 12h, sample: 8 } }
${more === '' ? 'limits: { connectionsPerUser: 4, subscriptions: 6, httpPerMinute: 100000, handshakesPerSecond: 1000, sendQueueBytes: 131072 }' : more}
`;
}

export interface Rig {
  readonly database: TestDatabase;
  readonly db: pg.Pool;
  readonly folder: string;
  readonly configPath: string;
  readonly port: number;
  /** `ws://…/ws` and `http://…`. */
  readonly ws: string;
  readonly http: string;
  readonly program: Program;
  user(name?: string): Promise<string>;
  post(userId: string): Promise<string>;
  stop(): Promise<void>;
}

/** A migrated application with `belfry start` running over it. */
export async function startRig(
  more = '',
  edit: (config: string) => string = (config) => config,
  sql = '',
): Promise<Rig> {
  const database = await createTestDatabase({ template: 'empty', prepare: applicationSql + sql });
  const folder = await mkdtemp(path.join(tmpdir(), 'belfry-contract-'));
  const port = await freePort();
  const configPath = path.join(folder, 'belfry.yaml');
  await writeFile(configPath, edit(configText(database.url, port, more)));
  const migrated = await run(['migrate', '--config', configPath]);
  if (migrated.code !== 0) throw new Error(migrated.stderr);
  const program = startBelfry(['start', '--config', configPath]);
  const http = `http://127.0.0.1:${port}`;
  await until('ready', async () => (await fetch(`${http}/readyz`).catch(() => null))?.status === 200).catch(
    (error: Error) => {
      throw new Error(`${error.message}\n${program.stdout}\n${program.stderr}`);
    },
  );
  const id = async (sql: string, value: string): Promise<string> =>
    (await database.pool.query<{ id: string }>(sql, [value])).rows[0]?.id ?? '';
  return {
    database,
    db: database.pool,
    folder,
    configPath,
    port,
    ws: `ws://127.0.0.1:${port}/ws`,
    http,
    program,
    user: (name = 'Somebody') => id('insert into public.users (full_name) values ($1) returning id', name),
    post: (userId) => id('insert into public.posts (user_id) values ($1) returning id', userId),
    async stop() {
      await program.kill();
      await database.drop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `belfry …` to its end. */
export async function run(args: readonly string[], env: Record<string, string> = {}): Promise<Finished> {
  const program = startBelfry(args, { env });
  const { code } = await program.exit;
  return { code, stdout: program.stdout, stderr: program.stderr };
}

export function token(sub: string, seconds = 3600, claims: object = {}): string {
  return jwt.sign({ sub, ...claims }, secret, { algorithm: 'HS256', expiresIn: seconds });
}

export async function until(what: string, check: () => boolean | Promise<boolean>, ms = 60_000): Promise<void> {
  for (const end = Date.now() + ms; !(await check()); await pause(10)) {
    if (Date.now() > end) throw new Error(`did not happen: ${what}`);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export type Frame = Record<string, unknown> & {
  readonly id?: unknown;
  readonly event?: string;
  readonly seq?: number;
  readonly offset?: number;
  readonly channel?: string;
  readonly data?: Record<string, unknown>;
  readonly ok?: Record<string, unknown>;
  readonly error?: { readonly code: string; readonly message: string; readonly retry: boolean };
};

/** One raw connection: what came in, in order, and what a test waits for. */
export class Raw {
  readonly frames: Frame[] = [];
  closed: { code: number; reason: string } | null = null;
  private at = 0;
  private lastId = 100;
  private readonly woken = new Set<() => void>();

  constructor(readonly socket: WebSocket) {
    socket.on('message', (data: Buffer) => {
      this.frames.push(JSON.parse(data.toString()) as Frame);
      this.wake();
    });
    socket.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() };
      this.wake();
    });
    socket.on('error', () => undefined);
  }

  static async open(url: string, options: ClientOptions & { readonly protocols?: string[] } = {}): Promise<Raw> {
    const socket = new WebSocket(url, options.protocols ?? [], options);
    const raw = new Raw(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
    });
    return raw;
  }

  /** Open, authenticated by the first frame, synced. */
  static async session(rig: Rig, userId: string, more: object = {}): Promise<Raw & { readonly auth: Frame }> {
    const raw = await Raw.open(rig.ws);
    const auth = await raw.ask({ op: 'auth', token: token(userId), ...more });
    await raw.next((frame) => frame.event === 'synced');
    return Object.assign(raw, { auth });
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  /** Sends a request and gives its answer; pushes stay for `next`. */
  async ask(request: object): Promise<Frame> {
    const id = ++this.lastId;
    this.send({ id, ...request });
    return this.wait((frame) => frame.id === id, 0);
  }

  /** The next frame, after the last one given, that fits; those before it are passed over. */
  async next(fits: (frame: Frame) => boolean = () => true): Promise<Frame> {
    return this.wait(fits, this.at, true);
  }

  async event(event: string): Promise<Frame> {
    return this.next((frame) => frame.event === event);
  }

  async close(ms = 10_000): Promise<{ code: number; reason: string }> {
    const end = Date.now() + ms;
    while (this.closed === null) {
      if (Date.now() > end) throw new Error('was not closed');
      await this.sleep(50);
    }
    return this.closed;
  }

  /** What came between two moments: everything up to the answer of a ping sent now. */
  async quiet(): Promise<Frame[]> {
    const from = this.at;
    await this.ask({ op: 'ping' });
    this.at = this.frames.length;
    return this.frames.slice(from).filter((frame) => frame.id === undefined);
  }

  end(): void {
    this.socket.terminate();
  }

  private async wait(fits: (frame: Frame) => boolean, from: number, move = false): Promise<Frame> {
    const end = Date.now() + 10_000;
    for (let at = from; ;) {
      for (; at < this.frames.length; at++) {
        const frame = this.frames[at] as Frame;
        if (!fits(frame)) continue;
        if (move) this.at = at + 1;
        return frame;
      }
      if (this.closed !== null)
        throw new Error(`closed: ${JSON.stringify(this.closed)}; had ${JSON.stringify(this.frames)}`);
      if (Date.now() > end)
        throw new Error(`nothing fitting came: ${String(fits)}; had ${JSON.stringify(this.frames)}`);
      await this.sleep(200);
    }
  }

  private sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.woken.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.woken.add(wake);
    });
  }

  private wake(): void {
    for (const wake of [...this.woken]) wake();
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // The bodies of the contract differ by call; a test says what it expects.
  readonly body: Record<string, unknown>;
}

export async function http(
  rig: Rig,
  method: string,
  pathname: string,
  options: {
    readonly as?: string;
    readonly token?: string;
    readonly body?: unknown;
    readonly headers?: Record<string, string>;
  } = {},
): Promise<Answer> {
  const bearer = options.token ?? (options.as === undefined ? undefined : token(options.as));
  const answer = await fetch(`${rig.http}${pathname}`, {
    method,
    headers: {
      ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
      ...(options.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...options.headers,
    },
    ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
  });
  const text = await answer.text();
  let body: unknown = text;
  try {
    body = JSON.parse(text);
  } catch {
    // Not JSON, e.g. metrics: the text itself.
  }
  return { status: answer.status, headers: answer.headers, body: body as Record<string, unknown> };
}
