/**
 * What may be shown of notifications that are pushed: names, who is gone, and what their recipients may still read.
 *
 * What must hold: it is asked after the batch is stored, so one row on which the config's SQL fails must not make it fail for all: of that
 * row nothing is shown.
 */

import type pg from 'pg';
import { inHalves } from '../../halves.js';
import type { PushedNotification } from '../../inbox/store.js';
import type { PrivacyFacts } from '../../rules/privacy.js';
import { isPassing } from '../failures.js';
import { loadMayRead } from './may-read.js';
import type { MayRead } from './may-read.js';
import type { PrivacyLoader } from './privacy-facts.js';

export interface Shown {
  /** Names of the actors that are shown. */
  readonly names: ReadonlyMap<string, string | null>;
  /** Actors who are deleted or suspended: nobody is shown them. */
  readonly gone: ReadonlySet<string>;
  /** Of the recipients, where the config names a column for it. */
  readonly locales: ReadonlyMap<string, string | null>;
  /** About notifications that were there before. */
  readonly mayRead: MayRead;
}

/** Whom or what the SQL of the config fails on. */
export type Spoiled = { readonly userId: string } | { readonly notificationId: string };

/** Two statements at most. Throws what is no row's fault. */
export async function loadShown(
  reader: pg.ClientBase,
  loader: PrivacyLoader,
  privacy: PrivacyFacts,
  pushed: readonly PushedNotification[],
  spoiled: (what: Spoiled, error: unknown) => void,
): Promise<Shown> {
  const names = new Map<string, string | null>();
  const gone = new Set<string>();
  const unnamed = new Set<string>();
  const locales = new Map<string, string | null>();
  for (const { actors, draft } of pushed) {
    if (loader.localised) {
      const recipient = privacy.people?.get(draft.userId);
      if (recipient === undefined) unnamed.add(draft.userId);
      else locales.set(recipient.id, recipient.locale);
    }
    for (const id of actors) {
      const person = privacy.people?.get(id);
      if (person === undefined) unnamed.add(id);
      else if (person.active) names.set(id, person.name);
      else gone.add(id);
    }
  }
  if (privacy.people !== null && unnamed.size > 0) {
    await inHalves(
      [...unnamed],
      isPassing,
      async (ids) => {
        const { people } = await loader.load(reader, [], ids);
        for (const id of ids) {
          const person = people?.get(id);
          locales.set(id, person?.locale ?? null);
          if (person?.active === true) names.set(id, person.name);
          else gone.add(id);
        }
      },
      (ids, error) => {
        if (isPassing(error)) throw error;
        for (const userId of ids) {
          gone.add(userId);
          spoiled({ userId }, error);
        }
      },
    );
  }
  // For new notifications the rules were asked a moment ago.
  const older = pushed.filter(({ draft }) => draft.id !== null).map(({ id }) => id);
  const mayRead = new Map<string, ReadonlySet<string> | null>();
  await inHalves(
    older,
    isPassing,
    async (ids) => {
      for (const [id, seen] of await loadMayRead(reader, loader.readable, ids)) mayRead.set(id, seen);
    },
    (ids, error) => {
      if (isPassing(error)) throw error;
      for (const notificationId of ids) {
        mayRead.set(notificationId, null);
        spoiled({ notificationId }, error);
      }
    },
  );
  return { names, gone, locales, mayRead };
}
