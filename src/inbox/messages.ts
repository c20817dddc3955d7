/**
 * The sentence of a notification in the language of its recipient: "Ada and 9 others liked your post".
 *
 * A template comes from the recipient's locale (`de-AT`), else its language (`de`), else English, which is built in and may be
 * overridden by a file. Plural forms are chosen by Intl.PluralRules. Text only: whoever shows it escapes it.
 */

import type { LocaleTemplates, PluralText, Templates } from '../config.js';

/** What a sentence is made of. */
export interface Said {
  readonly type: string;
  readonly objectKind: string | null;
  /** Cleaned names of the newest actors, newest first. */
  readonly names: readonly string[];
  readonly actorCount: number;
  readonly eventCount: number;
}

/** `{who}` did it to `{object}`. */
const english: LocaleTemplates = {
  someone: 'Someone',
  two: '{first} and {second}',
  more: { one: '{first} and {count} other', other: '{first} and {count} others' },
  objects: new Map(),
  types: new Map<string, PluralText>([
    ['like', '{who} liked your {object}'],
    ['repost', '{who} reposted your {object}'],
    ['comment', '{who} commented on your {object}'],
    ['follow', '{who} started following you'],
    ['message', '{who} sent you a message'],
    ['mention', '{who} mentioned you'],
    ['friend_request', '{who} sent you a friend request'],
    ['friend_accepted', '{who} accepted your friend request'],
    ['job_application', 'Your job application was updated'],
    ['application_received', '{who} applied for your job'],
    ['system', 'You have a new notification'],
  ]),
  other: '{who}: {type}',
};

interface Language {
  readonly templates: readonly LocaleTemplates[];
  readonly plurals: Intl.PluralRules;
}

/** Locales that people have are remembered up to this many; they are written by the application, maybe by people. */
const rememberedLocales = 1_000;

export class Messages {
  private readonly languages = new Map<string, Language>();
  private readonly english: Language;

  constructor(private readonly files: Templates) {
    const templates = [files['en'], english].filter((one) => one !== undefined);
    this.english = { templates, plurals: new Intl.PluralRules('en') };
  }

  /** What stands for a person without a name. */
  someone(locale: string | null): string {
    return pick(this.languageOf(locale), (one) => one.someone) ?? 'Someone';
  }

  sentence(said: Said, locale: string | null): string {
    const language = this.languageOf(locale);
    const { type, objectKind, names, actorCount, eventCount } = said;
    const template = language.templates.map((one) => one.types.get(type) ?? one.other).find((one) => one !== null);
    const kind = objectKind ?? 'post';
    const values: Readonly<Record<string, () => string>> = {
      who: () => this.who(language, names, actorCount, locale),
      object: () => pick(language, (one) => one.objects.get(kind) ?? null) ?? kind.replaceAll('_', ' '),
      count: () => String(actorCount),
      events: () => String(eventCount),
      type: () => type.replaceAll('_', ' '),
    };
    return filled(formOf(language, template ?? '{who}: {type}', actorCount), values);
  }

  /** "Ada", "Ada and Bo", "Ada and 9 others". */
  private who(language: Language, names: readonly string[], count: number, locale: string | null): string {
    const first = names[0] ?? this.someone(locale);
    const second = names[1];
    if (count <= 1) return first;
    const two = count === 2 && second !== undefined;
    const others = count - 1;
    const template = two ? pick(language, (one) => one.two) : pick(language, (one) => one.more);
    return filled(formOf(language, template ?? '{first}', others), {
      first: () => first,
      second: () => second ?? '',
      count: () => String(others),
    });
  }

  private languageOf(locale: string | null): Language {
    if (locale === null) return this.english;
    const known = this.languages.get(locale);
    if (known !== undefined) return known;
    const language = this.make(locale);
    if (this.languages.size < rememberedLocales) this.languages.set(locale, language);
    return language;
  }

  /** `de_AT.UTF-8` and `de-at` find `de-AT`, then `de`. What is no locale is English. */
  private make(locale: string): Language {
    const steps = locale
      .replace(/[.@].*$/, '')
      .replaceAll('_', '-')
      .split('-');
    for (let length = steps.length; length > 0; length--) {
      const wanted = steps.slice(0, length).join('-').toLowerCase();
      const name = Object.keys(this.files).find((one) => one.toLowerCase() === wanted);
      const exact = name === undefined ? undefined : this.files[name];
      if (name === undefined || exact === undefined) continue;
      const language = this.files[name.split('-')[0] ?? name];
      const templates = [exact, language, ...this.english.templates].filter((one) => one !== undefined);
      return { templates: [...new Set(templates)], plurals: new Intl.PluralRules(name) };
    }
    return this.english;
  }
}

function pick<Value>(language: Language, from: (templates: LocaleTemplates) => Value | null): Value | null {
  for (const templates of language.templates) {
    const value = from(templates);
    if (value !== null) return value;
  }
  return null;
}

function formOf(language: Language, text: PluralText, count: number): string {
  if (typeof text === 'string') return text;
  return text[language.plurals.select(count)] ?? text['other'] ?? '';
}

/** In one pass: a name that looks like a placeholder stays a name. */
function filled(template: string, values: Readonly<Record<string, () => string>>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => values[name]?.() ?? whole);
}
