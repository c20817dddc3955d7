/** The draft as YAML for people to read: a reason beside each choice, a question where somebody has to decide. */

import { Document, isMap, YAMLMap, YAMLSeq, type Node } from 'yaml';
import { tableText } from './database.js';
import type { Because, ChannelDraft, Draft, PairDraft, PeopleDraft, Question, SourceDraft } from './draft.js';

export interface WriteOptions {
  /** Where JWT_SECRET is not set; made at random. Null: it is set. */
  readonly secret: string | null;
  /** `belfry init` with the options that were given, for the hint on how to answer. */
  readonly command: string;
}

/** Lines longer than this have their reason above instead of beside them. */
const BESIDE = 110;

export function writeConfig(draft: Draft, options: WriteOptions): string {
  const document = new Document({}, { version: '1.2' });
  const root = new YAMLMap();
  document.contents = root;
  const questions = new Map(draft.questions.map((question) => [question.id, question]));
  const asked = new Set<string>();
  const ask = (ids: readonly string[]): string => questionText(ids, questions, asked, options.command);

  put(root, 'version', 1, null);
  put(root, 'database', { url: '${DATABASE_URL}' }, 'the variable DATABASE_URL');
  auth(root, options);
  if (draft.people !== null) people(root, draft.people, ask(['people']));
  for (const section of ['blocks', 'mutes', 'threadMutes'] as const)
    pairs(
      root,
      section,
      draft.pairs.filter((pair) => pair.section === section),
      ask,
    );
  sources(root, draft, ask);
  channels(root, draft.channels, ask);
  const rest = draft.questions.map(({ id }) => id).filter((id) => !asked.has(id));
  const after = [ask(rest), ignoredText(draft), draft.notes.join('\n\n')].filter((text) => text !== '').join('\n\n');
  if (after !== '') document.comment = comment(after);
  document.commentBefore = comment(headText(draft));
  return document.toString({ lineWidth: 0, flowCollectionPadding: true });
}

function headText(draft: Draft): string {
  const open = draft.questions.filter(({ answer }) => answer === null).length;
  return [
    'Written by belfry init from what the database says about itself: names, types, keys, comments. No row was read.',
    draft.framework === null ? null : `The tables look like those of ${draft.framework}.`,
    'Beside each choice stands its reason. Change what is wrong: every key is explained in docs/configuration.md.',
    open === 0
      ? null
      : `Look for QUESTION: ${open === 1 ? 'one thing' : `${String(open)} things`} could not be decided from names alone.`,
  ]
    .filter((line) => line !== null)
    .join('\n');
}

function auth(root: YAMLMap, { secret }: WriteOptions): void {
  const value = { secret: secret === null ? '${JWT_SECRET}' : `\${JWT_SECRET:-${secret}}` };
  put(root, 'auth', value, null);
  const lines = [
    'QUESTION (auth): how does your backend sign its tokens? A shared secret is assumed: JWT_SECRET, the key that it signs with.',
    'For a key pair write publicKey: FILE or jwksUri: URL instead. issuer: and audience: have `iss` and `aud` checked.',
    ...(secret === null
      ? []
      : [
          'JWT_SECRET is not set, so a random one stands here: good for trying with `belfry token`, not known to your backend.',
        ]),
  ];
  before(root, 'auth', lines.join('\n'));
}

function people(root: YAMLMap, draft: PeopleDraft, question: string): void {
  const map = new YAMLMap();
  put(map, 'table', tableText(draft.table.value), draft.table.reason);
  for (const key of ['id', 'name', 'enabled', 'active', 'locale'] as const) {
    const field = draft[key];
    if (field !== null) put(map, key, field.value, field.reason);
  }
  root.set('people', map);
  before(root, 'people', question);
}

function pairs(
  root: YAMLMap,
  section: PairDraft['section'],
  drafts: readonly PairDraft[],
  ask: (ids: readonly string[]) => string,
): void {
  const plain = drafts.find(({ reading }) => reading === null);
  if (plain !== undefined) {
    root.set(section, pairMap(plain));
    before(root, section, ask(plain.questions));
    return;
  }
  const [first] = drafts;
  if (first === undefined) return;
  const readings = drafts.map((draft) => {
    const map = new YAMLMap();
    map.set(section, pairMap(draft));
    return `If ${draft.reading?.choice ?? ''}:\n${rendered(map)}`;
  });
  pending(root, [ask(first.questions), ...readings].join('\n'));
}

function pairMap(draft: PairDraft): YAMLMap {
  const map = new YAMLMap();
  put(map, 'table', tableText(draft.table), draft.reason);
  for (const [key, { value, reason }] of Object.entries(draft.fields)) put(map, key, value, reason);
  return map;
}

function sources(root: YAMLMap, draft: Draft, ask: (ids: readonly string[]) => string): void {
  const list = new YAMLSeq();
  let waiting: string[] = [];
  for (const source of draft.sources) {
    const question = ask(source.questions);
    if (source.reading !== null) {
      const item = new YAMLSeq();
      item.add(sourceMap(source));
      waiting.push([question, `If ${source.reading.choice}:`, rendered(item)].filter((part) => part !== '').join('\n'));
      continue;
    }
    const map = sourceMap(source);
    const own = [question, `${tableText(source.table)}: ${source.reason}${rowsText(source)}`]
      .filter((text) => text !== '')
      .join('\n');
    map.commentBefore = comment([waiting.join('\n'), own].filter((text) => text !== '').join('\n\n'));
    if (list.items.length > 0) map.spaceBefore = true;
    list.add(map);
    waiting = [];
  }
  list.flow = list.items.length === 0;
  root.set('sources', list);
  spaceBefore(root, 'sources');
  if (waiting.length === 0) return;
  if (list.flow) pending(root, waiting.join('\n'));
  else list.comment = comment(waiting.join('\n'));
}

function rowsText(source: SourceDraft): string {
  const rows = 'rows' in source.table && typeof source.table.rows === 'number' ? source.table.rows : 0;
  return rows < 1 ? '' : `; about ${Math.round(rows).toString()} rows`;
}

function sourceMap(source: SourceDraft): YAMLMap {
  const map = new YAMLMap();
  put(map, 'name', source.name, null);
  put(map, 'type', source.type, null);
  put(map, 'table', tableText(source.table), null);
  const keys = [
    'key',
    'actor',
    'object',
    'subject',
    'recipient',
    'channels',
    'counter',
    'include',
    'when',
    'time',
  ] as const;
  for (const key of keys) {
    const field: Because<unknown> | null = source[key] ?? null;
    if (field !== null) put(map, key, field.value, field.reason);
  }
  return map;
}

function channels(root: YAMLMap, drafts: readonly ChannelDraft[], ask: (ids: readonly string[]) => string): void {
  if (drafts.length === 0) return;
  const map = new YAMLMap();
  for (const { kind, read, questions } of drafts) {
    const channel = new YAMLMap();
    put(channel, 'read', read.value, read.reason);
    put(channel, 'publish', 'none', 'clients write through your backend');
    map.set(kind, channel);
    before(map, kind, ask(questions));
  }
  root.set('channels', map);
  spaceBefore(root, 'channels');
}

function questionText(
  ids: readonly string[],
  questions: ReadonlyMap<string, Question>,
  asked: Set<string>,
  command: string,
): string {
  return ids
    .flatMap((id) => {
      const question = questions.get(id);
      if (question === undefined || asked.has(id)) return [];
      asked.add(id);
      const { text, choices, fallback, answer } = question;
      if (answer !== null)
        return [`Answered (${id}): ${choices.find((choice) => choice.id === answer)?.text ?? answer}.`];
      const list = choices.map(
        (choice) => `  ${choice.id}: ${choice.text}${choice.id === fallback ? ' (as it stands here)' : ''}`,
      );
      const how =
        choices.length === 0
          ? []
          : [
              `${fallback === null ? 'Nothing is written until you uncomment one' : 'Change it here'}, or answer with --ask, or with: ${command} --force --answer '${id}=${fallback ?? choices[0]?.id ?? ''}'`,
            ];
      return [[`QUESTION (${id}): ${text}`, ...list, ...how].join('\n')];
    })
    .join('\n');
}

function ignoredText(draft: Draft): string {
  if (draft.ignored.length === 0) return '';
  return [
    'Tables that nothing was made of:',
    ...draft.ignored.map(({ table, reason }) => `  ${tableText(table)}: ${reason}`),
  ].join('\n');
}

function rendered(node: YAMLMap | YAMLSeq): string {
  const document = new Document();
  document.contents = node;
  return document.toString({ lineWidth: 0, flowCollectionPadding: true }).trimEnd();
}

/** Sets a key with its reason beside it; above it where the line would be too long. */
function put(map: YAMLMap, key: string, value: unknown, reason: string | null): void {
  const node = new Document(value).contents as Node;
  if (node instanceof YAMLMap || node instanceof YAMLSeq) node.flow = true;
  map.set(key, node);
  if (reason === null) return;
  const length = JSON.stringify(value).length;
  if (length + reason.length > BESIDE) before(map, key, reason);
  else node.comment = ` ${reason}`;
}

/** A comment above a key. */
function before(map: YAMLMap, key: string, text: string): void {
  const pair = map.items.find((item) => String(item.key) === key);
  if (pair === undefined || text === '') return;
  const node = new Document(key).contents as Node;
  node.commentBefore = comment(text);
  pair.key = node;
}

function spaceBefore(map: YAMLMap, key: string): void {
  const pair = map.items.find((item) => String(item.key) === key);
  if (pair === undefined) return;
  const node = (typeof pair.key === 'string' ? new Document(key).contents : pair.key) as Node;
  node.spaceBefore = true;
  pair.key = node;
}

/** Text that stands as a comment behind what was written last. */
function pending(root: YAMLMap, text: string): void {
  const last = root.items.at(-1)?.value;
  const node = isMap(last) || last instanceof YAMLSeq ? last : null;
  if (node === null || node.flow) root.comment = [root.comment, comment(text)].filter(Boolean).join('\n');
  else node.comment = [node.comment, comment(text)].filter(Boolean).join('\n');
}

function comment(text: string): string {
  return text
    .split('\n')
    .map((line) => (line === '' ? '' : ` ${line}`))
    .join('\n');
}
