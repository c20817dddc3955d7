/**
 * The folder of message templates: one YAML or JSON file per locale, named by it (`de.yaml`, `pt-BR.json`).
 *
 * Checked when the config is: a placeholder or a plural form that a locale does not have would otherwise show in front of
 * people, and only to some. Texts are plain: what HTML would be in them is refused.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { parse } from 'yaml';
import * as z from 'zod';
import { messageOf } from '../errors.js';
import { fieldOf } from './environment.js';
import type { Path, Problems } from './problems.js';
import type { LocaleTemplates, PluralText, Templates } from './types.js';

/** Bounds of a text and of the number of types, far above any sense. */
const maxLength = 500;
const maxEntries = 1_000;

const sentencePlaceholders = ['who', 'object', 'count', 'events'] as const;
const whoPlaceholders = ['first', 'second', 'count'] as const;

const plainText = z
  .string()
  .min(1, 'is empty')
  .max(maxLength, `is longer than ${String(maxLength)} characters`)
  .refine((value) => !/<[a-z/!]/i.test(value), 'has HTML in it: messages are plain text')
  .refine((value) => !/[\p{Cc}\u2028-\u202E\u2066-\u2069]/u.test(value), 'has control characters in it');

const pluralText = z.union([plainText, z.record(z.string(), plainText)], {
  error: 'is not a text, or texts by plural form such as { one: …, other: … }',
});

const entries = <Value extends z.ZodType>(value: Value) =>
  z
    .record(z.string().regex(/^[A-Za-z][A-Za-z0-9_-]{0,47}$/, 'is not a name'), value)
    .refine((all) => Object.keys(all).length <= maxEntries, 'has too many entries');

const fileSchema = z.strictObject({
  someone: plainText.optional(),
  who: z.strictObject({ two: plainText.optional(), more: pluralText.optional() }).optional(),
  objects: entries(plainText).optional(),
  types: entries(pluralText).optional(),
  other: pluralText.optional(),
});

/** Reads the folder; what is wrong in it becomes a problem under `templates`, a folder without files a warning. */
export function readTemplates(folder: string, problems: Problems, warnings: string[]): Templates {
  const templates: Record<string, LocaleTemplates> = {};
  let names: string[];
  try {
    names = readdirSync(folder).filter((name) => !name.startsWith('.'));
  } catch (error) {
    const missing = fieldOf(error, 'code') === 'ENOENT';
    if (missing)
      warnings.push(`templates: there is no folder ${folder}; messages are the English ones that are built in.`);
    else problems.add(['templates'], `can't be read: ${messageOf(error)}`);
    return templates;
  }
  const files = names.filter((name) => ['.yaml', '.yml', '.json'].includes(extname(name)));
  if (files.length === 0)
    warnings.push(`templates: ${folder} has no file such as de.yaml in it (one per locale, named by it).`);
  for (const name of files.sort()) {
    const locale = localeOf(name.slice(0, -extname(name).length));
    if (locale === null) {
      problems.add(['templates', name], 'is not named by a locale such as de or pt-BR');
      continue;
    }
    if (templates[locale] !== undefined) {
      problems.add(['templates', name], `is the second file for locale ${locale}`);
      continue;
    }
    const read = readFile(join(folder, name), locale, ['templates', name], problems);
    if (read !== null) templates[locale] = read;
  }
  return templates;
}

/** `pt_BR` and `pt-br` as `pt-BR`; null for what is no locale that this Node knows plural rules for. */
function localeOf(text: string): string | null {
  try {
    const [locale] = Intl.getCanonicalLocales(text.replaceAll('_', '-'));
    return locale !== undefined && Intl.PluralRules.supportedLocalesOf(locale).length > 0 ? locale : null;
  } catch {
    return null;
  }
}

function readFile(file: string, locale: string, path: Path, problems: Problems): LocaleTemplates | null {
  let data: unknown;
  try {
    data = parse(readFileSync(file, 'utf8'));
  } catch (error) {
    problems.add(path, `can't be read as YAML: ${messageOf(error).split('\n')[0] ?? ''}`);
    return null;
  }
  const result = fileSchema.safeParse(data ?? {});
  if (!result.success) {
    problems.addIssues(path, result.error.issues, data);
    return null;
  }
  const { someone, who, objects, types, other } = result.data;
  const categories = new Intl.PluralRules(locale).resolvedOptions().pluralCategories;
  const check = (text: PluralText | undefined, at: Path, placeholders: readonly string[]): void => {
    checkText(text, [...path, ...at], locale, categories, placeholders, problems);
  };
  check(someone, ['someone'], []);
  check(who?.two, ['who', 'two'], whoPlaceholders);
  check(who?.more, ['who', 'more'], whoPlaceholders);
  for (const [kind, text] of Object.entries(objects ?? {})) check(text, ['objects', kind], []);
  for (const [type, text] of Object.entries(types ?? {})) check(text, ['types', type], sentencePlaceholders);
  check(other, ['other'], [...sentencePlaceholders, 'type']);
  return {
    someone: someone ?? null,
    two: who?.two ?? null,
    more: who?.more ?? null,
    objects: new Map(Object.entries(objects ?? {})),
    types: new Map(Object.entries(types ?? {})),
    other: other ?? null,
  };
}

function checkText(
  text: PluralText | undefined,
  path: Path,
  locale: string,
  categories: readonly string[],
  placeholders: readonly string[],
  problems: Problems,
): void {
  if (text === undefined) return;
  if (typeof text !== 'string') {
    for (const category of Object.keys(text))
      if (!categories.includes(category))
        problems.add([...path, category], `is not a plural form of ${locale}, which has ${categories.join(', ')}`);
    if (text['other'] === undefined) problems.add([...path, 'other'], 'is missing: the form for all other numbers');
  }
  for (const [category, one] of typeof text === 'string' ? [[null, text] as const] : Object.entries(text)) {
    const unknown = [...one.matchAll(/\{([^{}]*)\}/g)].find(([, name]) => !placeholders.includes(name ?? ''));
    const known = placeholders.length === 0 ? 'takes none' : `has ${placeholders.map((name) => `{${name}}`).join(' ')}`;
    if (unknown !== undefined)
      problems.add(category === null ? path : [...path, category], `has the placeholder ${unknown[0]}; it ${known}`);
  }
}
