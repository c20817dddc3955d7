/** What init makes of a schema, as far as it goes: the config is parsed, the triggers are made, the relay's statement is planned, where there are sources. */

import { onTestFinished } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig, type Config } from '../../src/config.js';
import type { Draft } from '../../src/init/draft.js';
import { lookAt } from '../../src/init/look.js';
import { recognise } from '../../src/init/recognise.js';
import { writeConfig } from '../../src/init/write.js';
import { resolveSql } from '../../src/relay/plan/resolve.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { createTestDatabase } from '../support/postgres.js';
import { testSecret } from '../support/social.js';

/** The database is dropped when the test ends. */
export async function through(
  schema: string,
  answers: Readonly<Record<string, string>> = {},
): Promise<{ draft: Draft; text: string; config: Config }> {
  const database = await createTestDatabase({ prepare: schema });
  onTestFinished(() => database.drop());
  const client = await database.client();
  const draft = recognise(await lookAt(client), new Map(Object.entries(answers)));
  const text = writeConfig(draft, { secret: null, command: 'belfry init' });
  const config = parseConfig(text, { DATABASE_URL: database.url, JWT_SECRET: testSecret });
  await installCapture(client, config);
  if (config.sources.length === 0) return { draft, text, config };
  const statement = resolveSql(config.sources, await loadColumnTypes(client, config));
  await client.query(`explain ${statement('select id, xid, at, source, op, new, old from belfry.outbox')}`);
  return { draft, text, config };
}
