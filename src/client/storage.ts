/**
 * The position, kept over a reload where the application wants it.
 *
 * What must hold: what is stored never runs ahead of what handlers were given, so that a reload may bring something
 * twice but never loses anything. A storage that is full, forbidden or tampered with counts as none.
 */

import type { Position } from './state.js';

/** `localStorage`, `sessionStorage`, or anything like them. */
export interface PositionStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

export interface StorageOptions {
  readonly storage?: PositionStorage | undefined;
  readonly storageKey?: string | undefined;
}

/** At most one write in this time; `flush` writes at once. */
const WRITE_EVERY_MS = 1_000;
const DEFAULT_KEY = 'belfry.position';

export function loadPosition({ storage, storageKey = DEFAULT_KEY }: StorageOptions): Position | null {
  try {
    const { userId, seq, epoch } = JSON.parse(storage?.getItem(storageKey) ?? '') as Record<string, unknown>;
    if (typeof userId !== 'string' || typeof epoch !== 'string' || !epoch || !Number.isSafeInteger(seq)) return null;
    if ((seq as number) < 0) return null;
    return { userId, seq: seq as number, epoch };
  } catch {
    return null;
  }
}

export function positionSaver({ storage, storageKey = DEFAULT_KEY }: StorageOptions): {
  save(position: Position | null): void;
  flush(): void;
} {
  let latest: Position | null = null;
  let saved: Position | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = (): void => {
    clearTimeout(timer);
    timer = undefined;
    if (latest === saved) return;
    saved = latest;
    try {
      storage?.setItem(storageKey, JSON.stringify(latest));
    } catch {
      // Full or forbidden: the next page begins without a position.
    }
  };
  return {
    flush,
    save(position) {
      latest = position;
      if (storage !== undefined && latest !== saved) timer ??= setTimeout(flush, WRITE_EVERY_MS);
    },
  };
}
