/**
 * What the inboxes must hold, reckoned from what was committed, in the order of the commits. It knows the contract, and none of Belfry's code.
 *
 * Between two moments at which everything was read (`settle`) the relay may judge an event late, and read several changes of a row at
 * once. What hangs on that is left open (`may`): a mute, a switch, a follow that somebody hears by, an account, or the end of a block that came or went
 * meanwhile. All else is certain. `settle` takes over what was found, and from then on that is certain too.
 */

export type Kind = 'like' | 'comment' | 'follow';
export type Mark = 'seen' | 'read' | 'archived';
/** Of what stands in the list. */
export type State = 'unseen' | 'seen' | 'read';
export type Relation = 'block' | 'mute' | 'threadMute';

/** A row of the application that somebody is to hear of. */
export interface Row {
  readonly kind: Kind;
  /** Its natural key. */
  readonly key: string;
  readonly actor: string;
  readonly recipient: string;
  readonly post: string | null;
  readonly comment: string | null;
}

/** What a person wants to hear of a kind: everything, nothing, or what those do whom they follow. */
export type Setting = 'on' | 'off' | 'following';

/** A committed change. `groups`: whose notifications were marked. */
export type Effect =
  | { readonly does: 'add'; readonly row: Row }
  | { readonly does: 'remove'; readonly key: string }
  | { readonly does: 'removePost'; readonly post: string }
  | { readonly does: 'set' | 'lift'; readonly relation: Relation; readonly from: string; readonly to: string }
  | { readonly does: 'account'; readonly user: string; readonly active: boolean }
  | { readonly does: 'enables'; readonly user: string; readonly on: boolean }
  | { readonly does: 'prefers'; readonly user: string; readonly kind: Kind; readonly setting: Setting }
  | { readonly does: 'mark'; readonly state: Mark; readonly groups: readonly string[] };

type Presence = 'in' | 'out' | 'may';

interface Share {
  readonly row: Row;
  /** The row is in its table. */
  exists: boolean;
  presence: Presence;
  /** It came since everything was read, so it may be judged later than now. */
  fresh: boolean;
  /** A block came after it: whatever is lifted, it stays away. */
  barred: boolean;
  /** It was taken away by a mute that the relay may not have seen yet. */
  muted: boolean;
  /** How it stood when its row was deleted, if that was since everything was read. */
  before: Presence | null;
  /** It stands behind a notification that was archived: in no list but that of the archived, and gone for good from the others. */
  archived: boolean | 'may';
  /** It stood in the inbox once: then it does not ring when it comes again. */
  stood: boolean | 'may';
  removedAtMs: number;
}

/** What one notification is about, or one after the other: the likes of a post, the followers of a person, a comment. */
export interface Group {
  readonly key: string;
  readonly recipient: string;
  readonly shares: Set<Share>;
  /** What its state may be. */
  states: Set<State>;
  /** What it may be if nothing of what came since everything was read counts. */
  prior: Set<State>;
  /** Since everything was read: changes; whether nobody may have stood behind it; who may have; whether something rang. */
  touches: number;
  emptied: boolean;
  readonly possible: Set<string>;
  mayRing: boolean;
  /** Its only change rings on every page. */
  mustRing: boolean;
  /** Its recipient wanted to hear nothing when a window may have ended: the inbox has what no page was told. */
  untold: boolean;
  /** A muted thread or its recipient, who archived it, closed its notification: what comes later begins another. */
  closed: boolean;
}

/** Undone and done again within 60 s does not ring; near that nothing is certain. */
const surelyQuietMs = 40_000;
const rank = { unseen: 0, seen: 1, read: 2 } as const;

export const groupKey = (of: Pick<Row, 'kind' | 'recipient' | 'post' | 'comment'>): string =>
  `${of.kind} to ${of.recipient} of ${of.comment ?? of.post ?? 'nothing'}`;

export class Model {
  readonly groups = new Map<string, Group>();
  private readonly shares = new Map<string, Share>();
  private readonly standing = new Set<string>();
  /** Suspended accounts: they neither notify nor are notified, and what they did before is there without being shown. */
  readonly gone = new Set<string>();
  /** Who was suspended at any time, and whose account came or went since everything was read. */
  readonly everGone = new Set<string>();
  private readonly stirred = new Set<string>();
  /** People who want to hear nothing at all. */
  private readonly silent = new Set<string>();
  /** By person and kind; missing is on. */
  private readonly settings = new Map<string, Setting>();
  /** Pairs between whom a block came or went since everything was read. */
  private readonly moved = new Set<string>();

  /** Applies what was committed. Of transactions that ran beside each other the relay may read what they removed first. */
  commit(transactions: readonly (readonly Effect[])[]): void {
    const effects = transactions.flat();
    const removed = new Set(effects.flatMap((effect) => (effect.does === 'remove' ? [effect.key] : [])));
    for (const key of removed) {
      const group = this.groupOf(key);
      if (group === undefined) continue;
      group.emptied ||= ![...group.shares].some((share) => stands(share, 'in') && !removed.has(share.row.key));
    }
    for (const effect of effects) this.apply(effect);
    // Asked whenever something changed: the window may end at any time from then on.
    for (const group of this.groups.values()) group.untold ||= group.touches > 0 && this.endsUnheard(group);
  }

  actors(group: Group, ...presence: readonly Presence[]): Set<string> {
    return new Set([...group.shares].filter((share) => stands(share, ...presence)).map(({ row }) => row.actor));
  }

  /** Whether a block has stood between the two ever since everything was read. */
  apart(a: string, b: string): boolean {
    return this.blocked(a, b) && !this.moved.has(pair(a, b));
  }

  /** Whether no block has stood between the two since everything was read. */
  near(a: string, b: string): boolean {
    return !this.blocked(a, b) && !this.moved.has(pair(a, b));
  }

  /** Whether an account has been suspended, or has not been, ever since everything was read. */
  away(user: string, isGone: boolean): boolean {
    return this.gone.has(user) === isGone && !this.stirred.has(user);
  }

  /** Who must stand in the list of the archived, or with `'may'` who may. */
  archived(group: Group, may: boolean): Set<string> {
    const there = [...group.shares].filter(
      ({ exists, archived, row }) => exists && !this.hidden(row) && (archived === true || (may && archived === 'may')),
    );
    return new Set(there.map(({ row }) => row.actor));
  }

  /** Whether a suspension that came or went since everything was read changes what this person is shown: no event tells of it. */
  recounts(user: string): boolean {
    return [...this.shares.values()].some(({ row }) => row.recipient === user && this.stirred.has(row.actor));
  }

  /** The groups that stand in this person's stream, if everything was read: also those that nobody is shown. */
  standingFor(user: string): string[] {
    return [...this.groups.values()]
      .filter((group) => group.recipient === user && this.actors(group, 'in').size > 0)
      .map(({ key }) => key);
  }

  /** Everything was read, and this is what stands: who is behind each notification, and its state; and who is behind the archived ones. */
  settle(
    found: ReadonlyMap<string, { readonly actors: ReadonlySet<string>; readonly state: State }>,
    archived: ReadonlyMap<string, ReadonlySet<string>>,
  ): void {
    this.moved.clear();
    this.stirred.clear();
    for (const [key, group] of this.groups) {
      const now = found.get(key);
      for (const share of group.shares) {
        const { exists, row, presence } = share;
        const there = exists && now?.actors.has(row.actor) === true;
        if (there) share.stood = true;
        else if (share.stood !== true && presence !== 'out') share.stood = 'may';
        Object.assign(share, { presence: there ? 'in' : 'out', fresh: false, muted: false, before: null });
        share.archived = exists && archived.get(key)?.has(row.actor) === true;
      }
      if (now !== undefined) group.states = new Set([now.state]);
      // What stands in the list takes what comes.
      if (now !== undefined) group.closed = false;
      group.prior = new Set(group.states);
      group.touches = 0;
      group.emptied = false;
      group.mayRing = group.mustRing = group.untold = false;
      group.possible.clear();
      for (const actor of now?.actors ?? []) if (!this.gone.has(actor)) group.possible.add(actor);
    }
  }

  private apply(effect: Effect): void {
    switch (effect.does) {
      case 'add':
        this.add(effect.row);
        return this.followed(effect.row);
      case 'remove':
        this.remove(this.shares.get(effect.key));
        return this.followed(this.shares.get(effect.key)?.row);
      case 'removePost':
        for (const share of this.shares.values()) if (share.row.post === effect.post) this.remove(share);
        return;
      case 'set':
        return this.set(effect.relation, effect.from, effect.to);
      case 'lift':
        this.standing.delete(`${effect.relation} ${effect.from} ${effect.to}`);
        if (effect.relation === 'block') this.moved.add(pair(effect.from, effect.to));
        return this.judgeLate();
      case 'account':
        return this.account(effect.user, effect.active);
      case 'enables':
        if (effect.on) this.silent.delete(effect.user);
        else this.silent.add(effect.user);
        return this.judgeLate();
      case 'prefers':
        this.settings.set(`${effect.user} ${effect.kind}`, effect.setting);
        return this.judgeLate();
      case 'mark':
        for (const key of effect.groups) this.mark(this.groups.get(key), effect.state);
    }
  }

  private add(row: Row): void {
    const share = this.shares.get(row.key) ?? newShare(row);
    this.shares.set(row.key, share);
    const group = this.group(row);
    group.shares.add(share);
    const now = this.allowed(row) ? 'in' : 'out';
    // Deleted and inserted again, and both read at once, is no change: what stood still stands, what did not does not.
    const again = share.before !== null;
    const presence = again && share.before !== now ? 'may' : now;
    const wasEmpty = this.actors(group, 'in', 'may').size === 0;
    // So is what was archived: it stays there, or begins another notification.
    const archived = again && share.archived !== false ? 'may' : false;
    Object.assign(share, { exists: true, presence, fresh: true, barred: false, muted: false, archived });
    group.touches += 1;
    if (presence === 'out') return;
    group.possible.add(row.actor);
    const quiet = share.stood === true && Date.now() - share.removedAtMs < surelyQuietMs;
    const loud = presence === 'in' && share.stood === false && !again;
    if (!quiet) group.mayRing = true;
    const wasRead = group.prior.size === 1 && group.prior.has('read');
    // If this comes to nothing after all (a block), it is what it was until now: marked, perhaps, since everything was read.
    for (const state of group.states) group.prior.add(state);
    if (loud) group.states = new Set(['unseen']);
    else if (!quiet || group.closed) group.states.add('unseen');
    group.mustRing = loud && group.touches === 1 && (wasEmpty || wasRead);
  }

  private remove(share: Share | undefined): void {
    if (share?.exists !== true) return;
    share.before = share.presence;
    share.exists = false;
    share.removedAtMs = Date.now();
    if (share.presence !== 'out' && share.stood === false) share.stood = 'may';
    this.changed(share);
  }

  private set(relation: Relation, from: string, to: string): void {
    this.standing.add(`${relation} ${from} ${to}`);
    if (relation === 'block') this.moved.add(pair(from, to));
    if (relation === 'threadMute') {
      for (const group of this.groups.values())
        if (group.recipient === from && [...group.shares].some(({ row }) => row.post === to)) group.closed = true;
    }
    for (const share of this.shares.values()) {
      if (!this.hidden(share.row, relation, from, to)) continue;
      if (!share.exists) continue;
      // A mute may be over before the relay sees it.
      if (share.archived !== false) share.archived = relation === 'block' ? false : 'may';
      if (relation === 'block') share.barred = true;
      else if (share.presence !== 'out') share.muted = true;
      if (share.presence === 'out') continue;
      if (share.stood === false) share.stood = 'may';
      share.presence = 'out';
      this.changed(share);
    }
  }

  private account(user: string, active: boolean): void {
    this.stirred.add(user);
    this.everGone.add(user);
    if (active) this.gone.delete(user);
    else this.gone.add(user);
    for (const share of this.shares.values())
      if (active && share.row.actor === user && stands(share, 'in', 'may')) this.group(share.row).possible.add(user);
    this.judgeLate();
  }

  /** Somebody may hear by a follow, or no longer: of what was done before it too, if that is judged later, be it of the same transaction. */
  private followed(row: Row | undefined): void {
    if (row?.kind === 'follow') this.judgeLate();
  }

  /** What somebody wants, whom they follow or what stands between two is other than before: what may not have been judged yet may be judged by that. */
  private judgeLate(): void {
    this.tighten();
    this.loosen();
  }

  /** What may be judged by what is wanted now may be kept away. */
  private tighten(): void {
    for (const share of this.shares.values()) {
      const { row, exists, fresh, presence } = share;
      if (!exists || !fresh || presence !== 'in' || (this.wanted(row) && !this.gone.has(row.actor))) continue;
      share.presence = 'may';
      this.changed(share);
    }
  }

  /** What is no longer forbidden may come. */
  private loosen(): void {
    for (const share of this.shares.values()) {
      const { row, exists, presence, barred, fresh, muted } = share;
      if (!exists || presence !== 'out' || barred) continue;
      if (!(fresh && this.allowed(row)) && !(muted && !this.hidden(row))) continue;
      share.presence = 'may';
      const group = this.group(row);
      group.possible.add(row.actor);
      if (share.stood !== true) group.mayRing = true;
      this.changed(share);
    }
  }

  /** What stood may no longer stand, or the other way round. */
  private changed({ row }: Share): void {
    const group = this.group(row);
    group.touches += 1;
    group.mustRing = false;
    group.emptied ||= this.actors(group, 'in').size === 0;
    for (const state of group.prior) group.states.add(state);
    if (group.mayRing || group.closed) group.states.add('unseen');
  }

  private mark(group: Group | undefined, state: Mark): void {
    if (group === undefined) return;
    if (state === 'archived') return this.archive(group);
    const forward = (states: Set<State>): State[] => [...states].map((one) => (rank[one] < rank[state] ? state : one));
    const kept = group.touches === 0 ? [] : [...group.states, ...group.prior, 'unseen' as const];
    group.states = new Set([...kept, ...forward(group.states)]);
    group.prior = new Set([...(group.touches === 0 ? [] : group.prior), ...forward(group.prior)]);
    if (group.touches > 0) group.mustRing = false;
  }

  private archive(group: Group): void {
    const certain = group.touches === 0;
    group.closed = true;
    if (certain) {
      group.states = new Set();
      group.prior = new Set();
    } else {
      group.mustRing = false;
      group.states.add('unseen');
    }
    for (const share of group.shares) {
      const { exists, presence, fresh } = share;
      if (!exists || presence === 'out') continue;
      // What stood there all the time is archived, unless something that waited for the end of its window brings all of it up again; of what came
      // or went meanwhile it hangs on whether the relay had read it by then.
      const sure = presence === 'in' && !fresh && certain;
      Object.assign(share, { presence: sure ? 'out' : 'may', archived: sure ? true : 'may' });
      if (sure) share.stood = true;
      else if (share.stood === false) share.stood = 'may';
    }
    if (!certain) group.emptied ||= this.actors(group, 'in').size === 0;
  }

  private group(row: Row): Group {
    const key = groupKey(row);
    let group = this.groups.get(key);
    if (group === undefined) {
      const none = {
        states: new Set<State>(),
        prior: new Set<State>(),
        shares: new Set<Share>(),
        possible: new Set<string>(),
      };
      const still = { touches: 0, emptied: false, mayRing: false, mustRing: false, untold: false, closed: false };
      group = { key, recipient: row.recipient, ...none, ...still };
      this.groups.set(key, group);
    }
    return group;
  }

  private groupOf(key: string): Group | undefined {
    const share = this.shares.get(key);
    return share === undefined ? undefined : this.group(share.row);
  }

  private allowed(row: Row): boolean {
    const { actor, recipient } = row;
    return actor !== recipient && !this.hidden(row) && !this.gone.has(actor) && this.wanted(row);
  }

  private wanted({ actor, recipient, kind }: Row): boolean {
    if (this.silent.has(recipient) || this.gone.has(recipient)) return false;
    const setting = this.settings.get(`${recipient} ${kind}`) ?? 'on';
    return setting === 'on' || (setting === 'following' && this.follows(recipient, actor));
  }

  private follows(follower: string, followed: string): boolean {
    return this.shares.get(followKey(follower, followed))?.exists === true;
  }

  /** Whether nobody who surely stands there is somebody whom its recipient wants to hear of, so that a window may end and say nothing. */
  private endsUnheard(group: Group): boolean {
    const shares = [...group.shares].filter((share) => stands(share, 'in', 'may'));
    return (
      shares.some(({ row }) => !this.wanted(row)) &&
      !shares.some(({ presence, row }) => presence === 'in' && this.wanted(row) && !this.gone.has(row.actor))
    );
  }

  /** Whether a relation keeps the row from its recipient; given one, whether that very one does. */
  private hidden({ actor, recipient, post }: Row, relation?: Relation, from?: string, to?: string): boolean {
    const one = relation === undefined ? null : `${relation} ${from ?? ''} ${to ?? ''}`;
    return [
      `block ${recipient} ${actor}`,
      `block ${actor} ${recipient}`,
      `mute ${recipient} ${actor}`,
      `threadMute ${recipient} ${post ?? ''}`,
    ].some((key) => (one === null ? this.standing.has(key) : key === one));
  }

  private blocked(a: string, b: string): boolean {
    return this.standing.has(`block ${a} ${b}`) || this.standing.has(`block ${b} ${a}`);
  }
}

export const followKey = (follower: string, followed: string): string => `follow ${follower} ${followed}`;

const pair = (a: string, b: string): string => [a, b].sort().join(' ');

const stands = ({ exists, presence }: Share, ...wanted: readonly Presence[]): boolean =>
  exists && wanted.includes(presence);

const newShare = (row: Row): Share => ({
  ...{ row, exists: false, presence: 'out', fresh: false, barred: false, muted: false },
  ...{ before: null, archived: false, stood: false, removedAtMs: 0 },
});
