/** What people want to hear of, by type of notification. */

import type pg from 'pg';
import type { Config } from '../config.js';
import { BelfryError } from '../errors.js';
import type { Preference } from './types.js';

/** Types of the seed guide: preferences may name them whether or not the config has a source for them. */
const standardTypes = [
  'like',
  'comment',
  'follow',
  'message',
  'mention',
  'friend_request',
  'job_application',
  'system',
  'repost',
];

export class Preferences {
  private readonly types: ReadonlySet<string>;

  constructor(
    private readonly pool: pg.Pool,
    config: Config,
  ) {
    this.types = new Set([
      ...standardTypes,
      ...config.sources.map(({ type }) => type),
      ...Object.keys(config.aggregation),
    ]);
  }

  async of(userId: string): Promise<Record<string, Preference>> {
    const result = await this.pool.query<{ type: string; setting: Preference }>(
      'select type, setting from belfry.preference where user_id = $1',
      [userId],
    );
    const preferences: Record<string, Preference> = Object.fromEntries(
      [...this.types].sort().map((type) => [type, 'on']),
    );
    for (const { type, setting } of result.rows) preferences[type] = setting;
    return preferences;
  }

  async set(userId: string, preferences: Readonly<Record<string, Preference>>): Promise<Record<string, Preference>> {
    const unknown = Object.keys(preferences).filter((type) => !this.types.has(type));
    if (unknown.length > 0)
      throw new BelfryError(
        'bad_request',
        `Unknown notification types: ${unknown.join(', ')}. Known: ${[...this.types].sort().join(', ')}.`,
      );
    await this.pool.query(
      `insert into belfry.preference (user_id, type, setting) select $1, t.type, t.setting from unnest($2::text[], $3::text[]) t(type, setting)
       on conflict (user_id, type) do update set setting = excluded.setting`,
      [userId, Object.keys(preferences), Object.values(preferences)],
    );
    return await this.of(userId);
  }
}
