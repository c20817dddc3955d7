/** A small town for some seconds: people who act, misfortunes, and a check whenever it has become quiet. */

import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { TestDatabase } from '../../support/postgres.js';
import { addPost, addUsers } from '../../support/social.js';
import { pick, quarrel, rowAct, run, wishAct, type Act, type Random, type Town } from './acts.js';
import type { Belfry } from './belfry.js';
import { check, keyOf, type Scene } from './check.js';
import { Model, type Effect } from './model.js';
import { calls, Screen } from './screen.js';

const phases = 3;
const marks = ['seen', 'read', 'archived'] as const;

/** One round. `log` takes what was done, in order; the round throws what was found to be wrong. */
export async function round(database: TestDatabase, belfry: Belfry, random: Random, log: string[]): Promise<void> {
  const { pool } = database;
  const people = await addUsers(pool, 'Ada', 'Ben', 'Cleo', 'Dan', 'Eve');
  const posts = new Map<string, string>();
  for (const author of people.slice(0, 4)) posts.set(await addPost(pool, author), author);
  // Not of the seed: when a page comes back is a matter of timing.
  const port = (): number => pick(Math.random, belfry.ways).port;
  const screens = [0, 0, 1, 2].map((i) => new Screen(people[i] ?? '', port));
  const clients = [await database.client(), await database.client()] as const;
  const committed: Effect[] = [];
  const everyPost = [...posts.keys()];
  const town: Town = { people, posts, comments: new Map() };
  const scene: Scene = { belfry, pool, town, model: new Model(), screens, everyPost, committed };
  const writer = new Writer(scene, clients, random, log);
  try {
    for (const screen of screens) for (const post of posts.keys()) await screen.watch(post);
    for (let phase = 1; phase <= phases; phase += 1) {
      await writer.marks();
      for (let left = 8 + Math.floor(random() * 25); left > 0; left -= 1) {
        if (random() < 0.07) log.push(await belfry.trouble(random));
        if (random() < 0.04) pick(random, screens).leave();
        if (random() < 0.1) for (const screen of screens) screen.comeBack();
        await writer.act();
        if (random() < 0.6) await sleep(random() * 40);
      }
      for (const screen of screens) screen.comeBack();
      log.push('everything is read');
      await check(scene);
      committed.length = 0;
      // Posts for those that were deleted.
      for (const author of people.slice(0, 4)) {
        if ([...posts.values()].includes(author)) continue;
        const post = await addPost(pool, author);
        posts.set(post, author);
        everyPost.push(post);
        for (const screen of screens) await screen.watch(post);
      }
    }
  } finally {
    for (const screen of screens) screen.close();
    for (const client of clients) await client.end();
  }
}

class Writer {
  constructor(
    private readonly scene: Scene,
    private readonly clients: readonly [pg.Client, pg.Client],
    private readonly random: Random,
    private readonly log: string[],
  ) {}

  /** A transaction, two beside each other, or a call of the API. */
  async act(): Promise<void> {
    const { random } = this;
    const [client] = this.clients;
    const dice = random();
    if (dice < 0.3) return await this.transaction([this.one()]);
    if (dice < 0.42) return await this.transaction([wishAct(random, this.scene.town)]);
    if (dice < 0.48) {
      // All of it is read at once.
      this.log.push(await this.scene.belfry.freeze(300));
      for (const act of quarrel(random, this.scene.town)) await this.transaction([act]);
      return;
    }
    if (dice < 0.6) return await this.transaction(this.some(8));
    if (dice < 0.7) {
      await client.query('begin');
      for (const act of this.some(4)) await run(client, act);
      await client.query('rollback');
      return;
    }
    if (dice < 0.8) return await this.transaction(this.some(2), this.some(3), this.some(2));
    if (dice < 0.88) return await this.beside();
    if (dice < 0.96) return await this.prefer();
    await this.markOne();
  }

  /** What everybody does to what they hold; everything was read, so it is certain what is marked. */
  async marks(): Promise<void> {
    for (const screen of this.scene.screens) {
      if (this.random() < 0.5) continue;
      const state = pick(this.random, marks);
      const all = this.random() < 0.5;
      const items = screen.items().filter(() => all || this.random() < 0.5);
      if (items.length === 0) continue;
      await screen.mark(state, all ? { through: screen.seq } : { ids: items.map(({ id }) => id) });
      // What is not shown stands before that position too.
      const groups = all ? this.scene.model.standingFor(screen.user) : items.map((item) => keyOf(screen.user, item));
      this.done(`${screen.user} has ${state} ${items.length}`, [[{ does: 'mark', state, groups }]]);
    }
  }

  private one(actors: readonly string[] = this.scene.town.people): Act {
    return rowAct(this.random, this.scene.town, actors);
  }

  private some(most: number, actors?: readonly string[]): Act[] {
    return Array.from({ length: 1 + Math.floor(this.random() * most) }, () => this.one(actors));
  }

  /** What is undone is rolled back to a savepoint, before what comes after. */
  private async transaction(acts: readonly Act[], undone: readonly Act[] = [], after: readonly Act[] = []) {
    const [client] = this.clients;
    const effects: Effect[] = [];
    await client.query('begin');
    for (const act of acts) effects.push(...(await run(client, act)));
    if (undone.length > 0) await client.query('savepoint s');
    for (const act of undone) await run(client, act);
    if (undone.length > 0) await client.query('rollback to s');
    for (const act of after) effects.push(...(await run(client, act)));
    await client.query('commit');
    this.done(told([...acts, ...after]), [effects]);
  }

  /** Two transactions of different people, interleaved; the one that began first and has the lower ids commits last. */
  private async beside(): Promise<void> {
    const { people } = this.scene.town;
    const [first, second] = this.clients;
    const cut = 1 + Math.floor(this.random() * (people.length - 1));
    const early = this.some(4, people.slice(0, cut));
    const late = this.some(4, people.slice(cut));
    const effects: [Effect[], Effect[]] = [[], []];
    await first.query('begin');
    await second.query('begin');
    for (let i = 0; i < Math.max(early.length, late.length); i += 1) {
      const [a, b] = [early[i], late[i]];
      if (a !== undefined) effects[1].push(...(await run(first, a)));
      if (b !== undefined) effects[0].push(...(await run(second, b)));
    }
    await second.query('commit');
    await sleep(this.random() * 30);
    await first.query('commit');
    this.done(`${told(late)}; and beside it ${told(early)}`, effects);
  }

  private async prefer(): Promise<void> {
    const user = pick(this.random, this.scene.town.people);
    const kind = pick(this.random, ['like', 'comment', 'follow'] as const);
    // Twice, since a follow that comes meanwhile leaves most of it open.
    const setting = pick(this.random, ['on', 'off', 'following', 'following'] as const);
    await this.scene.belfry.call(user, 'PUT', '/preferences', { [kind]: setting });
    this.done(`${user} turns ${kind} ${setting}`, [[{ does: 'prefers', user, kind, setting }]]);
  }

  /** While other things are on their way. */
  private async markOne(): Promise<void> {
    const { belfry, town } = this.scene;
    const user = pick(this.random, town.people);
    const state = pick(this.random, marks);
    const which = this.random();
    const { items } = await belfry.inbox(user);
    const item = items[Math.floor(which * items.length)];
    if (item === undefined) return;
    await belfry.call(user, 'POST', `/${calls[state]}`, { ids: [item.id] });
    this.done(`${user} has ${state} one`, [[{ does: 'mark', state, groups: [keyOf(user, item)] }]]);
  }

  private done(what: string, effects: readonly (readonly Effect[])[]): void {
    const { model, town, committed } = this.scene;
    this.log.push(what);
    model.commit(effects);
    for (const effect of effects.flat()) {
      committed.push(effect);
      if (effect.does === 'add' && effect.row.comment !== null) town.comments.set(effect.row.key, effect.row);
      if (effect.does === 'removePost') town.posts.delete(effect.post);
    }
  }
}

const told = (acts: readonly Act[]): string => acts.map(({ what }) => what).join(', ');
