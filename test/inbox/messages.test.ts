/** Sentences: who, how many, in which language; and names as strangers write them. */

import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { Messages } from '../../src/inbox/messages.js';
import { cleanName } from '../../src/inbox/render.js';

/** A config with these files as its templates. */
function configured(files: Readonly<Record<string, string>>): Config {
  const folder = mkdtempSync(path.join(tmpdir(), 'belfry-templates-'));
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
  return parseConfig(
    `version: 1
database: { url: postgres://localhost/x }
auth: { secret: a-secret-that-is-long-enough-0123456789, issuer: null, audience: null }
sources: []
templates: ${JSON.stringify(folder)}
`,
    {},
  );
}

const says = (
  messages: Messages,
  type: string,
  names: readonly string[],
  locale: string | null = null,
  actorCount = names.length,
  objectKind: string | null = 'post',
) => messages.sentence({ type, objectKind, names, actorCount, eventCount: actorCount }, locale);

describe('English, built in', () => {
  const messages = new Messages({});

  it.each([
    ['like', ['Ada'], 1, 'Ada liked your post'],
    ['like', ['Ada', 'Bo'], 2, 'Ada and Bo liked your post'],
    ['like', ['Ada'], 2, 'Ada and 1 other liked your post'],
    ['like', ['Ada', 'Bo', 'Cleo'], 10, 'Ada and 9 others liked your post'],
    ['like', [], 0, 'Someone liked your post'],
    ['repost', ['Ada'], 1, 'Ada reposted your post'],
    ['comment', ['Ada'], 1, 'Ada commented on your post'],
    ['follow', ['Ada', 'Bo'], 2, 'Ada and Bo started following you'],
    ['message', ['Ada'], 1, 'Ada sent you a message'],
    ['mention', ['Ada'], 1, 'Ada mentioned you'],
    ['friend_request', ['Ada'], 1, 'Ada sent you a friend request'],
    ['job_application', ['Ada'], 1, 'Your job application was updated'],
    ['system', [], 0, 'You have a new notification'],
    ['price_drop', ['Ada'], 1, 'Ada: price drop'],
  ])('%s of %j, %i in all', (type, names, count, text) => {
    expect(says(messages, type, names, null, count)).toBe(text);
  });

  it('a name that looks like a placeholder stays a name', () => {
    expect(says(messages, 'like', ['{object}', '{count}'])).toBe('{object} and {count} liked your post');
  });

  it('names the kind of object', () => {
    expect(says(messages, 'like', ['Ada'], null, 1, 'photo_album')).toBe('Ada liked your photo album');
  });
});

describe('by file', () => {
  const config = configured({
    'de.yaml': `
someone: Jemand
who: { two: '{first} und {second}', more: { one: '{first} und {count} weitere Person', other: '{first} und {count} weitere' } }
objects: { post: deinen Beitrag }
types:
  like: { one: '{who} mag {object}', other: '{who} mögen {object}' }
`,
    'de-AT.json': '{"types": {"like": "{who} taugt {object}"}}',
    'pl.yml': `types: { like: { one: '{count} osoba', few: '{count} osoby', many: '{count} osób', other: '{count} osoby' } }`,
    'en.yaml': `types: { like: '{who} faved your {object}', badge_won: 'A badge for {who}' }`,
  });
  const messages = new Messages(config.templates);

  it('chooses the plural form by the locale', () => {
    expect(says(messages, 'like', ['Ada'], 'de')).toBe('Ada mag deinen Beitrag');
    expect(says(messages, 'like', ['Ada', 'Bo'], 'de')).toBe('Ada und Bo mögen deinen Beitrag');
    expect(says(messages, 'like', ['Ada'], 'de', 3)).toBe('Ada und 2 weitere mögen deinen Beitrag');
    const polish = [1, 2, 5, 22].map((count) => says(messages, 'like', ['Ada'], 'pl', count));
    expect(polish).toEqual(['1 osoba', '2 osoby', '5 osób', '22 osoby']);
  });

  it('goes from the region to the language to English', () => {
    expect(says(messages, 'like', ['Ada', 'Bo'], 'de_at')).toBe('Ada und Bo taugt deinen Beitrag');
    expect(says(messages, 'like', ['Ada'], 'de-CH')).toBe('Ada mag deinen Beitrag');
    expect(says(messages, 'like', [], 'de', 1)).toBe('Jemand mag deinen Beitrag');
    for (const locale of [null, 'fr', 'en-GB', 'no locale at all', ''])
      expect(says(messages, 'like', ['Ada'], locale)).toBe('Ada faved your post');
    expect(says(messages, 'badge_won', ['Ada'], 'de')).toBe('A badge for Ada');
    expect(says(messages, 'follow', ['Ada'], 'de')).toBe('Ada started following you');
  });
});

describe('files that are wrong', () => {
  it('are told at the start, all at once', () => {
    const read = () =>
      configured({
        'de.yaml': `types: { like: '{wer} mag es', comment: '<b>{who}</b>', mention: { few: 'x', one: 'y' } }\nwhom: x`,
        'klingonisch!.yaml': 'types: {}',
        'fr.yaml': 'types: [',
        'en.yaml': `who: { more: { one: '{first}' } }\ntypes: { like: "{who} liked\\u202E it" }`,
      });
    expect(read).toThrow(/de\.yaml\.whom/);
    expect(read).toThrow(/de\.yaml\.types\.comment.*HTML/);
    expect(read).toThrow(/klingonisch!\.yaml: is not named by a locale/);
    expect(read).toThrow(/fr\.yaml: can't be read as YAML/);
    expect(read).toThrow(/en\.yaml\.types\.like: has control characters/);
  });

  it('placeholders and plural forms that a locale does not have', () => {
    const read = () => configured({ 'de.yaml': `types: { like: '{wer} mag es', mention: { few: 'x', one: 'y' } }` });
    expect(read).toThrow(/types\.like: has the placeholder \{wer\}; it has \{who\} \{object\} \{count\} \{events\}/);
    expect(read).toThrow(/types\.mention\.few: is not a plural form of de, which has one, other/);
    expect(read).toThrow(/types\.mention\.other: is missing/);
  });

  it('a folder without files is a warning', () => {
    expect(configured({}).warnings.join()).toMatch(/has no file such as de\.yaml/);
    expect(configured({ '.hidden': '' }).templates).toEqual({});
  });
});

describe('names', () => {
  it.each([
    ['Ada', 'Ada'],
    ['  Ada \n\t Lovelace ', 'Ada Lovelace'],
    ['Ada\u0000\u001b[31m', 'Ada [31m'],
    ['\u202Eevil', 'evil'],
    ['a\u2066b\u2069c', 'a b c'],
    ['\u200B\u2060\uFEFF', 'Someone'],
    ['\u200D\u200C', 'Someone'],
    ['علی\u200Cرضا', 'علی\u200Cرضا'],
    ['👩\u200D👧', '👩\u200D👧'],
    ['half \uD83D', 'half'],
    ['', 'Someone'],
    [null, 'Someone'],
    ['<b>x</b>', '<b>x</b>'],
    ['x'.repeat(200), `${'x'.repeat(79)}…`],
  ])('%j is shown as %j', (name, shown) => {
    expect(cleanName(name)).toBe(shown);
  });

  it('are cut between characters', () => {
    expect([...cleanName('🙂'.repeat(100))]).toHaveLength(80);
  });
});
