/**
 * Which notification an event goes into, and when that is pushed.
 *
 * Types that group share one notification per recipient, type and object. The first event is pushed at once, later ones
 * update it in place at most once per window, and early when the number of distinct actors reaches a threshold. A group
 * takes no further event `groupFor` after its first, or once it is archived. Undo removes the actor; a group with
 * nothing behind it is withdrawn. Nothing here reads a clock: `nowMs` is the database's.
 */

import type { Aggregation as GroupRule } from '../config.js';
import { TOGGLE_MS } from './event.js';
import { draftOf, groupId, groupIdOf, memberKey } from './group.js';
import type { Candidate, Draft, GroupFacts, ShareAdded, ShareRemoved } from './group.js';

interface Share {
  readonly draft: Draft | null;
  readonly notificationId: string | null;
  readonly userId: string;
  readonly eventId: string;
  readonly actorId: string | null;
  readonly stored: boolean;
  removedAtMs: number | null;
}

/** Applies a batch's candidates and retractions, in order, to the notifications they touch. */
export class Aggregation {
  /** Every notification that changed or is new. */
  readonly drafts = new Set<Draft>();
  readonly added = new Map<string, ShareAdded>();
  readonly removed = new Map<string, ShareRemoved>();

  private readonly nowMs: number;
  private readonly byId = new Map<string, Draft>();
  private readonly openGroups = new Map<string, Draft>();
  private readonly shares = new Map<string, Map<string, Share>>();
  private readonly members = new Map<Draft, Map<string, number>>();

  constructor(
    private readonly rules: ReadonlyMap<string, GroupRule>,
    private readonly facts: GroupFacts,
  ) {
    this.nowMs = facts.nowMs;
    for (const group of facts.groups) {
      const draft = draftOf(group);
      this.byId.set(group.id, draft);
      if (group.open) this.openGroups.set(groupId(group), draft);
    }
    for (const share of facts.shares) {
      this.sharesOf(share.source, share.key).set(share.userId, {
        ...share,
        draft: this.byId.get(share.notificationId) ?? null,
        stored: true,
      });
    }
  }

  /** Whether the event already stands behind a notification of this person. */
  holds(source: string, key: string, userId: string): boolean {
    const share = this.shares.get(shareId(source, key))?.get(userId);
    return share !== undefined && share.removedAtMs === null;
  }

  /** Adds an event to a person's inbox; false when it already stands there (`duplicate`). */
  add(candidate: Candidate, userId: string): boolean {
    const { source, key, actorId } = candidate;
    const shares = this.sharesOf(source, key);
    const before = shares.get(userId);
    if (before !== undefined && before.removedAtMs === null) return false;
    const undone = before !== undefined && !candidate.fresh;
    const quiet = undone && (candidate.byUpdate || this.nowMs - (before.removedAtMs ?? 0) < TOGGLE_MS);

    const existing = this.groupFor(candidate, userId);
    const draft = existing ?? this.open(candidate, userId, quiet);
    if (existing !== null) this.join(existing, candidate, quiet);
    if (actorId !== null) this.countMember(draft, actorId, 1);
    const { eventId, atMs } = candidate;
    const stored = before?.stored ?? false;
    shares.set(userId, { draft, notificationId: draft.id, userId, eventId, actorId, stored, removedAtMs: null });
    const id = `${shareId(source, key)}\0${userId}`;
    this.removed.delete(id);
    this.added.set(id, { source, key, userId, eventId, actorId, atMs, draft, stored });
    return true;
  }

  /** Takes back what a row brought, for everybody, for one person, or for all but some. Returns the recipients it was taken from. */
  retract(source: string, key: string, onlyUser?: string, keep: readonly string[] = []): string[] {
    const taken: string[] = [];
    for (const share of this.shares.get(shareId(source, key))?.values() ?? []) {
      if (share.removedAtMs !== null || (onlyUser !== undefined && share.userId !== onlyUser)) continue;
      if (keep.includes(share.userId)) continue;
      share.removedAtMs = this.nowMs;
      taken.push(share.userId);
      const id = `${shareId(source, key)}\0${share.userId}`;
      this.added.delete(id);
      this.removed.set(id, { source, key, userId: share.userId });
      if (share.draft !== null) this.leave(share.draft, share.actorId);
    }
    return taken;
  }

  /** Pushes a notification whose window is due. */
  flush(notificationId: string): void {
    const draft = this.byId.get(notificationId);
    if (draft === undefined) return;
    this.drafts.add(draft);
    this.pushNow(draft);
  }

  /** Takes a whole notification away, whatever stands behind it; nothing joins it any more. */
  withdraw(notificationId: string): void {
    const draft = this.byId.get(notificationId);
    if (draft === undefined || draft.withdrawn) return;
    this.drafts.add(draft);
    draft.withdrawn = true;
    draft.open = false;
    draft.reopen = false;
    draft.dueAtMs = null;
    this.openGroups.delete(groupId(draft));
    if (draft.shown) this.pushNow(draft);
  }

  /** Ends the waiting of a notification whose recipient no longer wants to hear of it; the row keeps what it holds. */
  silence(notificationId: string): void {
    const draft = this.byId.get(notificationId);
    if (draft === undefined) return;
    this.drafts.add(draft);
    draft.dueAtMs = null;
  }

  /** The group that takes the candidate, if one is open. One that is too old, or about what the row was about before, is closed on the way. */
  private groupFor(candidate: Candidate, userId: string): Draft | null {
    const id = groupIdOf(userId, candidate);
    const draft = this.openGroups.get(id);
    if (draft === undefined) return null;
    const rule = this.rules.get(candidate.type);
    const tooOld = rule !== undefined && candidate.atMs >= draft.firstAtMs + rule.groupForMs && !draft.withdrawn;
    const moved = draft.objectKind !== candidate.objectKind || draft.objectId !== candidate.objectId;
    if (!tooOld && !moved && draft.state !== 'archived') return draft;
    draft.open = false;
    this.drafts.add(draft);
    this.openGroups.delete(id);
    return null;
  }

  private open(candidate: Candidate, userId: string, quiet: boolean): Draft {
    const draft: Draft = {
      id: null,
      seq: null,
      userId,
      type: candidate.type,
      groupKey: candidate.groupKey,
      objectKind: candidate.objectKind,
      objectId: candidate.objectId,
      subjectKind: candidate.subjectKind,
      subjectId: candidate.subjectId,
      open: true,
      actors: candidate.actorId === null ? [] : [candidate.actorId],
      actorCount: candidate.actorId === null ? 0 : 1,
      eventCount: 1,
      withdrawn: false,
      shown: false,
      state: 'unseen',
      message: candidate.message,
      data: candidate.data,
      firstAtMs: candidate.atMs,
      lastAtMs: candidate.atMs,
      pushedAtMs: this.nowMs,
      dueAtMs: null,
      push: true,
      alert: !quiet,
      reopen: false,
      resample: false,
    };
    this.drafts.add(draft);
    this.openGroups.set(groupIdOf(userId, candidate), draft);
    return draft;
  }

  private join(draft: Draft, candidate: Candidate, quiet: boolean): void {
    const { actorId } = candidate;
    const before = draft.actorCount;
    this.drafts.add(draft);
    draft.eventCount += 1;
    draft.lastAtMs = Math.max(draft.lastAtMs, candidate.atMs);
    if (candidate.subjectId !== null) draft.subjectId = candidate.subjectId;
    if (actorId !== null) {
      if (this.memberCount(draft, actorId) === 0) draft.actorCount += 1;
      const shown = this.rules.get(draft.type)?.sample ?? 1;
      draft.actors = [actorId, ...draft.actors.filter((id) => id !== actorId)].slice(0, shown);
    }
    if (!quiet) draft.reopen = true;
    if (draft.withdrawn) {
      draft.withdrawn = false;
      draft.firstAtMs = candidate.atMs;
      // Emptied by this very batch, of which its recipient hears nothing: an update in place, unless the row itself is about somebody else now.
      draft.alert = !quiet && (candidate.fresh || !(draft.shown && draft.push));
    }
    // Somebody who toggles costs one push per window, not one per click.
    if (draft.alert) this.pushNow(draft);
    else this.pushOrWait(draft, before);
  }

  private leave(draft: Draft, actorId: string | null): void {
    this.drafts.add(draft);
    draft.eventCount = Math.max(0, draft.eventCount - 1);
    if (actorId !== null && this.memberCount(draft, actorId) > 0) {
      this.countMember(draft, actorId, -1);
      if (this.memberCount(draft, actorId) === 0) {
        draft.actorCount = Math.max(0, draft.actorCount - 1);
        if (draft.actors.includes(actorId)) {
          draft.actors = draft.actors.filter((id) => id !== actorId);
          draft.resample = true;
        }
      }
    }
    if (draft.eventCount === 0) {
      draft.withdrawn = true;
      draft.reopen = false;
      draft.alert = false;
      draft.resample = false;
      if (draft.shown) this.pushNow(draft);
      else draft.dueAtMs = null;
    } else if (draft.state !== 'archived' && !draft.withdrawn) {
      this.pushOrWait(draft, draft.actorCount);
    }
  }

  private pushOrWait(draft: Draft, actorsBefore: number): void {
    if (draft.push) return;
    const rule = this.rules.get(draft.type);
    const dueAtMs = draft.dueAtMs ?? draft.pushedAtMs + (rule?.windowMs ?? 0);
    const early = rule?.early.some((threshold) => actorsBefore < threshold && draft.actorCount >= threshold) ?? true;
    if (early || this.nowMs >= dueAtMs) this.pushNow(draft);
    else draft.dueAtMs = dueAtMs;
  }

  private pushNow(draft: Draft): void {
    draft.push = true;
    draft.dueAtMs = null;
  }

  private memberCount(draft: Draft, actorId: string): number {
    const known = this.members.get(draft)?.get(actorId);
    if (known !== undefined) return known;
    return draft.id === null ? 0 : (this.facts.members.get(memberKey(draft.id, actorId)) ?? 0);
  }

  private countMember(draft: Draft, actorId: string, by: number): void {
    const counts = this.members.get(draft) ?? new Map<string, number>();
    counts.set(actorId, this.memberCount(draft, actorId) + by);
    this.members.set(draft, counts);
  }

  private sharesOf(source: string, key: string): Map<string, Share> {
    const id = shareId(source, key);
    let shares = this.shares.get(id);
    if (shares === undefined) this.shares.set(id, (shares = new Map<string, Share>()));
    return shares;
  }
}

function shareId(source: string, key: string): string {
  return `${source}\0${key}`;
}
