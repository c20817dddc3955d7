/**
 * A notification as people and clients see it: the `data` of CONTRACT §5.
 *
 * Pure: names come in, text goes out. Names are bounded and cleaned, since they are written by strangers and shown to
 * others: no control characters, none that turn the direction of text around.
 */

import { parseJson } from '../postgres/json.js';
import type { InboxState } from '../rules/group.js';
import type { Messages } from './messages.js';

/** A notification with everything that its `data` shows. */
export interface NotificationView {
  readonly id: string;
  readonly type: string;
  readonly objectKind: string | null;
  readonly objectId: string | null;
  readonly subjectKind: string | null;
  readonly subjectId: string | null;
  /** Newest first. */
  readonly actors: readonly string[];
  readonly actorCount: number;
  readonly eventCount: number;
  readonly state: InboxState;
  readonly alert: boolean;
  /** Given by the caller of belfry.notify; wins over the template. */
  readonly message: string | null;
  /** JSON text of an object, likewise. */
  readonly data: string | null;
  readonly lastAtMs: number;
}

/** What a notification is put into words with. */
export interface Words {
  /** Names of the actors as people gave them. */
  readonly names: ReadonlyMap<string, string | null>;
  readonly messages: Messages;
  /** Of the recipient; null: English. */
  readonly locale: string | null;
}

/** Longest name shown, in code points; enough for any real one. */
const maxNameLength = 80;

/**
 * C0, C1, lone halves of pairs, line separators, invisible ones, and the characters of Unicode that mark, override or isolate
 * direction (UAX #9). The joiners U+200C and U+200D stay: names in Persian or Hindi need them.
 */
const unsafe = /[\p{Cc}\p{Cs}\u00AD\u061C\u180E\u200B\u200E\u200F\u2028-\u202E\u2060-\u206F\uFEFF\uFFF9-\uFFFB]/gu;

/** Without one of these there is nothing to see. */
const visible = /[\p{L}\p{N}\p{P}\p{S}]/u;

/** A name fit to be shown to others: one line, bounded; `someone` when nothing is left. */
export function cleanName(name: string | null | undefined, someone = 'Someone'): string {
  const text = (name ?? '').replace(unsafe, ' ').replace(/\s+/gu, ' ').trim();
  if (!visible.test(text)) return someone;
  const cleaned = [...text];
  return cleaned.length <= maxNameLength ? cleaned.join('') : `${cleaned.slice(0, maxNameLength - 1).join('')}…`;
}

/** The frame of a push: `{"event":"notification","seq":…,"data":{…}}` as JSON text. */
export function notificationFrame(view: NotificationView, seq: number, words: Words): string {
  return JSON.stringify({ event: 'notification', seq, data: notificationData(view, words) });
}

export function withdrawnFrame(view: { readonly id: string; readonly type: string }, seq: number): string {
  return JSON.stringify({ event: 'withdrawn', seq, data: { id: view.id, type: view.type } });
}

/** An announcement is a notification without `seq` whose id begins with `a`. */
export function announcementFrame(announcement: {
  readonly id: string;
  readonly message: string;
  readonly data: string;
  readonly atMs: number;
}): string {
  const { id, message, data, atMs } = announcement;
  return JSON.stringify({
    event: 'notification',
    data: {
      id: `a${id}`,
      type: 'system',
      message,
      timestamp: new Date(atMs).toISOString(),
      data: { ...parseObject(data), actor_count: 0, event_count: 1, actors: [], state: 'unseen', alert: true },
    },
  });
}

/** The `data` of a notification (CONTRACT §5). */
export function notificationData(view: NotificationView, { names, messages, locale }: Words): Record<string, unknown> {
  const someone = messages.someone(locale);
  const actors = view.actors.map((id) => ({ id, name: cleanName(names.get(id), someone) }));
  const data: Record<string, unknown> = { id: view.id, type: view.type };
  if (actors[0] !== undefined) data['user_id'] = actors[0].id;
  const about = [
    [view.objectKind, view.objectId],
    [view.subjectKind, view.subjectId],
  ] as const;
  // `user_id` is the latest actor's, also where the object is a `user`.
  for (const [kind, id] of about) if (kind !== null && id !== null && kind !== 'user') data[`${kind}_id`] = id;
  data['message'] = view.message ?? messages.sentence({ ...view, names: actors.map(({ name }) => name) }, locale);
  data['timestamp'] = new Date(view.lastAtMs).toISOString();
  data['data'] = {
    ...parseObject(view.data),
    actor_count: view.actorCount,
    event_count: view.eventCount,
    actors,
    ...(view.objectKind !== null && view.objectId !== null
      ? { object: { kind: view.objectKind, id: view.objectId } }
      : {}),
    state: view.state,
    alert: view.alert,
  };
  return data;
}

function parseObject(text: string | null): Record<string, unknown> {
  if (text === null) return {};
  const value = parseJson(text);
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}
