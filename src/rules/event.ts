/**
 * The words that the rules think in: events that have been read and resolved, and the facts they are judged by.
 *
 * Everything under rules/ is pure: facts come in, decisions go out, and time is passed in.
 */

/** One end of an event: the row as it was before, or as it is after. */
export interface Side {
  /** Natural key as a JSON array of texts. */
  readonly key: string;
  readonly actorId: string | null;
  readonly objectId: string | null;
  readonly subjectId: string | null;
  /** Channels of the source's templates with this row's values. */
  readonly channels: readonly string[];
  /** The `include` columns as JSON text; null for a source without. */
  readonly include: string | null;
  /** The values that recipients are resolved from, as text: another route means other recipients. */
  readonly route: string | null;
  /** Distinct and never the empty string; empty on a `before` side, where what was stored counts. */
  readonly recipients: readonly string[];
  /** Too many recipients to be listed here. */
  readonly wide?: boolean;
  /** Of a wide event, some of its recipients alone: what the others have is not looked at. */
  readonly alone?: boolean;
}

export type SourceOp = 'created' | 'removed' | 'changed';

/** A row of the outbox that came from a source's trigger, resolved. */
export interface SourceEvent {
  readonly id: string;
  /** The transaction that wrote it. */
  readonly xid: string;
  readonly at: Date;
  readonly source: string;
  readonly op: SourceOp;
  readonly before: Side | null;
  readonly after: Side | null;
  /** The event is not in the count that the source's counters were seeded with. */
  readonly counts: boolean;
  /** Written under `belfry.capture = 'counters'`: nobody is notified. */
  readonly countersOnly: boolean;
  /** The table holds another row with the key of `before`: pairs need not be unique, and nothing is to be taken back. */
  readonly keyStands: boolean;
}

/** Why a recipient does not get an event (CONTRACT: `rule`). */
export type SuppressRule =
  | 'self'
  | 'notifications_off'
  | 'type_off'
  | 'blocked'
  | 'muted'
  | 'thread_muted'
  | 'not_visible'
  | 'actor_gone'
  | 'recipient_gone'
  | 'duplicate'
  | 'damped'
  | 'policy';

export interface Person {
  readonly id: string;
  readonly active: boolean;
  readonly enabled: boolean;
  readonly name: string | null;
  readonly locale: string | null;
}

/** Undo and redo within this time never alert twice (DESIGN: toggles within 60 s do not alert). */
export const TOGGLE_MS = 60_000;

/** An owner that is still null may be set by an update for this long (DESIGN: held, expires after an hour). */
export const HOLD_MS = 3_600_000;
