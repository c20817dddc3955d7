/**
 * Which part may use which: imports go one way, and only the configuration reads the environment.
 * Read from the syntax trees of src, so that comments and strings do not count and type-only imports do.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';
import { projectRoot } from './support/build.js';

interface Source {
  /** Within src, e.g. gateway/session.ts. */
  readonly file: string;
  /** The folder, or for a file directly in src its name without `.ts`: gateway, config. */
  readonly part: string;
  readonly imports: readonly Import[];
  readonly readsEnvironment: boolean;
}

interface Import {
  /** As written. */
  readonly from: string;
  /** The part of src that is meant, or null for a package. */
  readonly part: string | null;
  /** `import type`: nothing is loaded. */
  readonly typeOnly: boolean;
}

interface Rule {
  readonly says: string;
  /** What is wrong with this import of this file; null when nothing is. */
  readonly breaks: (source: Source, imported: Import) => boolean;
}

const pureParts = ['rules', 'protocol', 'errors'];

const rules: readonly Rule[] = [
  {
    says: 'protocol imports nothing',
    breaks: ({ part }, imported) => part === 'protocol' && imported.part !== 'protocol',
  },
  {
    says: 'client imports only protocol, but for the React hooks and the entry for Node, which nobody else imports',
    breaks: ({ file, part }, imported) =>
      part === 'client' &&
      !isOneOf(imported.part, ['client', 'protocol']) &&
      !(file === 'client/react.ts' && imported.from === 'react') &&
      !(file === 'client/node.ts' && imported.from === 'ws'),
  },
  {
    says: 'nobody imports the React hooks, nor the entry for Node',
    breaks: (_, imported) => /(^|\/)client\/(react|node)\.js$|^\.\/(react|node)\.js$/.test(imported.from),
  },
  {
    // Whatever rules load from us must not do I/O either: only these parts are free of it.
    says: 'rules do no I/O',
    breaks: ({ part }, imported) => part === 'rules' && !imported.typeOnly && !isOneOf(imported.part, pureParts),
  },
  {
    says: 'rules know only the shapes of the configuration and of what is pure',
    breaks: ({ part }, imported) =>
      part === 'rules' && imported.typeOnly && !isOneOf(imported.part, [...pureParts, 'config']),
  },
  {
    says: 'gateway never imports relay or outbox',
    breaks: ({ part }, imported) => part === 'gateway' && isOneOf(imported.part, ['relay', 'outbox']),
  },
  {
    says: 'postgres is about any Postgres: it imports only errors',
    breaks: ({ part }, imported) =>
      part === 'postgres' && imported.part !== null && !isOneOf(imported.part, ['postgres', 'errors']),
  },
  {
    says: 'nobody imports app but cli, the demo and the package itself',
    breaks: ({ part }, imported) => imported.part === 'app' && !isOneOf(part, ['app', 'cli', 'embedded', 'index']),
  },
  {
    says: 'nobody imports cli or the demo but cli',
    breaks: ({ part }, imported) =>
      (imported.part === 'cli' && part !== 'cli') ||
      (imported.part === 'embedded' && !isOneOf(part, ['cli', 'embedded'])),
  },
  {
    says: 'nobody imports index',
    breaks: (_, imported) => imported.part === 'index',
  },
];

/** cli/main.ts hands the environment on to config.ts. */
const mayReadEnvironment = ['config.ts', 'cli/main.ts'];

function isOneOf(part: string | null, parts: readonly string[]): boolean {
  return part !== null && parts.includes(part);
}

function partOf(file: string): string {
  return file.split('/')[0]?.replace(/\.[jt]s$/, '') ?? file;
}

function parse(file: string, text: string): Source {
  const tree = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, false);
  const imports: Import[] = [];
  let readsEnvironment = false;
  const add = (specifier: ts.Node | undefined, typeOnly: boolean) => {
    if (specifier === undefined || !ts.isStringLiteralLike(specifier)) return;
    const from = specifier.text;
    const target = path.posix.join(path.posix.dirname(file), from);
    imports.push({ from, part: from.startsWith('.') ? partOf(target) : null, typeOnly });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, isTypeOnly(node));
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword)
      add(node.arguments[0], false);
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal, true);
    if (isEnvironment(node)) readsEnvironment = true;
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return { file, part: partOf(file), imports, readsEnvironment };
}

function isTypeOnly(node: ts.ImportDeclaration): boolean {
  return node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword;
}

/** `process.env`, `process['env']`, `{ env } = process` and `import { env } from 'node:process'`. */
function isEnvironment(node: ts.Node): boolean {
  if (ts.isPropertyAccessExpression(node)) return isProcess(node.expression) && node.name.text === 'env';
  if (ts.isElementAccessExpression(node)) {
    return (
      isProcess(node.expression) &&
      ts.isStringLiteralLike(node.argumentExpression) &&
      node.argumentExpression.text === 'env'
    );
  }
  if (ts.isVariableDeclaration(node))
    return node.initializer !== undefined && isProcess(node.initializer) && !ts.isIdentifier(node.name);
  return (
    ts.isImportDeclaration(node) &&
    ts.isStringLiteral(node.moduleSpecifier) &&
    /^(node:)?process$/.test(node.moduleSpecifier.text)
  );
}

function isProcess(node: ts.Node): boolean {
  return ts.isIdentifier(node) && node.text === 'process';
}

function violations(sources: readonly Source[], rule: Rule): string[] {
  return sources.flatMap((source) =>
    source.imports
      .filter((imported) => rule.breaks(source, imported))
      .map(({ from }) => `${source.file} imports ${from}`),
  );
}

const root = path.join(projectRoot, 'src');
const sources = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .map((file) => file.split(path.sep).join('/'))
  .filter((file) => file.endsWith('.ts'))
  .map((file) => parse(file, readFileSync(path.join(root, file), 'utf8')));

describe('src', () => {
  test('is read whole', () => {
    expect(sources.map(({ part }) => part)).toEqual(
      expect.arrayContaining(['protocol', 'rules', 'gateway', 'config', 'errors']),
    );
    expect(sources.find(({ file }) => file === 'postgres/server.ts')?.imports).toContainEqual({
      from: '../errors.js',
      part: 'errors',
      typeOnly: false,
    });
  });

  test.each(rules)('$says', (rule) => {
    expect(violations(sources, rule)).toEqual([]);
  });

  test('only config reads the environment', () => {
    const readers = sources.filter(({ readsEnvironment }) => readsEnvironment).map(({ file }) => file);
    expect(readers.filter((file) => !mayReadEnvironment.includes(file))).toEqual([]);
  });
});

describe('the repository', () => {
  const { status, stdout } = spawnSync('git', ['ls-files', '-z'], { cwd: projectRoot, encoding: 'utf8' });
  test.skipIf(status !== 0)(
    'holds nothing that a tool left behind: no file is larger than a megabyte (needs git)',
    () => {
      const files = stdout.split('\0').filter((file) => file !== '' && existsSync(path.join(projectRoot, file)));
      expect(files).toContain('package.json');
      expect(files.filter((file) => statSync(path.join(projectRoot, file)).size > 1_000_000)).toEqual([]);
    },
  );
});

describe('the rules see', () => {
  test.each([
    ['protocol/frames.ts', `import { z } from 'zod';`],
    ['protocol/frames.ts', `export * from '../errors.js';`],
    ['client/index.ts', `import type { Config } from '../config.js';`],
    ['client/index.ts', `import WebSocket from 'ws';`],
    ['client/index.ts', `import { useState } from 'react';`],
    ['client/index.ts', `export * from './react.js';`],
    ['client/react.ts', `import { createRoot } from 'react-dom/client';`],
    ['rules/decide.ts', `import pg from 'pg';`],
    ['rules/decide.ts', `const fs = await import('node:fs');`],
    ['rules/decide.ts', `type Pool = import('../postgres/connect.js').Pool;`],
    ['rules/decide.ts', `import { loadConfig } from '../config.js';`],
    ['rules/decide.ts', `import type { Inbox } from '../inbox/types.js';`],
    ['gateway/session.ts', `import { Lease } from '../outbox/lease.js';`],
    ['gateway/http/api.ts', `export { run } from '../../relay/relay.js';`],
    ['relay/relay.ts', `import { startApp } from '../app.js';`],
    ['postgres/connect.ts', `import type { Config } from '../config.js';`],
    ['app.ts', `import { main } from './cli/main.js';`],
    ['app.ts', `import { startDemo } from './embedded/demo.js';`],
    ['broker/redis.ts', `import { startApp } from '../index.js';`],
  ])('%s: %s', (file, text) => {
    expect(rules.some((rule) => violations([parse(file, text)], rule).length > 0)).toBe(true);
  });

  test.each([`process.env.PORT`, `process['env']`, `const { env } = process`, `import { env } from 'node:process'`])(
    'the environment in: %s',
    (text) => {
      expect(parse('log.ts', text).readsEnvironment).toBe(true);
    },
  );

  test.each([
    ['protocol/frames.ts', `import { codes } from './codes.js'; // import pg from 'pg'`],
    ['client/state.ts', `import type { Push } from '../protocol/frames.js'; const text = "import 'pg'";`],
    ['rules/decide.ts', `import type { Config } from '../config.js';`],
    ['gateway/session.ts', `import type { Inbox } from '../inbox/types.js';`],
    ['cli/demo.ts', `import { startDemo } from '../embedded/demo.js';`],
    ['outbox/lease.ts', `const env = 'process.env'; process.exitCode = 1;`],
  ])('nothing wrong in %s: %s', (file, text) => {
    const source = parse(file, text);
    expect(rules.flatMap((rule) => violations([source], rule))).toEqual([]);
    expect(source.readsEnvironment).toBe(false);
  });
});
